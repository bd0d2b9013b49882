"""``digestry observe``: what is added is observed, by the server or by the command itself."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.backend import open_backend
from digestry.cli import exit_codes
from digestry.coordination.protocol import Job
from digestry.model import media_types
from tests.client.liar import Reply
from tests.observer.support import observing, report, spans
from tests.registry.pull_through.support import upstream
from tests.support import run_digestry, running_registry, start_registry, wait_until


def run(root: Path, *arguments: str, status: int = 0) -> str:
    """Run ``digestry observe``, and return what it prints."""
    done = run_digestry("observe", arguments[0], "--root", root, *arguments[1:])
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stdout + done.stderr


@pytest.mark.long
def test_a_registry_that_is_not_served_is_observed_by_the_command(tmp_path: Path) -> None:
    with running_registry() as server, upstream() as up:
        root = Path(server.root)
        server.stop()
        name = f"{up.liar.host}/own/app"
        here = run(root, "add", name, "--every", "1h", "--tag", "1.*").strip()
        assert here == f"{name} is observed every 1 hour, as {up.liar.host.replace(':', '-')}/own/app"
        assert "observed already" in run(root, "add", name, status=exit_codes.USAGE)
        up.image("own/app", "1.5", layer=b"one")
        up.image("own/app", "2.0", layer=b"one")
        assert "2 answers, 0 failed" in run(root, "run")
        second = up.image("own/app", "1.5", layer=b"two")
        told = run(root, "run", status=exit_codes.FINDINGS)
        assert f"{name}:1.5 moved from" in told
        assert str(second)[:19] in told
        (row,) = json.loads(run(root, "list", "--format", "json"))
        assert (row["name"], row["tags"], row["observed"], row["by"]) == (name, ["1.*"], 1, "command")
        report = json.loads(run(root, "report", "--format", "json", status=exit_codes.FINDINGS))
        assert [one["to_digest"] for one in report["moves"]] == [str(second)]
        assert report["moves"][0]["not_before"] < report["moves"][0]["at"]
        assert "0 answers" in run(root, "run", "--due")
        up.troubles["own/app"] = lambda _: Reply(503, b"")
        failed = run(root, "run", status=exit_codes.REMOTE)
        assert "answers 503" in failed
        run(root, "remove", name)
        assert json.loads(run(root, "list", "--format", "json")) == []
        assert "digestry observe list" in run(root, "remove", name, status=exit_codes.NOT_FOUND)


@pytest.mark.long
def test_a_served_registry_observes_at_once(tmp_path: Path) -> None:
    with upstream() as up:
        server = start_registry(tmp_path / "root")
        try:
            name = f"{up.liar.host}/own/app"
            first = up.image("own/app", "1.5", layer=b"one")
            run(server.root, "add", name, "--every", "1h", "--tag", "1.5")
            assert "1 answer," in run(server.root, "run")
            up.image("own/app", "1.5", layer=b"two")
            assert "1.5 moved from" in run(server.root, "run", status=exit_codes.FINDINGS)
            remote = run_digestry("observe", "report", server.host)
            assert remote.returncode == exit_codes.FINDINGS
            assert "1.5 moved from" in remote.stdout
            assert "compare:" not in remote.stdout  # an ordinary rebuild
            up.tags["own/app", "1.5"] = str(first)
            run(server.root, "run", status=exit_codes.FINDINGS)
            remote = run_digestry("observe", "report", server.host)
            assert "! moved-back" in remote.stdout
            (line,) = [one for one in remote.stdout.splitlines() if "compare:" in one]
            program, *arguments = line.split()[1:]
            assert program == "digestry"
            compared = run_digestry(*arguments)
            assert compared.returncode == 0, compared.stderr
            assert str(first) in compared.stdout
        finally:
            server.stop()


@pytest.mark.long
def test_the_command_observes_itself_once_the_server_is_gone(tmp_path: Path) -> None:
    with upstream() as up, running_registry() as server:
        root = Path(server.root)
        server.stop()
        name = f"{up.liar.host}/own/app"
        run(root, "add", name, "--every", "1h", "--tag", "1.5")
        up.image("own/app", "1.5", layer=b"one")
        with ThreadPoolExecutor(1) as threads:
            with open_backend(root).coordination.only_one(Job.OBSERVATION):
                waiting = threads.submit(run, root, "run")
                time.sleep(2)  # as long as the lock of one that was killed lasts; nothing is waited for
                assert not waiting.done()
            assert "1 answer, 0 failed" in waiting.result(60)


@pytest.mark.long
def test_names_that_are_no_repository(tmp_path: Path) -> None:
    with running_registry() as server:
        root = Path(server.root)
        tagged = run(root, "add", "alpine:3.20", status=exit_codes.USAGE)
        assert "tags are given by their patterns" in tagged
        assert "names no repository" in run(root, "add", "a//b", status=exit_codes.USAGE)
        assert "digestry observe add" in run(root, "run", "x/y", status=exit_codes.NOT_FOUND)


@pytest.mark.long
def test_a_local_name_has_one_purpose(tmp_path: Path) -> None:
    with running_registry() as server, upstream() as up:
        root, name = Path(server.root), f"{up.liar.host}/own/app"
        here = name.replace(":", "-")
        pushed = server.push_image(here, "mine")
        refused = run(root, "add", name, status=exit_codes.USAGE)
        assert f"repository {here} here has tags that were pushed to it, such as mine" in refused
        assert "observe-registry" in refused
        assert server.request("DELETE", f"/v2/{here}/manifests/mine").status == 202
        up.image("own/app", "1.5", layer=b"one")
        run(root, "add", name, "--every", "1h", "--tag", "1.5")
        assert f"records {name} already" in run(root, "add", here, status=exit_codes.USAGE)
        run(root, "run")
        raw = server.request("GET", f"/v2/{here}/manifests/{pushed}").body
        put = server.request(
            "PUT", f"/v2/{here}/manifests/1.5", raw, {"Content-Type": media_types.OCI_MANIFEST}
        )
        assert (put.status, put.json()["errors"][0]["code"]) == (405, "UNSUPPORTED")
        run(root, "remove", name)
        wait_until(
            lambda: (
                server.request(
                    "PUT", f"/v2/{here}/manifests/2", raw, {"Content-Type": media_types.OCI_MANIFEST}
                ).status
                == 201
            ),
            what="the repository is this registry's own again",
        )


@pytest.mark.long
def test_what_the_configuration_names_and_clients_had_pushed_is_not_observed(tmp_path: Path) -> None:
    with upstream() as up:
        server = start_registry(tmp_path / "root")
        try:
            pushed = server.push_image("up.test/own/app", "1.5")
        finally:
            server.stop()
        up.image("own/app", "1.5", layer=b"one")
        with observing(tmp_path, up.url) as one:
            wait_until(lambda: "is not observed" in one.server.log.read_text(), what="the log says so")
            (gap,) = report(one)["gaps"]
            assert "tags that were pushed to it, such as 1.5" in gap["reason"]
            assert one.server.request("GET", f"/v2/{one.name}/manifests/1.5").headers[
                "docker-content-digest"
            ] == str(pushed)
            assert one.server.request("DELETE", f"/v2/{one.name}/manifests/1.5").status == 202
            wait_until(lambda: bool(spans(one, "1.5")), what="it is observed once the tag is gone")
