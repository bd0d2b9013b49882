"""The configuration of a running server, changed by SIGHUP: in all workers, under load, or not at all."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import bcrypt
import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.config import RegistryConfig, load
from digestry.registry.reloading import RELOADED, reloaded
from tests.advisories.signed import signing_key
from tests.registry.webhook_receiver import SECRET, Receiver
from tests.support import RegistryServer, start_registry, wait_for_line, wait_until

WORKERS = 3
EVERYTHING = '["pull", "push", "move-tag", "delete"]'
PASSWORDS = {"alice": b"correct horse", "bob": b"battery staple"}


def rules(**repositories: str) -> str:
    """The text of a configuration in which each user may do everything in the repositories of a pattern."""
    return "[auth]\nhtpasswd = 'users'\n" + "".join(
        f'[[rule]]\nwho = "{user}"\nrepository = "{pattern}"\nactions = {EVERYTHING}\n'
        for user, pattern in repositories.items()
    )


def login(user: str) -> dict[str, str]:
    pair = user.encode() + b":" + PASSWORDS[user]
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def write_users(directory: Path, *names: str) -> None:
    lines = [name.encode() + b":" + bcrypt.hashpw(PASSWORDS[name], bcrypt.gensalt(4)) for name in names]
    (directory / "users").write_bytes(b"\n".join(lines) + b"\n")


class Served:
    """A server of several workers, and its file."""

    def __init__(self, directory: Path, text: str) -> None:
        self.file = directory / "registry.toml"
        self.file.write_text(text)
        arguments = ("--config", str(self.file), "--workers", str(WORKERS))
        self.server = start_registry(directory / "root", *arguments)

    def hang_up(self, text: str | None, line: str) -> None:
        """Write ``text`` into the file, ask for a reload, and wait until the log has a new ``line``."""
        if text is not None:
            self.file.write_text(text)
        before = self.server.log.read_text().count(line)
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.server.log.read_text().count(line) > before, what=line, log=self.server.log)

    def reload(self, text: str | None = None) -> None:
        self.hang_up(text, "the configuration was reloaded by all workers")

    def fail_to_reload(self, text: str | None = None) -> None:
        self.hang_up(text, "the configuration stays as it was")

    def answers(self, user: str, path: str) -> set[int]:
        """The statuses of many requests, each on a connection of its own: all workers answer some."""
        return {self.server.request("GET", path, headers=login(user)).status for _ in range(12 * WORKERS)}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    write_users(tmp_path, "alice", "bob")
    served = Served(tmp_path, rules(alice="**"))
    try:
        for name in ("a", "b"):
            path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(b'x')}"
            assert served.server.request("POST", path, b"x", login("alice")).status == 201
        yield served
    finally:
        served.server.process.send_signal(signal.SIGTERM)
        served.server.process.wait(60)


BLOB = f"blobs/{Digest.of(b'x')}"


@pytest.mark.long
def test_all_workers_switch_and_no_request_is_lost(served: Served) -> None:
    """Requests that both configurations allow are answered all the time."""
    assert served.answers("bob", f"/v2/b/{BLOB}") == {404}
    lost: list[int] = []
    stop = threading.Event()

    def pull() -> None:
        while not stop.is_set():
            status = served.server.request("GET", f"/v2/a/{BLOB}", headers=login("alice")).status
            if status != 200:
                lost.append(status)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            served.reload(rules(alice="a", bob="b"))
            assert served.answers("bob", f"/v2/b/{BLOB}") == {200}
            assert served.answers("alice", f"/v2/b/{BLOB}") == {404}
            served.reload(rules(alice="**"))
            assert served.answers("bob", f"/v2/b/{BLOB}") == {404}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert lost == []


@pytest.mark.long
@pytest.mark.parametrize(
    "text",
    ["[auth", rules(bob="**") + "[limits]\nuploads = 'many'\n", rules(bob="**").replace("'users'", "'none'")],
    ids=["no TOML", "a wrong value", "no such file"],
)
def test_a_wrong_file_changes_nothing(served: Served, text: str) -> None:
    served.fail_to_reload(text)
    assert served.answers("alice", f"/v2/b/{BLOB}") == {200}
    assert served.answers("bob", f"/v2/b/{BLOB}") == {404}
    served.reload(rules(bob="**"))
    assert served.answers("bob", f"/v2/b/{BLOB}") == {200}


@pytest.mark.long
def test_minimum_ages_begin_and_end_with_a_reload(served: Served) -> None:
    raw = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}).encode()
    path, kind = "/v2/aged/manifests/1", {"Content-Type": media_types.OCI_INDEX}
    both = rules(alice="**", bob="**")
    assert served.server.request("PUT", path, raw, {**kind, **login("alice")}).status == 201
    served.reload(both)
    assert served.answers("bob", path) == {200}
    served.reload(f"{both}[[min-age]]\nrepository = 'aged'\nage = '7d'\n")
    assert served.answers("bob", path) == {403}
    served.reload(both)
    assert served.answers("bob", path) == {200}


@pytest.mark.long
def test_wrong_users_change_nothing(served: Served) -> None:
    (served.file.parent / "others").write_text("bob:no hash\n")
    served.fail_to_reload(rules(bob="**").replace("'users'", "'others'"))
    assert served.answers("alice", f"/v2/b/{BLOB}") == {200}


@pytest.mark.long
def test_what_needs_a_restart_is_named_and_the_rest_is_reloaded(served: Served) -> None:
    served.reload("workers = 7\nread-only = true\n" + rules(bob="**") + "[log]\nrequests = 'all'\n")
    wait_for_line(served.server.log, "need a restart of the server: [log], read-only")
    assert "workers" not in served.server.log.read_text().partition("need a restart")[2].splitlines()[0]
    assert served.answers("bob", f"/v2/b/{BLOB}") == {200}
    path = f"/v2/b/blobs/uploads/?digest={Digest.of(b'y')}"
    assert served.server.request("POST", path, b"y", login("bob")).status == 201


@pytest.mark.long
def test_a_worker_that_is_started_later_has_the_new_configuration(served: Served) -> None:
    served.reload(rules(bob="**"))
    parent = served.server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    served.fail_to_reload("[auth")
    for child in children:
        if b"spawn_main" not in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
            break
    wait_until(lambda: _served(served.server), what="a new worker", log=served.server.log)
    assert served.answers("bob", f"/v2/b/{BLOB}") == {200}
    assert served.answers("alice", f"/v2/b/{BLOB}") == {404}


def _served(server: RegistryServer) -> bool:
    try:
        return server.request("GET", "/livez").status == 200
    except OSError:
        return False


@pytest.mark.long
def test_an_upload_outlives_a_reload(served: Served) -> None:
    server, headers = served.server, login("alice")
    path = server.request("POST", "/v2/a/blobs/uploads/", headers=headers).headers["location"]
    assert server.request("PATCH", path, b"x" * 1000, headers).status == 202
    served.reload(rules(alice="**") + "[limits]\nuploads = 3\n")
    assert server.request("PATCH", path, b"y" * 1000, headers).status == 202
    digest = Digest.of(b"x" * 1000 + b"y" * 1000)
    assert server.request("PUT", f"{path}?digest={digest}", headers=headers).status == 201


@pytest.mark.long
def test_limits_quotas_and_immutable_tags(served: Served) -> None:
    def push(name: str, tag: str, layer: bytes) -> int:
        path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(layer)}"
        status = served.server.request("POST", path, layer, login("alice")).status
        if status != 201:
            return status
        manifest = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],'
        manifest += b'"annotations":{"a":"%s"}}' % layer[:9]
        headers = {**login("alice"), "Content-Type": "application/vnd.oci.image.index.v1+json"}
        return served.server.request("PUT", f"/v2/{name}/manifests/{tag}", manifest, headers).status

    assert push("a", "v1", b"first") == 201
    limited = rules(alice="**") + "[limits]\nupload = 1000\n[[quota]]\nrepository = 'b'\nbytes = 100\n"
    served.reload(limited + "[[immutability]]\nrepository = 'a'\ntag = 'v*'\nmode = 'immutable'\n")
    assert {push("a", "v1", b"second") for _ in range(2 * WORKERS)} == {409}
    assert push("a", "v2", b"x" * 1001) == 413
    assert push("b", "v1", b"y" * 200) == 403
    served.reload(rules(alice="**"))
    assert push("a", "v1", b"second") == 201
    assert push("b", "v1", b"y" * 200) == 201


@pytest.mark.long
def test_webhooks_and_retention(served: Served) -> None:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    manifest = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    headers = {**login("alice"), "Content-Type": "application/vnd.oci.image.index.v1+json"}
    try:
        hook = f"[[webhook]]\nname = 'new'\nurl = '{receiver.url}'\nsecret = '{SECRET}'\n"
        served.reload(rules(alice="**") + hook + "[[retention]]\nrepository = 'a'\nkeep-newest = 3\n")
        assert served.server.request("PUT", "/v2/a/manifests/t", manifest, headers).status == 201
        wait_until(receiver.ids, what="a message", log=served.server.log)
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


def test_the_keys_of_advisories(tmp_path: Path) -> None:
    """A key that is trusted since a reload verifies what was attached before, on pages and for the fleet."""
    (tmp_path / "key.pem").write_bytes(signing_key("P-256 b").public_pem)
    table = '[advisories]\nrequire-signature = true\n[advisories.trusted-keys]\nus = "key.pem"\n'
    file = tmp_path / "registry.toml"
    file.write_text(f"root = '{tmp_path}'\n{table}")
    served = load(file, {}, environment={})
    (tmp_path / "key.pem").write_bytes(signing_key("P-256 c").public_pem)
    config, restart = reloaded(served, load(file, {}, environment={}))
    assert restart == []
    assert config.trust != served.trust
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - as workers get it


def test_a_server_without_a_file_goes_on(registry: RegistryServer) -> None:
    registry.process.send_signal(signal.SIGHUP)
    wait_for_line(registry.log, "there is no configuration file to read again")
    assert registry.request("GET", "/v2/").status == 200


def test_each_field_is_reloaded_or_named(tmp_path: Path) -> None:
    file = tmp_path / "registry.toml"
    file.write_text(f"root = '{tmp_path}'\n")
    config = load(file, {}, environment={})
    assert {field.name for field in fields(RegistryConfig)} >= RELOADED
    other = replace(config, workers=config.workers + 1, uploads=9, upload_limit=5, port=1)
    assert reloaded(config, other) == (replace(config, uploads=9, upload_limit=5), ["listen", "workers"])
    assert reloaded(config, config) == (config, [])


def test_the_size_of_uploads_stays_over_s3() -> None:
    environment = {"DIGESTRY_DATABASE": "postgresql://db/x", "DIGESTRY_BLOBS": "s3://bucket"}
    config = load(None, {}, environment=environment)
    scratch = replace(config, root=Path("/scratch"))
    kept, restart = reloaded(scratch, replace(config, upload_limit=5))
    assert (kept, restart) == (scratch, ["upload of [limits]"])
