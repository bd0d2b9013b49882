"""The verbs that ask, prove and restore a registry's memory, as a user calls them."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import secrets
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from digestry.catalog.journal_export import verify_lines
from digestry.errors import ContentError
from digestry.model.digest import Digest
from tests.client.docker_registry import running_docker_registry
from tests.registry.support import events
from tests.support import RegistryServer, run_digestry, running_registry

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a verb with a home of its own; ``status`` is the exit code that it must have."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DIGESTRY_")}
    environment |= {"DIGESTRY_HOME": str(tmp_path / "home"), "DOCKER_CONFIG": str(tmp_path / "docker")}

    def run(*arguments: str | Path, status: int = 0, given: str = "") -> subprocess.CompletedProcess[str]:
        done = run_digestry(*arguments, env=environment, given=given)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def name() -> str:
    return f"memory/{secrets.token_hex(6)}"


def story(registry: RegistryServer, name: str) -> tuple[list[Digest], list[str]]:
    """``1.5`` is a, then b; ``2`` is b, and then gone. Digests, and each entry's time."""
    digests = [registry.push_image(name, "1.5", os.urandom(8)) for _ in range(2)]
    raw = registry.request("GET", f"/v2/{name}/manifests/{digests[1]}").body
    registry.push_manifest(name, "2", raw)
    assert registry.request("DELETE", f"/v2/{name}/manifests/2").status == 202
    return digests, [event["at"] for event in events(registry, name)]


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


@pytest.mark.long
def test_tags_as_of_a_time(run: Run, registry: RegistryServer, name: str) -> None:
    (a, b), times = story(registry, name)
    full = f"{registry.host}/{name}"

    def at(time: str) -> list[tuple[str, str]]:
        rows = parsed(run("tags", full, "--at", time, "--format", "json"))
        assert all(row["problem"] is None and row["updated_at"].endswith("Z") for row in rows)
        return [(row["tag"], row["digest"]) for row in rows]

    assert at(times[0]) == [("1.5", str(a))]
    assert at(times[2]) == [("1.5", str(b)), ("2", str(b))]
    assert at(times[3]) == at("2100-01-01") == [("1.5", str(b))]
    assert at("2000-01-01") == []
    assert f"sha256:{a.short}" in run("tags", full, "--at", times[0]).stdout
    wrong = run("tags", full, "--at", "soon", status=2)
    assert "2026-11-27 02:34:31" in wrong.stderr
    run("tags", f"{registry.host}/memory/nowhere", "--at", "2026-01-01", status=4)


@pytest.mark.long
def test_a_printed_time_brings_back_what_the_tag_had_after_that_move(
    run: Run, registry: RegistryServer, name: str
) -> None:
    """Whatever prints it, also if the tag moved again within the second."""
    full = f"{registry.host}/{name}"
    a, b, c = (registry.push_image(name, "1.5", os.urandom(8)) for _ in range(3))
    printed = [line.split()[0] for line in run("log", f"{full}:1.5").stdout.splitlines()[1:]]
    assert printed == sorted(printed, reverse=True)
    for time, digest in zip(printed, (c, b, a), strict=True):
        back = run("restore", f"{full}:1.5", "--at", time)
        assert f"Digest: {digest}" in back.stdout
        assert f"--at is {time}" in back.stderr
    since = run("whose", f"{full}@{b}").stdout.splitlines()[-1].split()[1]
    assert since == printed[1]
    row = run("tags", full, "--at", since).stdout.splitlines()[1].split()
    assert row == ["1.5", f"sha256:{b.short}", since]
    assert (
        f"pointed to {b} at {since}: it came there at {since}"
        in run("pull", f"{full}:1.5", "--at", since).stderr
    )


@pytest.mark.long
def test_the_moment_that_a_time_is(run: Run, registry: RegistryServer, name: str) -> None:
    _, times = story(registry, name)
    full = f"{registry.host}/{name}"
    second = times[-1][:19].replace("T", " ")

    def rows(*more: str) -> list[str]:
        return [row["tag"] for row in parsed(run("tags", full, "--format", "json", *more))]

    assert rows("--at", second) == ["1.5"]
    assert rows("--at", "now") == rows("--at", "0s") == rows("--at", "today") == ["1.5"]
    assert rows("--at", "2d") == rows("--at", "1h 30m ago") == rows("--at", "3 weeks") == []
    assert f"--at is {times[-1][:19]}.999999Z" in run("tags", full, "--at", second).stderr
    to_come = run("tags", full, "--at", "2100-01-01").stderr
    assert "--at is 2100-01-01T23:59:59.999999Z, which is still to come" in to_come
    log = run("log", full, "--since", second, "--until", second)
    assert f"--since is {times[-1][:19]}.000000Z" in log.stderr
    assert f"--until is {times[-1][:19]}.999999Z" in log.stderr
    assert times[-1] in log.stdout


