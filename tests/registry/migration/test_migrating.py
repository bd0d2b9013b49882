"""A registry that moves to other stores: all of it arrives, or nothing is served there."""

from __future__ import annotations

import pytest

from digestry.blobs.protocols import StoreMark
from digestry.catalog import schema
from digestry.errors import Conflict, InvalidConfiguration, StorageBusy
from digestry.model.digest import Digest
from digestry.registry import server as serving
from digestry.registry.garbage_collection import collect
from digestry.registry.migration import migrating
from digestry.registry.migration.migrating import ContentMissing
from tests.registry.backup.support import ORIGIN, push
from tests.registry.migration.support import MakePlace, Place, content, everything, migrate, rows

KINDS = ["disk", "s3", "postgresql"]


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
    root = old.stores.config.root
    assert root is not None
    migrate(old, new)
    with pytest.raises(StorageBusy, match="moves to other stores"):
        push(root, "golftrack", "1.6", b"later")
    with pytest.raises(Conflict, match="has moved to") as refused:
        serving.prepare(old.stores.config)
    assert str(new.stores.config.root) in refused.value.message
    with pytest.raises(Conflict, match="has moved to"):
        collect(old.stores.config, old.backend)
    serving.prepare(old.read_only().stores.config)
    serving.prepare(new.stores.config)


def test_a_move_can_be_taken_back(old: Place, new_place: MakePlace) -> None:
    root = old.stores.config.root
    assert root is not None
    with pytest.raises(Conflict, match="was not moved"):
        migrating.reopen(old.stores)
    migrate(old, new_place("disk"))
    migrating.reopen(old.stores)
    push(root, "golftrack", "1.6", b"later")
    serving.prepare(old.stores.config)
    assert migrate(old, new_place("disk")).moved


@pytest.mark.parametrize("kind", KINDS)
def test_content_goes_first_while_the_registry_takes_pushes(
    old: Place, new_place: MakePlace, kind: str
) -> None:
    new = new_place(kind)
    root = old.stores.config.root
    assert root is not None
    with old.stores.stopped():  # as a server that has the root
        first = migrate(old, new, copy_only=True)
        assert not first.moved
        assert first.copied == len(content(old.backend))
        push(root, "golftrack", "1.6", b"later")
        with pytest.raises(Conflict, match="takes pushes"):
            migrate(old, new)
    with pytest.raises(Conflict, match="is not complete"):
        serving.prepare(new.stores.config)
    assert rows(new.backend, schema.journal) == []
    second = migrate(old, new)
    assert second.moved
    assert (second.copied, second.present) == (3, first.copied)
    assert everything(new.backend) == everything(old.backend)
    serving.prepare(new.stores.config)


def test_a_registry_that_is_served_read_only_moves(old: Place, new_place: MakePlace) -> None:
    with old.stores.stopped():
        assert migrate(old.read_only(), new_place("disk")).moved


@pytest.mark.parametrize("kind", KINDS)
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
    push(old.stores.config.root, "golftrack", "1.6", b"later")  # type: ignore[arg-type]  # not frozen
    with pytest.raises(Conflict, match="is not complete"):
        serving.prepare(new.stores.config)
    result = migrate(old, new, skip_damaged=True)
    assert [one.digest for one in result.missing] == [str(layer)]
    assert new.backend.blobs.stat(layer) is None
    catalog = new.backend.open_catalog()
    try:
        assert [row.digest for row in catalog.damage.listed(limit=9)] == [layer]
    finally:
        catalog.close()


@pytest.mark.parametrize("kind", KINDS)
def test_verify_reads_what_is_there(old: Place, new_place: MakePlace, kind: str) -> None:
    new = new_place(kind)
    layer = Digest.of(b"good")
    migrate(old, new, copy_only=True)
    if kind == "disk":
        file = new.backend.blobs.local_path(layer)
        assert file is not None
        file.chmod(0o600)
        file.write_bytes(b"evil")
    result = migrate(old, new, verify=True)
    assert result.copied == (kind == "disk")
    assert new.backend.blobs.read(layer) == b"good"


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


def test_content_that_stays_is_not_copied(old: Place, new_place: MakePlace) -> None:
    first = new_place("s3")
    migrate(old, first)
    second = new_place("s3")
    root = second.stores.config.root
    second.file.write_text(first.file.read_text().replace(str(first.stores.config.root), str(root)))
    before = rows(first.backend, schema.blob_objects)
    result = migrate(first, second)
    assert (result.copied, result.moved) == (0, True)
    assert rows(second.backend, schema.blob_objects) == before
    assert content(second.backend).keys() == {Digest.parse(row[0]) for row in before}
    serving.prepare(second.stores.config)
    migrating.reopen(first.stores)
    with pytest.raises(Conflict, match="is older than the blobs"):
        serving.prepare(first.stores.config)
