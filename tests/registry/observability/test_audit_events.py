"""Every write has its line: who did what to what, from where, with what result; and none has two."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from digestry.catalog.removals import Removed, Stayed
from digestry.cli.main import digestry as command
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.observability.audit_events import RemovalEvents, operator
from digestry.registry.observability.audit_log import AuditLog
from digestry.registry.observability_config import LogConfig
from digestry.registry.routes import ROUTES
from tests.registry.access.support import RULES, As, guarded, of
from tests.registry.observability.support import audited, configured, lines
from tests.registry.pull_through.support import mirroring, upstream
from tests.registry.support import Upload
from tests.stores import blob_file, needs_disk
from tests.support import RegistryServer, run_digestry, wait_until

PAGE = Path(__file__).parents[3] / "docs" / "observability.md"
LIMITS = """
[[immutability]]
repository = "team/**"
tag = "v*"
mode = "immutable"

[[quota]]
repository = "small/*"
bytes = 100
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded(RULES + LIMITS) as found:
        yield found


def done(who: As, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """What a request was answered, and the lines that it has."""
    name = uuid.uuid4().hex
    answer = who.request(method, path, body, {"X-Request-Id": name, "User-Agent": "tester/1", **headers})
    assert answer.headers["x-request-id"] == name
    return answer.status, [entry for entry in audited(who.server) if entry.get("request_id") == name]


def image(who: As, name: str, content: bytes) -> bytes:
    """A manifest whose blobs are there."""
    for blob in (b"{}", content):
        path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(blob)}"
        assert who.request("POST", path, blob).status == 201
    layers = [{"mediaType": media_types.OCI_LAYER, "digest": str(Digest.of(content)), "size": len(content)}]
    config = {"mediaType": media_types.OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps(document).encode()


def begun(who: As, name: str) -> Upload:
    answer = who.request("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202
    return Upload(who.server, answer.headers["location"])


@pytest.mark.long
def test_every_write_of_a_client(server: RegistryServer) -> None:
    alice = of(server, "alice")
    first, second = image(alice, "team/all", b"first"), image(alice, "team/all", b"second")
    one, two, blob = str(Digest.of(first)), str(Digest.of(second)), str(Digest.of(b"blob"))
    upload = begun(alice, "team/all")
    cancelled = begun(alice, "team/all")
    kind = {"Content-Type": media_types.OCI_MANIFEST}
    base = "/v2/team/all"
    deleted = {"action": "delete-tag", "tag": "1", "from": one, "to": None}
    sighting = json.dumps({"sightings": []}).encode()
    table: list[tuple[str, str, bytes | None, int, list[dict[str, Any]]]] = [
        ("PATCH", upload.path, b"bl", 202, []),
        ("PATCH", upload.path + "?more", b"ob", 202, []),
        (
            "PUT",
            f"{upload.path}?digest={blob}",
            None,
            201,
            [{"action": "push-blob", "digest": blob, "size": 4}],
        ),
        ("DELETE", cancelled.path, None, 204, [{"action": "cancel-upload", "upload": cancelled.id}]),
        (
            "POST",
            f"/v2/team/other/blobs/uploads/?mount={blob}&from=team/all",
            None,
            201,
            [{"action": "mount-blob", "digest": blob, "source": "team/all", "repository": "team/other"}],
        ),
        (
            "PUT",
            f"{base}/manifests/1",
            first,
            201,
            [
                {"action": "push-manifest", "digest": one, "tags": ["1"], "size": len(first)},
                {"action": "create-tag", "tag": "1", "from": None, "to": one},
            ],
        ),
        ("PUT", f"{base}/manifests/1", first, 201, [{"action": "push-manifest", "digest": one}]),
        (
            "PUT",
            f"{base}/manifests/1",
            second,
            201,
            [{"action": "push-manifest"}, {"action": "move-tag", "tag": "1", "from": one, "to": two}],
        ),
        (
            "POST",
            f"{base}/_digestry/restore/1?to={one}",
            None,
            200,
            [{"action": "restore-tag", "tag": "1"}, {"action": "move-tag", "from": two, "to": one}],
        ),
        ("POST", "/v2/_digestry/sightings", sighting, 200, [{"action": "note-sightings", "noted": 0}]),
        (
            "DELETE",
            f"{base}/manifests/{one}",
            None,
            202,
            [{"action": "delete-manifest", "digest": one}, deleted],
        ),
        ("PUT", f"{base}/manifests/9", second, 201, [{"action": "push-manifest"}, {"action": "create-tag"}]),
        ("DELETE", f"{base}/manifests/9", None, 202, [{"action": "delete-tag", "tag": "9", "from": two}]),
        ("DELETE", f"{base}/blobs/{blob}", None, 202, [{"action": "delete-blob", "digest": blob}]),
    ]
    for method, path, body, status, expected in table:
        found = done(alice, method, path, body, **(kind if "/manifests/" in path else {}))
        assert found[0] == status, (method, path, found)
        assert len(found[1]) == len(expected), (method, path, found)
        for entry, fields in zip(found[1], expected, strict=True):
            assert fields.items() <= entry.items(), (method, path)
            known = (entry["user"], entry["address"], entry["client"], entry["status"])
            assert known == ("alice", "127.0.0.1", "tester/1", status)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["time"])


def test_every_write_that_is_refused(server: RegistryServer) -> None:
    alice, bob, nobody = of(server, "alice"), of(server, "bob"), As(server, {})
    held = image(alice, "team/held", b"held")
    other = image(alice, "team/held", b"other")
    digest = str(Digest.of(held))
    kind = {"Content-Type": media_types.OCI_MANIFEST}
    assert alice.request("PUT", "/v2/team/held/manifests/v1", held, kind).status == 201
    upload = begun(alice, "team/held")
    base = "/v2/team/held"
    table: list[tuple[As, str, str, bytes | None, int, dict[str, Any]]] = [
        (alice, "PUT", f"{base}/manifests/v1", other, 409, {"action": "push-manifest", "tags": ["v1"]}),
        (alice, "DELETE", f"{base}/manifests/v1", None, 409, {"action": "delete-tag", "tag": "v1"}),
        (alice, "DELETE", f"{base}/manifests/no", None, 404, {"action": "delete-tag", "tag": "no"}),
        (bob, "DELETE", f"{base}/manifests/v1", None, 403, {"action": "delete-tag", "tag": "v1"}),
        (
            bob,
            "DELETE",
            f"{base}/manifests/{digest}",
            None,
            403,
            {"action": "delete-manifest", "digest": digest},
        ),
        (bob, "PUT", f"{base}/manifests/v2", held, 403, {"action": "push-manifest", "tags": ["v2"]}),
        (
            bob,
            "POST",
            f"{base}/_digestry/restore/v1?to={digest}",
            None,
            403,
            {"action": "restore-tag", "tag": "v1"},
        ),
        (bob, "DELETE", f"{base}/blobs/{digest}", None, 403, {"action": "delete-blob", "digest": digest}),
        (bob, "POST", f"{base}/blobs/uploads/", None, 403, {"action": "begin-upload"}),
        (bob, "PATCH", upload.path, b"x", 403, {"action": "continue-upload", "upload": upload.id}),
        (
            bob,
            "PUT",
            f"{upload.path}?digest={digest}",
            b"x",
            403,
            {"action": "push-blob", "upload": upload.id},
        ),
        (bob, "DELETE", upload.path, None, 403, {"action": "cancel-upload", "upload": upload.id}),
        (nobody, "PUT", f"{base}/manifests/v2", held, 401, {"action": "push-manifest", "tags": ["v2"]}),
        (nobody, "POST", "/v2/_digestry/sightings", b"{}", 401, {"action": "note-sightings"}),
        (
            alice,
            "PUT",
            f"{upload.path}?digest={digest}",
            b"x",
            400,
            {"action": "push-blob", "digest": digest},
        ),
        (
            of(server, "carol"),
            "POST",
            "/v2/small/x/blobs/uploads/?digest=" + str(Digest.of(bytes(101))),
            bytes(101),
            403,
            {"action": "push-blob", "digest": str(Digest.of(bytes(101)))},
        ),
    ]
    for who, method, path, body, status, fields in table:
        found = done(who, method, path, body, **(kind if "/manifests/" in path else {}))
        assert found[0] == status, (method, path, found)
        (entry,) = found[1]
        assert fields.items() <= entry.items(), (method, path)
        assert entry["status"] == status
        assert entry["path"] == path.partition("?")[0]
        assert entry["error"]
        assert "sequence" not in entry


def named() -> set[str]:
    """The actions that the page names."""
    table = PAGE.read_text(encoding="utf-8").partition("| action | |")[2].partition("\n\n")[0]
    return {
        action
        for row in table.splitlines()
        for action in re.findall(r"`([a-z]+-[a-z]+)`", row.partition(" | ")[0])
    }


def test_a_method_that_nobody_knows_is_not_an_action_of_its_own(server: RegistryServer) -> None:
    _, (entry,) = done(of(server, "carol"), "X" * 5000, "/v2/names/x/manifests/1")
    assert (entry["action"], entry["status"]) == ("other-manifest", 405)


def test_no_write_has_a_name_that_the_page_does_not_know(server: RegistryServer) -> None:
    carol = of(server, "carol")  # may do everything
    digest = str(Digest.of(b"none"))
    values = {"<name>": "names/x", "<digest>": digest, "<id>": str(uuid.uuid4())}
    paths = [re.sub("<[a-z]+>", lambda found: values.get(found[0], "x"), route.path) for route in ROUTES]
    paths += [f"/v2/names/x/{word}/x" for word in ("blobs", "uploads", "tags", "tag-history")]
    paths += [
        f"/v2/names/x/_digestry/{what}/{digest}" for what in ("advisories", "journal", "resolve", "tags")
    ]
    for path in paths:
        for method in ("POST", "PUT", "PATCH", "DELETE", "BREW"):
            status, found = done(carol, method, path, b"{}")
            assert len(found) <= 1, (method, path, found)
            for entry in found:
                assert entry["action"] in named() or status >= 400, (method, path, entry)
                assert len(entry["action"]) < 30


# -- what nobody asked for over HTTP ------------------------------------------------------------


def call(*arguments: str | Path, **environment: str) -> Result:
    """A verb of the command line, in this process."""
    return CliRunner().invoke(command, [str(one) for one in arguments], env=environment)


def by_hand(root: Path) -> list[dict[str, Any]]:
    """The lines that commands wrote."""
    return [entry for entry in lines(root / "audit.log") if entry["user"].startswith("local:")]


def test_commands(server: RegistryServer) -> None:
    made = call("token", "create", "--root", server.root, "nightly", SUDO_USER="erin")
    assert made.exit_code == 0, made.output
    assert call("token", "create", "--root", server.root, "nightly").exit_code != 0  # there is one
    assert call("token", "revoke", "--root", server.root, "robot$nightly").exit_code == 0
    key = call("token", "rotate-key", "--root", server.root).stdout.strip()
    assert call("token", "rotate-key", "--root", server.root, "--retire").exit_code == 0
    assert call("webhook", "retry", "--root", server.root, "--name", "ci").exit_code == 0
    created, revoked, rotated, retired, retried = by_hand(server.root)
    assert created["user"] == operator("")["user"]
    assert (created["action"], created["robot"], created["client"], created["sudo_user"]) == (
        "create-token",
        "robot$nightly",
        "digestry token create",
        "erin",
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", created["ends"])
    assert (revoked["action"], revoked["robot"]) == ("revoke-token", "robot$nightly")
    assert (rotated["action"], rotated["key"]) == ("rotate-key", key)
    assert retired["retired"] is True
    assert (retried["action"], retried["webhook"]) == ("retry-webhook", "ci")
    assert made.stdout.strip().startswith("dgr_")
    assert made.stdout.strip() not in (server.root / "audit.log").read_text()


@pytest.mark.long
def test_commands_write_where_the_registry_does() -> None:
    with configured('[log]\naudit = "writes.log"\n') as server:
        assert call("token", "create", "--root", server.root, "ci").exit_code == 0
        assert [entry["action"] for entry in lines(server.root.with_name("writes.log"))] == ["create-token"]
        assert server.stop() == 0
        # Also while it is not served; and a backup has no need to speak of where that was.
        assert call("token", "revoke", "--root", server.root, "ci").exit_code == 0
        assert len(lines(server.root.with_name("writes.log"))) == 2
        assert not (server.root / "audit.log").exists()
        taken = call("backup", "--root", server.root, server.root.with_name("backup"))
        assert taken.exit_code == 0
        assert "audit-log" not in taken.output


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_root_leaves_no_file_that_the_registry_cannot_write_to() -> None:
    with configured("") as server:
        assert server.stop() == 0
        root, directory = server.root, server.root.parent
        (root / "audit.log").unlink(missing_ok=True)
        directory.chmod(0o755)
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534)
        secret = directory / "secret"
        secret.write_text("")
        secret.chmod(0o600)
        _as_root(root, secret)


def ran(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_digestry(*arguments)


def _as_root(root: Path, secret: Path) -> None:
    made = ran("token", "create", "--root", root, "one")
    assert (made.returncode, "audit" in made.stderr) == (0, False), made.stderr
    assert (root / "audit.log").stat().st_uid == 65534
    # What that user put there does not make root write elsewhere.
    (root / "audit.log").unlink()
    (root / "audit.log").symlink_to(secret)
    refused = ran("token", "create", "--root", root, "two")
    assert "audit log" in refused.stderr
    assert secret.read_text() == ""


@pytest.mark.long
def test_a_backup_that_is_restored(tmp_path: Path) -> None:
    with configured("") as server:
        needs_disk(server.root)  # for other stores there is no such backup
        server.push_image("audit/backup", "1")
        backup = tmp_path / "backup"
        assert call("backup", "--root", server.root, backup).exit_code == 0
    assert call("restore-backup", backup, "--root", tmp_path / "new").exit_code == 0
    (entry,) = by_hand(tmp_path / "new")
    assert (entry["action"], entry["source"], entry["blobs"]) == ("restore-backup", str(backup), 3)
    assert entry["journal"].startswith("sha256:") or len(entry["journal"]) == 64


@pytest.mark.long
def test_collection_by_schedule_and_by_hand() -> None:
    collected = "[collection]\nevery = 1\nlease = 1\nuntagged = 0\n"
    with configured(collected) as server:
        manifest = server.push_image("audit/gc", "1")
        assert server.request("DELETE", "/v2/audit/gc/manifests/1").status == 202

        def removed() -> set[str]:
            return {entry["action"] for entry in audited(server) if entry["user"] == "digestry"}

        wanted = {"delete-manifest", "remove-link", "remove-blob"}
        wait_until(lambda: wanted <= removed(), what="the lines of collection")
        (line,) = [
            entry
            for entry in audited(server)
            if entry["user"] == "digestry" and entry["action"] == "delete-manifest"
        ]
        assert (line["digest"], line["repository"], line["client"]) == (
            str(manifest),
            "audit/gc",
            "collection",
        )
        assert line["reason"]
    by_itself = collected.replace("every = 1", 'every = "off"')
    with configured(by_itself) as server:
        server.push_image("audit/gc", "1")
        assert server.request("DELETE", "/v2/audit/gc/manifests/1").status == 202
        assert server.stop() == 0
        configuration = server.root.with_name("registry.toml")
        assert call("gc", "--config", configuration, "--root", server.root, "--dry-run").exit_code == 0
        assert by_hand(server.root) == []

        def gone() -> bool:
            assert call("gc", "--config", configuration, "--root", server.root).exit_code == 0
            return wanted <= {entry["action"] for entry in by_hand(server.root)}

        wait_until(gone, what="the lines of collection by hand")
        assert {entry["client"] for entry in by_hand(server.root)} == {"digestry gc"}


@pytest.mark.long
def test_what_the_scrub_finds_and_what_a_reader_finds() -> None:
    with configured('[scrub]\nevery = "off"\n') as server:
        scrubbed = server.push_blob("audit/bad", b"scrubbed")
        read = server.push_blob("audit/bad", b"read")
        for digest in (scrubbed, read):
            path = blob_file(server.root, digest)
            path.chmod(0o644)
            path.write_bytes(b"x" * path.stat().st_size)
        assert server.request("GET", f"/v2/audit/bad/blobs/{read}").status == 404

        def found() -> list[tuple[str, str, str]]:
            return [
                (entry["action"], entry["digest"], entry["client"])
                for entry in audited(server)
                if "-blob" in entry["action"] and entry["action"] != "push-blob"
            ]

        wait_until(found, what="the line of what a reader found")
        assert found() == [("quarantine-blob", str(read), "read")]
        assert call("scrub", "--root", server.root).exit_code == 1
        assert found()[1:] == [("quarantine-blob", str(scrubbed), "digestry scrub")]
        whole = blob_file(server.root, scrubbed)
        whole.write_bytes(b"scrubbed")
        assert call("scrub", "--root", server.root).exit_code == 1
        assert found()[2:] == [("release-blob", str(scrubbed), "digestry scrub")]
        assert all(entry["reason"] for entry in audited(server) if entry["action"] == "quarantine-blob")


@pytest.mark.long
def test_uploads_that_nobody_goes_on_with() -> None:
    with configured("[limits]\nupload-idle-seconds = 1\n") as server:
        upload = Upload.begin(server, "audit/idle")
        upload.patch(b"abc")
        wait_until(
            lambda: any(entry["action"] == "drop-upload" for entry in audited(server)),
            what="the end of the upload",
        )
        (entry,) = [entry for entry in audited(server) if entry["action"] == "drop-upload"]
        told = (entry["user"], entry["repository"], entry["upload"], entry["size"])
        assert told == ("digestry", "audit/idle", upload.id, 3)


@pytest.mark.long
def test_what_a_mirror_brings(tmp_path: Path) -> None:
    with (
        upstream() as hub,
        mirroring(tmp_path, f'[mirror."hub.test"]\nurl = "{hub.url}"\ntag-ttl = 0\n') as server,
    ):
        first = hub.image("team/app", "1", layer=b"one")
        base = "/v2/hub.test/team/app"

        def told(start: int = 0) -> list[tuple[Any, ...]]:
            names = ("user", "action", "digest", "tag", "from", "to")
            return [tuple(entry.get(name) for name in names) for entry in audited(server)[start:]]

        user = "mirror:hub.test"
        assert server.request("GET", f"{base}/manifests/1").status == 200
        assert server.request("GET", f"{base}/blobs/{Digest.of(b'one')}").body == b"one"
        assert told() == [
            (user, "fetch-manifest", str(first), None, None, None),
            (user, "create-tag", None, "1", None, str(first)),
            (user, "fetch-blob", str(Digest.of(b"one")), None, None, None),
        ]
        assert server.request("GET", f"{base}/manifests/1").status == 200
        assert len(told()) == 3
        second = hub.image("team/app", "1", layer=b"two")
        assert server.request("HEAD", f"{base}/manifests/1").status == 200
        assert told(4) == [(user, "move-tag", None, "1", str(first), str(second))]
        del hub.tags["team/app", "1"]
        assert server.request("GET", f"{base}/manifests/1").status == 404
        assert told(5) == [(user, "delete-tag", None, "1", str(second), None)]
        sequences = [entry["sequence"] for entry in audited(server) if "sequence" in entry]
        assert sequences == sorted(set(sequences))


# -- the parts ----------------------------------------------------------------------------------


def test_what_collection_removes(tmp_path: Path) -> None:
    audit = AuditLog(LogConfig(), tmp_path)
    tell = RemovalEvents(audit)
    tell(Removed("tag", "a/b", "old", "3 newer ones are kept"))
    tell(Removed("blob", "", "sha256:00", "no repository holds it", 5))
    tell(Stayed("tag", "a/b", "kept", "it is immutable"))
    audit.close()
    first, second = lines(tmp_path / "audit.log")
    assert (first["action"], first["tag"], first["user"]) == ("delete-tag", "old", "digestry")
    assert first["reason"] == "3 newer ones are kept"
    assert (second["action"], second["digest"], second["size"]) == ("remove-blob", "sha256:00", 5)
    assert {first["client"], second["client"]} == {"collection"}


def test_the_page_names_every_action() -> None:
    source = Path(sys.modules[RemovalEvents.__module__].__file__ or "").parents[2]
    said = {
        action
        for path in (*source.rglob("*.py"),)
        for action in re.findall(
            r'"((?:push|delete|begin|continue|cancel|restore|note|create|move|remove|mount|drop|quarantine|release'
            r"|fetch|link|revoke|rotate|retry|migrate|cosign|serve|allow|resume)-(?:manifest|blob|upload|tag|sightings|link|token|key|webhook"
            r'|backup|storage|checkpoint|log|aged|young)|sign-in|sign-out)"',
            path.read_text(encoding="utf-8"),
        )
    }
    assert said == named()