@pytest.mark.long
def test_log_between_two_times(run: Run, registry: RegistryServer, name: str) -> None:
    _, times = story(registry, name)
    full = f"{registry.host}/{name}"

    def log(*more: str) -> list[str]:
        return [event["at"] for event in parsed(run("log", full, "--format", "json", *more))]

    assert log() == times[::-1]
    assert log("--since", times[1]) == times[:0:-1]
    assert log("--until", times[1]) == times[1::-1]
    assert log("--since", times[1], "--until", times[2], "--limit", "1") == [times[2]]
    assert "nothing happened" in run("log", full, "--until", "2000-01-01", status=4).stderr


@pytest.mark.long
def test_what_nobody_knows_of_is_not_said_to_have_never_been(
    run: Run, registry: RegistryServer, name: str
) -> None:
    """A repository that is mistyped, or not shown to who asks, is not one without a past."""
    (a, _), _ = story(registry, name)
    nowhere = f"{registry.host}/{name}x"
    for command in (
        ["log", f"{nowhere}:1"],
        ["log", nowhere],
        ["whose", f"{nowhere}@{a}"],
        ["tags", nowhere],
    ):
        said = run(*command, status=4).stderr
        assert f"repository {name}x is not known" in said
        assert "check the name; or it may be private" in said
    assert "has nothing about" in run("log", f"{registry.host}/{name}:9", status=4).stderr


@pytest.mark.long
def test_tags_of_a_name_with_a_tag(run: Run, registry: RegistryServer, name: str) -> None:
    (a, _), _ = story(registry, name)
    full = f"{registry.host}/{name}"
    registry.push_image(name, "other")
    assert [row["tag"] for row in parsed(run("tags", f"{full}:1.5", "--format", "json"))] == ["1.5"]
    assert "is not there" in run("tags", f"{full}:9", status=4).stderr
    assert "digestry whose" in run("tags", f"{full}@{a}", status=2).stderr


def test_an_export_without_entries_proves_nothing(run: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert "nothing to verify" in run("journal", "verify", "--file", empty, status=4).stderr


def test_a_server_that_is_no_registry(run: Run) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            host = f"127.0.0.1:{server.server_port}"
            said = run("pull", f"{host}/app:1", status=3).stderr
            assert host in said
        finally:
            server.shutdown()
            thread.join()
    assert "is a registry, and names no repository" in run("pull", "localhost:5000", status=2).stderr


@pytest.mark.long
def test_pull_as_of_a_time(run: Run, registry: RegistryServer, name: str) -> None:
    (a, b), times = story(registry, name)
    tag = f"{registry.host}/{name}:1.5"
    pulled = run("pull", tag, "--at", times[0])
    assert f"1.5 pointed to {a} at {times[0]}" in pulled.stderr
    assert f"did until {times[1]}" in pulled.stderr
    assert f"Digest: {a}" in pulled.stdout
    assert f"now points to {b}" in pulled.stderr
    assert "and still does" in run("pull", tag, "--at", "2100-01-01").stderr
    early = run("pull", tag, "--at", "2000-01-01", status=4)
    assert "there was no tag 1.5" in early.stderr
    run("pull", f"{registry.host}/{name}:2", "--at", times[3], status=4)
    assert "a digest means the same" in run("pull", f"{tag}@{a}", "--at", "2100-01-01", status=2).stderr


@pytest.mark.long
def test_whose(run: Run, registry: RegistryServer, name: str) -> None:
    (a, b), times = story(registry, name)
    full = f"{registry.host}/{name}"
    rows = parsed(run("whose", f"{full}@{b}", "--format", "json"))
    assert [(row["tag"], row["since"], row["until"], row["still"]) for row in rows] == [
        ("2", times[2], times[3], False),
        ("1.5", times[1], None, True),
    ]
    lines = run("whose", f"{full}@{a}").stdout.splitlines()
    assert lines[0].split() == ["TAG", "SINCE", "UNTIL", "VIA"]
    assert lines[1].split()[0] == "1.5"
    assert "knows of no tag of" in run("whose", f"{full}@{Digest.of(b'never')}", status=4).stderr


@pytest.mark.long
def test_whose_without_a_repository(run: Run, registry: RegistryServer, name: str) -> None:
    (a, b), times = story(registry, name)
    rows = parsed(run("whose", str(b), "--registry", registry.host, "--format", "json"))
    assert [(row["repository"], row["tag"], row["since"], row["until"]) for row in rows] == [
        (name, "2", times[2], times[3]),
        (name, "1.5", times[1], None),
    ]
    assert rows == parsed(run("whose", f"{registry.host}/{name}@{b}", "--format", "json"))
    run("config", "set", "registry", registry.host)
    lines = run("whose", str(a)).stdout.splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "SINCE", "UNTIL", "VIA"]
    assert lines[1].split()[:2] == [name, "1.5"]
    assert "knows of no tag that" in run("whose", str(Digest.of(b"never")), status=4).stderr
    assert "for a digest alone" in run("whose", f"{name}@{a}", "--registry", registry.host, status=2).stderr
    run("whose", "sha256:1234", status=2)


