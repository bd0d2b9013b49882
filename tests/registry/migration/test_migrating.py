"""A registry that moves to other stores: all of it arrives, or nothing is served there."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import delete, insert

from digestry.backend import open_backend
from digestry.blobs.protocols import StoreMark
from digestry.catalog import object_schema, schema
from digestry.errors import Conflict, InvalidConfiguration, StorageBusy, StorageError
from digestry.model.digest import Digest
from digestry.model.fleet import ImageReport, Stopped
from digestry.registry import server as serving
from digestry.registry.config import RegistryConfig
from digestry.registry.garbage_collection import collect
from digestry.registry.migration import migrating
from digestry.registry.migration.migrating import ContentMissing
from tests.backends import open_blobs
from tests.catalog.fleet_support import OTHER, Agent
from tests.catalog.sqlite.test_older_catalog import DUMP
from tests.catalog.support import Clock
from tests.registry.backup.support import ORIGIN, back_up, push, restore
from tests.registry.migration.support import (
    MakePlace,
    Place,
    content,
    everything,
    migrate,
    prepare,
    root_of,
    rows,
)
from tests.support import PATIENCE

KINDS = [
    "disk",
    pytest.param("s3", marks=pytest.mark.long),
    pytest.param("postgresql", marks=pytest.mark.long),
    "both",
]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_all_of_it_arrives(old: Place, new_place: MakePlace, kind: str) -> None:
    new = new_place(kind)
    before, bytes_before = everything(old.backend), content(old.backend)
    proof = old.backend.catalog_store.verify_journal()
    result = migrate(old, new)
    assert result.moved
    assert result.copied == len(bytes_before) == result.rows["links"] + result.rows["manifests"]
    assert everything(new.backend) == before
    assert content(new.backend) == bytes_before
    assert new.backend.catalog_store.verify_journal((proof.last_hash,)) == proof
    keys, new_keys = old.backend.coordination.keys, new.backend.coordination.keys
    assert {key: keys.read(key) for key in keys.ids()} == {key: new_keys.read(key) for key in new_keys.ids()}
    identity = new.backend.catalog_store.identity()
    assert identity is not None
    assert identity.bound
    assert new.backend.blobs.mark() == StoreMark(identity.id, identity.generation)
    assert old.backend.catalog_store.identity().id == identity.id  # type: ignore[union-attr]


@pytest.mark.long
def test_the_fleet_goes_on_in_the_new_catalog(old: Place, new_place: MakePlace) -> None:
    """What is reported after the move gets other numbers than what was moved."""
    clock, new = Clock(), new_place("postgresql")
    catalog = old.backend.open_catalog()
    agent = Agent(catalog, clock)
    agent.send(agent.started("c1"), Stopped("docker", "early", agent.at(), "1"))
    catalog.close()
    migrate(old, new)
    agent.catalog = new.backend.open_catalog()
    other = Agent(agent.catalog, clock, OTHER, "n2")
    other.send(other.started("c2"), images={"i": ImageReport("other")})
    receipt = agent.send(agent.started("c3"), agent.started("early"), agent.stopped("c1"))
    runs = agent.catalog.fleet.runs(now=clock.now, limit=9).runs
    agent.catalog.close()
    assert (receipt.received, receipt.resynchronize) == (5, False)
    assert {run.container for run in runs} == {"c2", "c3"}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(old: Place, new_place: MakePlace, kind: str) -> None:
    before, bytes_before = everything(old.backend), content(old.backend)
    new, home = new_place(kind), new_place("disk")
    migrate(old, new)
    catalog = new.backend.open_catalog()
    catalog.delete_tag("golftrack", "1.5", origin=ORIGIN)
    catalog.close()
    there = new.backend.catalog_store.verify_journal()
    result = migrate(new.read_only(), home)
    assert result.journal == home.backend.catalog_store.verify_journal((there.last_hash,))
    assert result.journal.entries == there.entries  # a position in the registry may have come with the move
    assert content(home.backend) == bytes_before
    after = everything(home.backend)
    assert len(after["journal"]) == len(before["journal"]) + 1
    assert after["manifests"] == before["manifests"]


def test_old_registry_takes_no_pushes_and_is_not_served(old: Place, new_place: MakePlace) -> None:
    new = new_place("disk")
    root = root_of(old)
    migrate(old, new)
    with pytest.raises(StorageBusy, match="moves to other stores"):
        push(root, "golftrack", "1.6", b"later")
    with pytest.raises(Conflict, match="has moved to") as refused:
        prepare(old)
    assert str(root_of(new)) in refused.value.message
    with pytest.raises(Conflict, match="has moved to"):
        collect(old.stores.config, old.backend)
    prepare(old.read_only())
    prepare(new)


def test_a_registry_that_has_moved_can_be_backed_up(old: Place, new_place: MakePlace, tmp_path: Path) -> None:
    before = everything(old.backend)
    migrate(old, new_place("disk"))
    back_up(root_of(old), tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored")
    restored = open_backend(tmp_path / "restored")
    assert everything(restored) == before
    with pytest.raises(Conflict, match="has moved to"):
        serving.prepare(RegistryConfig(tmp_path / "restored"))


@pytest.mark.long
def test_a_move_can_be_taken_back(old: Place, new_place: MakePlace) -> None:
    root = root_of(old)
    with pytest.raises(Conflict, match="was not moved"):
        migrating.reopen(old.stores)
    migrate(old, new_place("disk"))
    migrating.reopen(old.stores)
    push(root, "golftrack", "1.6", b"later")
    prepare(old)
    assert migrate(old, new_place("disk")).moved


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", "both"])
def test_content_goes_first_while_the_registry_takes_pushes(
    old: Place, new_place: MakePlace, kind: str
) -> None:
    new = new_place(kind)
    root = root_of(old)
    with old.stores.stopped():  # as a server that has the root
        first = migrate(old, new, copy_only=True)
        assert not first.moved
        assert first.copied == len(content(old.backend))
        push(root, "golftrack", "1.6", b"later")
        with pytest.raises(Conflict, match="takes pushes"):
            migrate(old, new)
    with pytest.raises(Conflict, match="is not complete"):
        prepare(new)
    assert rows(new.backend, schema.journal) == []
    second = migrate(old, new)
    assert second.moved
    assert (second.copied, second.present) == (3, first.copied)
    assert everything(new.backend) == everything(old.backend)
    prepare(new)


def test_a_registry_that_is_served_read_only_moves(old: Place, new_place: MakePlace) -> None:
    with old.stores.stopped():
        assert migrate(old.read_only(), new_place("disk")).moved


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", "both"])
def test_damaged_content_is_named_and_left_out_only_when_told(
    old: Place, new_place: MakePlace, kind: str
) -> None:
    new = new_place(kind)
    layer = Digest.of(b"good")
    file = old.backend.blobs.local_path(layer)
    assert file is not None
    file.chmod(0o600)
    file.write_bytes(b"evil")
    with pytest.raises(ContentMissing) as refused:
        migrate(old, new)
    (missing,) = refused.value.missing
    assert (missing.digest, missing.held_by) == (str(layer), ["golftrack:1.5"])
    push(root_of(old), "golftrack", "1.6", b"later")  # it is not frozen
    with pytest.raises(Conflict, match="is not complete"):
        prepare(new)
    result = migrate(old, new, skip_damaged=True)
    assert [one.digest for one in result.missing] == [str(layer)]
    assert new.backend.blobs.stat(layer) is None
    catalog = new.backend.open_catalog()
    try:
        assert [row.digest for row in catalog.damage.listed(limit=9)] == [layer]
    finally:
        catalog.close()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", "both"])
def test_verify_reads_what_is_there(old: Place, new_place: MakePlace, kind: str) -> None:
    new = new_place(kind)
    layer = Digest.of(b"good")
    migrate(old, new, copy_only=True)
    on_disk = kind in {"disk", "postgresql"}
    if on_disk:
        file = new.backend.blobs.local_path(layer)
        assert file is not None
        file.chmod(0o600)
        file.write_bytes(b"evil")
    result = migrate(old, new, verify=True)
    assert result.copied == on_disk
    assert new.backend.blobs.read(layer) == b"good"


@pytest.mark.long
def test_stores_of_another_registry_are_refused(old: Place, new_place: MakePlace) -> None:
    new, other = new_place("disk"), new_place("disk")
    migrate(old, new)
    with pytest.raises(Conflict, match="is being moved, or has moved"):
        migrate(old, other)
    migrating.reopen(old.stores)
    with pytest.raises(Conflict, match="there is a registry in"):
        migrate(old, new)


def test_content_without_a_catalog_is_refused(old: Place, new_place: MakePlace) -> None:
    new = new_place("disk")
    new.backend.blobs.prepare()
    new.backend.blobs.put(b"somebody's")
    with pytest.raises(Conflict, match="there is content in"):
        migrate(old, new)
    assert new.backend.catalog_store.is_empty()


def test_one_catalog_is_no_move(old: Place) -> None:
    with pytest.raises(InvalidConfiguration, match="the same catalog"):
        migrate(old, old)


def test_a_finished_move_is_finished_again(old: Place, new_place: MakePlace) -> None:
    new = new_place("disk")
    first = migrate(old, new)
    again = migrate(old, new)
    assert again.moved
    assert (first.copied > 0, again.copied) == (True, 0)


@pytest.mark.long
def test_content_that_stays_is_not_copied(old: Place, new_place: MakePlace) -> None:
    first = new_place("s3")
    migrate(old, first)
    second = new_place("s3")
    second.file.write_text(first.file.read_text().replace(str(root_of(first)), str(root_of(second))))
    before = rows(first.backend, object_schema.blob_objects)
    result = migrate(first, second)
    assert (result.copied, result.moved) == (0, True)
    assert rows(second.backend, object_schema.blob_objects) == before
    assert content(second.backend).keys() == {Digest.parse(row[0]) for row in before}
    prepare(second)
    migrating.reopen(first.stores)
    with pytest.raises(Conflict, match="is older than the blobs"):
        prepare(first)


@pytest.mark.long
def test_content_that_stays_on_the_disk_is_not_copied(old: Place, new_place: MakePlace) -> None:
    new = new_place("postgresql")
    new.file.write_text(new.file.read_text().replace(str(root_of(new)), str(root_of(old))))
    before = content(old.backend)
    result = migrate(old, new)
    assert (result.copied, result.moved) == (0, True)
    assert migrate(old, new).moved  # once more
    assert content(new.backend) == before
    prepare(new)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", "both"])
def test_an_error_in_the_last_step_lets_the_old_registry_go_on(
    old: Place, new_place: MakePlace, kind: str
) -> None:
    new = new_place(kind)
    migrate(old, new, copy_only=True)
    database = new.backend.catalog_store.open()
    try:
        with database.write() as connection:
            connection.execute(insert(schema.repositories), {"name": "somebody/elses", "created_at": 1})
        with pytest.raises(StorageError, match="by somebody else"):
            migrate(old, new)
        push(root_of(old), "golftrack", "1.6", b"later")
        with database.write() as connection:
            connection.execute(delete(schema.usage))
            connection.execute(delete(schema.repositories))
    finally:
        database.close()
    assert migrate(old, new).moved
    assert everything(new.backend) == everything(old.backend)


@pytest.mark.long
def test_changes_under_way_are_waited_for(old: Place, new_place: MakePlace) -> None:
    nodes = new_place("postgresql")
    migrate(old, nodes)
    catalog, database = nodes.backend.open_catalog(), nodes.backend.catalog_store.open()
    freezing = threading.Thread(target=catalog.relocation.freeze, args=("elsewhere", "id"))
    try:
        with database.write() as connection:
            connection.execute(insert(schema.repositories), {"name": "in/time", "created_at": 1})
            freezing.start()
            freezing.join(0.3)
            assert freezing.is_alive()
        freezing.join(PATIENCE)
        assert "in/time" in [row[1] for row in rows(nodes.backend, schema.repositories)]
        with pytest.raises(StorageBusy, match="takes no changes here"):
            catalog.add_blob("too/late", Digest.of(b"late"), 4)
    finally:
        freezing.join(PATIENCE)
        catalog.close()
        database.close()


@pytest.mark.long
def test_the_chain_of_an_older_registry_moves_there_and_back(tmp_path: Path, new_place: MakePlace) -> None:
    root = tmp_path / "older"
    root.mkdir()
    with closing(sqlite3.connect(root / "catalog.db")) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    file = tmp_path / "older.toml"
    file.write_text(f'root = "{root}"\n')
    older, nodes, home = Place(file), new_place("postgresql"), new_place("disk")
    open_blobs(root).prepare()
    with pytest.raises(StorageError, match="has schema 0007"):
        migrate(older, nodes)
    catalog = older.backend.open_catalog()
    catalog.migrate()
    catalog.close()
    open_blobs(root).set_mark(StoreMark("0123456789abcdef0123456789abcdef", 0))
    push(root, "golftrack", "1.5", b"after the registry's chain")
    proof = older.backend.catalog_store.verify_journal()
    assert migrate(older, nodes, skip_damaged=True).journal == proof
    assert migrate(nodes.read_only(), home, skip_damaged=True).journal == proof
    assert home.backend.catalog_store.verify_journal((proof.last_hash,)) == proof
    assert everything(home.backend) == everything(older.backend)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", "postgresql"])
def test_a_broken_chain_stays_broken(old: Place, new_place: MakePlace, kind: str) -> None:
    new = new_place(kind)
    with closing(sqlite3.connect(root_of(old) / "catalog.db")) as connection, connection:
        (trigger,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE name = 'journal_no_update'"
        ).fetchone()
        connection.execute("DROP TRIGGER journal_no_update")
        connection.execute("UPDATE journal SET actor = 'somebody else' WHERE sequence = 2")
        connection.execute(trigger)
    result = migrate(old, new)
    assert result.journal is not None
    assert result.journal.broken == old.backend.catalog_store.verify_journal().broken
    assert result.journal.broken.sequence == 2  # type: ignore[union-attr]
