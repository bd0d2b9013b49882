"""``digestry migrate-storage``, as people and programs call it, and killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import delete, insert

from digestry.catalog import schema
from digestry.catalog.relocation import Relocation, Stage
from digestry.errors import Conflict, StorageBusy
from digestry.model.digest import Digest
from tests.registry.backup.support import push
from tests.registry.migration.support import MakePlace, Place, content, everything, migrate, prepare, root_of
from tests.support import PATIENCE, run_digestry, start_digestry, start_registry, wait_until

NODES = [pytest.param(kind, marks=pytest.mark.long) for kind in ("both", "back")]
"""To a node's stores, and from there: as killing goes on until nothing is left to do, it takes a while."""


def call(old: Place, new: Place, *options: str) -> list[str | Path]:
    return ["migrate-storage", "--from", old.file, "--to", new.file, *options]


@pytest.mark.long
def test_what_it_says(old: Place, new_place: MakePlace) -> None:
    new = new_place("disk")
    first = run_digestry(*call(old, new, "--copy-only"))
    assert (first.returncode, first.stderr) == (0, "")
    assert "Copied: 12 blobs" in first.stdout
    assert "Not moved yet" in first.stdout
    done = run_digestry(*call(old, new))
    assert done.returncode == 0
    assert "Copied: 0 blobs (0B); there already: 12" in done.stdout
    assert "Journal: 4 entries, every chain proved" in done.stdout
    assert f"digestry serve --config {new.file}" in done.stdout
    verified = run_digestry("journal", "verify", "--root", root_of(new))
    assert verified.returncode == 0


@pytest.mark.long
def test_json(old: Place, new_place: MakePlace) -> None:
    done = run_digestry(*call(old, new_place("disk"), "--format", "json"))
    found = json.loads(done.stdout)
    last_hash = old.backend.catalog_store.verify_journal().last_hash
    assert found["journal"] == {"entries": 4, "last_hash": last_hash, "broken": None}
    assert (found["moved"], found["copied"], found["present"], found["missing"]) == (True, 12, 0, [])
    assert found["rows"]["tags"] == 3


@pytest.mark.long
def test_exit_codes(old: Place, new_place: MakePlace) -> None:
    new = new_place("disk")
    without = run_digestry("migrate-storage", "--from", old.file)
    assert (without.returncode, "--to is required" in without.stderr) == (2, True)
    layer = Digest.of(b"good")
    file = old.backend.blobs.local_path(layer)
    assert file is not None
    file.unlink()
    refused = run_digestry(*call(old, new))
    assert refused.returncode == 5
    assert f"MISSING {layer}" in refused.stderr
    assert "held by golftrack:1.5" in refused.stderr
    left_out = run_digestry(*call(old, new, "--skip-damaged"))
    assert left_out.returncode == 1
    assert f"MISSING {layer}" in left_out.stderr
    taken = run_digestry(*call(old, new_place("disk")))
    assert (taken.returncode, "has moved, to" in taken.stderr) == (2, True)
    reopened = run_digestry("migrate-storage", "--from", old.file, "--reopen")
    assert reopened.returncode == 0
    push(root_of(old), "golftrack", "1.6", b"later")


@pytest.mark.long
def test_the_environment_names_no_stores(old: Place, new_place: MakePlace) -> None:
    environment = {**os.environ, "DIGESTRY_BLOBS": "s3://somebody/elses", "DIGESTRY_DATABASE": ""}
    assert run_digestry(*call(old, new_place("disk")), env=environment).returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", NODES[0]])
def test_killed_while_it_copies(old: Place, new_place: MakePlace, kind: str) -> None:
    new = new_place(kind)
    process = start_digestry(*call(old, new, "--rate", "1 MiB"), env=dict(os.environ))
    try:
        wait_until(lambda: _stored(new), what="some content is there")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=PATIENCE)
    there = _stored(new)
    assert 0 < there < len(content(old.backend))
    with pytest.raises(Conflict, match="is not complete"):
        prepare(new)
    push(root_of(old), "golftrack", "1.6", b"later")  # it is not frozen yet
    done = run_digestry(*call(old, new, "--format", "json"), env=dict(os.environ))
    found = json.loads(done.stdout)
    assert (found["moved"], found["present"], found["copied"]) == (True, there, 15 - there)
    assert everything(new.backend) == everything(old.backend)
    assert content(new.backend) == content(old.backend)


def _stored(place: Place) -> int:
    if place.backend.catalog_store.is_empty():
        return 0
    return sum(1 for _ in place.backend.blobs.digests())


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", *NODES])
def test_killed_at_any_moment(old: Place, new_place: MakePlace, kind: str) -> None:
    new = new_place("disk" if kind == "back" else kind)
    if kind == "back":
        node = new_place("both")
        migrate(old, node)
        old = node.read_only()
    before, bytes_before = everything(old.backend), content(old.backend)
    for kills in count(1):
        process = start_digestry(*call(old, new), env=dict(os.environ))
        time.sleep(0.05 * kills)
        process.send_signal(signal.SIGKILL)
        if process.wait(timeout=PATIENCE) == 0:
            break
        if new.backend.catalog_store.is_empty():
            continue
        relocation = _relocation(new)
        if relocation is None and not _has_rows(new):
            continue  # its tables were just made
        if relocation is not None:
            with pytest.raises(Conflict, match="is not complete"):
                prepare(new)
        else:
            assert everything(new.backend) == before
    assert everything(new.backend) == before
    assert content(new.backend) == bytes_before
    assert new.backend.catalog_store.verify_journal().broken is None
    assert _relocation(old) == Relocation(Stage.LEFT, new.stores.name, _identity(new))
    prepare(new)