@pytest.mark.long
def test_restore(run: Run, registry: RegistryServer, name: str) -> None:
    (a, b), times = story(registry, name)
    tag = f"{registry.host}/{name}:1.5"
    assert run("restore", tag, "--to", str(a)).stdout.splitlines() == [
        f"Status: 1.5 has moved, from {b}",
        f"Digest: {a}",
    ]
    assert run("digest", tag).stdout == f"{a}\n"
    assert "nothing was changed" in run("restore", tag, "--at", times[0]).stderr
    newest = parsed(run("log", tag, "--format", "json"))[0]
    assert (newest["event"], newest["from_digest"], newest["to_digest"]) == ("moved", str(b), str(a))
    back = run("restore", f"{registry.host}/{name}:2", "--at", times[2])
    assert back.stdout.splitlines() == ["Status: 2 is back", f"Digest: {b}"]
    assert "never pointed to" in run("restore", tag, "--to", str(Digest.of(b"x")), status=4).stderr
    for wrong in ([], ["--to", str(a), "--at", "2026-01-01"], ["--to", "x"]):
        run("restore", tag, *wrong, status=2)
    run("restore", f"{registry.host}/{name}", "--to", str(a), status=2)


@pytest.mark.long
def test_a_registry_without_memory_is_said(run: Run, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    with running_docker_registry() as other:
        full = f"{other}/app"
        packed = run("pack", app, "-t", f"{full}:1", "--push").stdout.splitlines()
        digest = Digest.parse(packed[0].removeprefix("Digest: "))
        for verb in (
            ["pull", f"{full}:1", "--at", "2026-01-01"],
            ["tags", full, "--at", "2026-01-01"],
            ["whose", f"{full}@{digest}"],
            ["whose", f"{digest}", "--registry", other],
            ["restore", f"{full}:1", "--to", str(digest)],
        ):
            done = run(*verb, status=3)
            assert other in done.stderr
            assert "hint:" in done.stderr
        run("restore", f"{full}:2", "--to", str(digest), status=4)


class _OnlyTheDraft(http.server.BaseHTTPRequestHandler):
    """A registry that has the draft's tag history, and nothing of digestry's own."""

    behind: str

    def do_GET(self) -> None:
        if "_digestry" in self.path:
            self.send_error(404)
            return
        asked = urllib.request.Request(f"http://{self.behind}{self.path}", method=self.command)
        try:
            answer = urllib.request.urlopen(asked)  # noqa: S310 - the registry of this test
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read()
            self.send_response(answer.status)
            for name in ("Content-Type", "Docker-Content-Digest", "Content-Length", "Link"):
                if answer.headers[name] is not None:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library names it
        pass


def test_pull_as_of_a_time_by_the_drafts_history(run: Run, registry: RegistryServer, name: str) -> None:
    (a, b), times = story(registry, name)
    handler = type("Handler", (_OnlyTheDraft,), {"behind": registry.host})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            full = f"127.0.0.1:{server.server_address[1]}/{name}"
            pulled = run("pull", f"{full}:1.5", "--at", times[0])
            assert f"Digest: {a}" in pulled.stdout
            assert f"did until {times[1]}" in pulled.stderr
            assert f"Digest: {b}" in run("pull", f"{full}:2", "--at", times[2]).stdout
            assert "there was no tag 2" in run("pull", f"{full}:2", "--at", times[3], status=4).stderr
            assert "there was no tag 1.5" in run("pull", f"{full}:1.5", "--at", "2000-01-01", status=4).stderr
        finally:
            server.shutdown()
            thread.join()


# -- the journal ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a registry that has been stopped, with a journal of six entries."""
    with running_registry() as server:
        for name in ("a", "b"):
            story(server, name)
        for _ in range(2):
            server.push_image("c", "t", os.urandom(8))
        server.stop()
        root = tmp_path_factory.mktemp("stopped")
        root.joinpath("catalog.db").write_bytes((server.root / "catalog.db").read_bytes())
    return root


@pytest.mark.long
def test_verify_while_it_is_served(run: Run, registry: RegistryServer, name: str) -> None:
    story(registry, name)
    hashes = [event["hash"] for event in events(registry, name)]
    held = run("journal", "verify", "--root", registry.root, "--expect", hashes[0], "--expect", hashes[3])
    assert held.stdout.startswith("The chains hold: ")
    unknown = "0" * 63 + "1"
    absent = run("journal", "verify", "--root", registry.root, "--expect", unknown, status=1)
    assert f"NOT THERE: {unknown}" in absent.stdout


@pytest.mark.long
def test_export_and_verify_again(run: Run, stopped: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    exported = run("journal", "export", "--root", stopped).stdout
    entries = [json.loads(line) for line in exported.splitlines()]
    assert [entry["sequence"] for entry in entries] == list(range(1, 11))
    file = tmp_path / "journal.jsonl"
    file.write_text(exported)
    whole = parsed(run("journal", "verify", "--file", file, "--format", "json"))
    assert whole == parsed(run("journal", "verify", "--root", stopped, "--format", "json"))
    last = "0" * 64
    for entry in entries:
        last = hashlib.sha256(f"{last}{entry['hash']}".encode()).hexdigest()
    assert (whole["entries"], whole["last_hash"], whole["broken"]) == (10, last, None)
    part = run("journal", "export", "--root", stopped, "--since-sequence", "4").stdout
    assert part == "".join(exported.splitlines(keepends=True)[4:])
    told = run("journal", "verify", "--file", "-", given=part)
    assert told.stdout == "The chains hold: 6 entries\n"
    assert "this is a part, from entry 5 on" in told.stderr
    said = parsed(run("journal", "verify", "--file", "-", "--format", "json", given=part))
    assert (said["entries"], said["first"], said["last_hash"], said["anchor"]) == (6, 5, None, None)
    assert before["catalog.db"] == (stopped / "catalog.db").read_bytes()

    def broken(lines: list[str]) -> int:
        found = verify_lines(line.encode() for line in lines).broken
        assert found is not None
        return found.sequence

    lines = exported.splitlines()
    for field, value in (("tag", "x"), ("size", 1), ("at", "2026-01-01T00:00:00Z"), ("actor", "eve")):
        changed = json.dumps({**entries[5], field: value})
        assert broken([*lines[:5], changed, *lines[6:]]) == 6, field
    assert broken([*lines[:3], *lines[4:]]) == 4
    assert broken([lines[0], lines[0], *lines[1:]]) == 2
    extra = json.dumps({**entries[0], "note": "not under any hash"})
    for wrong in ("{", "[]", "null", '{"sequence": 1}'):
        with pytest.raises(ContentError, match="line 1 is no journal entry"):
            verify_lines([wrong.encode()])
    done = run("journal", "verify", "--file", "-", given=extra, status=5)
    assert "in standard input: line 1 is no journal entry" in done.stderr


def test_a_cut_journal_is_found_by_what_was_noted(run: Run, stopped: Path) -> None:
    lines = run("journal", "export", "--root", stopped).stdout.splitlines()
    last = json.loads(lines[-1])["hash"]
    cut = "".join(f"{line}\n" for line in lines[:-1])
    run("journal", "verify", "--file", "-", given=cut)
    assert last in run("journal", "verify", "--file", "-", "--expect", last, given=cut, status=1).stdout


def test_a_changed_database_is_found(run: Run, stopped: Path, tmp_path: Path) -> None:
    root = tmp_path / "changed"
    root.mkdir()
    (root / "catalog.db").write_bytes((stopped / "catalog.db").read_bytes())
    with sqlite3.connect(root / "catalog.db") as connection:
        connection.execute("DROP TRIGGER journal_no_update")
        connection.execute("UPDATE journal SET actor = 'somebody else' WHERE sequence = 3")
    connection.close()
    done = run("journal", "verify", "--root", root, status=1)
    assert done.stdout == ("BROKEN at entry 3: its fields do not match its hash. 2 entries before it hold.\n")


def test_wrong_usage(run: Run, stopped: Path, tmp_path: Path) -> None:
    for wrong in ([], ["--root", stopped, "--file", "-"], ["--root", stopped, "--expect", "abc"]):
        run("journal", "verify", *wrong, status=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    for verb in ("verify", "export"):
        assert "there is no registry" in run("journal", verb, "--root", empty, status=4).stderr
    assert list(empty.iterdir()) == []