def _identity(place: Place) -> str:
    identity = place.backend.catalog_store.identity()
    assert identity is not None
    return identity.id


def _relocation(place: Place) -> object:
    catalog = place.backend.open_catalog()
    try:
        return catalog.relocation.get()
    finally:
        catalog.close()


def _has_rows(place: Place) -> bool:
    return bool(everything(place.backend)["journal"])


@pytest.mark.long
def test_a_server_that_was_forgotten_takes_no_pushes(old: Place, new_place: MakePlace) -> None:
    new = new_place("disk")
    server = start_registry(root_of(old))
    try:
        assert server.push_image("golftrack", "1.6", b"later").algorithm == "sha256"
        assert run_digestry(*call(old, new, "--copy-only")).returncode == 0
        assert server.push_image("golftrack", "1.7", b"later still").algorithm == "sha256"
        refused = run_digestry(*call(old, new))
        assert (refused.returncode, "read-only = true" in refused.stderr) == (2, True)
        # The file says so now, and the server was not started again.
        assert run_digestry(*call(old.read_only(), new)).returncode == 0
        blob = Digest.of(b"after")
        response = server.request("POST", f"/v2/golftrack/blobs/uploads/?digest={blob}", body=b"after")
        assert response.status == 503
        assert server.request("GET", "/v2/golftrack/manifests/1.7").status == 200
    finally:
        server.stop()
    moved = start_registry(root_of(new))
    try:
        assert moved.request("GET", "/v2/golftrack/manifests/1.7").status == 200
        assert moved.request("GET", f"/v2/golftrack/blobs/{blob}").status == 404
    finally:
        moved.stop()


@pytest.mark.long
def test_a_served_registry_becomes_a_node_without_a_root(old: Place, new_place: MakePlace) -> None:
    new = new_place("both")
    server = start_registry(root_of(old))
    try:
        assert run_digestry(*call(old, new, "--copy-only"), env=dict(os.environ)).returncode == 0
        digest = server.push_image("team/app", "1", b"later")
    finally:
        server.stop()
    done = run_digestry(*call(old, new), env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    line: list[str | Path] = ["serve", "--config", new.file, "--listen", "127.0.0.1:0"]
    node = start_digestry(*line, env=dict(os.environ), stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert node.stdout is not None
        url = node.stdout.readline().decode().strip()
        with urllib.request.urlopen(f"{url}/v2/team/app/manifests/1", timeout=PATIENCE) as answer:  # noqa: S310
            assert Digest.of(answer.read()) == digest
        blob = f"{url}/v2/golftrack/blobs/{Digest.of(b'good')}"
        with urllib.request.urlopen(blob, timeout=PATIENCE) as answer:  # noqa: S310
            assert answer.read() == b"good"
    finally:
        node.send_signal(signal.SIGTERM)
        assert node.wait(timeout=PATIENCE) == 0
        if node.stdout is not None:
            node.stdout.close()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", NODES[0]])
@pytest.mark.parametrize("taken_back", [False, True])
def test_killed_in_the_last_step(old: Place, new_place: MakePlace, kind: str, *, taken_back: bool) -> None:
    new = new_place(kind)
    migrate(old, new, copy_only=True)
    database = new.backend.catalog_store.open()
    try:
        with database.write() as connection:  # the rows wait for this
            connection.execute(insert(schema.repositories), {"name": "in/the/way", "created_at": 1})
            process = start_digestry(*call(old, new), env=dict(os.environ))
            wait_until(lambda: _relocation(old), what="the old catalog is frozen")
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=PATIENCE) != 0
            connection.execute(delete(schema.usage))
            connection.execute(delete(schema.repositories))
    finally:
        database.close()
    with pytest.raises(StorageBusy, match="takes no changes here"):
        push(root_of(old), "golftrack", "1.6", b"later")
    for place, why in ((old, "is being moved to"), (new, "is not complete")):
        with pytest.raises(Conflict, match=why):
            prepare(place)
    if taken_back:
        assert run_digestry("migrate-storage", "--from", old.file, "--reopen").returncode == 0
        push(root_of(old), "golftrack", "1.6", b"later")
        prepare(old)
    done = run_digestry(*call(old, new), env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    assert everything(new.backend) == everything(old.backend)
    assert content(new.backend).items() <= content(old.backend).items()  # the refused push left a blob
    prepare(new)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["disk", NODES[0]])
def test_stopped_in_the_last_step(
    old: Place, new_place: MakePlace, kind: str, number: signal.Signals
) -> None:
    """The old registry takes pushes again at once."""
    new = new_place(kind)
    migrate(old, new, copy_only=True)
    database = new.backend.catalog_store.open()
    try:
        with database.write() as connection:  # the rows wait for this
            connection.execute(insert(schema.repositories), {"name": "in/the/way", "created_at": 1})
            process = start_digestry(*call(old, new), env=dict(os.environ), stderr=subprocess.PIPE)
            wait_until(lambda: _relocation(old), what="the old catalog is frozen")
            process.send_signal(number)
            assert process.wait(timeout=PATIENCE) == 130
            assert process.stderr is not None
            assert b"interrupted" in process.stderr.read()
            process.stderr.close()
            connection.execute(delete(schema.usage))
            connection.execute(delete(schema.repositories))
    finally:
        database.close()
    assert _relocation(old) is None
    prepare(old)
    push(root_of(old), "golftrack", "1.6", b"later")
    with pytest.raises(Conflict, match="is not complete"):
        prepare(new)
    done = run_digestry(*call(old, new), env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    assert everything(new.backend) == everything(old.backend)
    assert content(new.backend) == content(old.backend)
