"""The journal: append-only, a chain a repository, in order of time; and a tag never moves without it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from digestry.backend import Backend
from digestry.catalog import clock as time_of
from digestry.catalog import journal_chain
from digestry.catalog.catalog import Catalog
from digestry.errors import NotFound, StorageBusy, StorageError
from digestry.model.digest import Digest
from tests.catalog.raw import Raw
from tests.catalog.support import ORIGIN, Clock, give_positions, image, pushed, put


@pytest.fixture
def story(catalog: Catalog) -> Catalog:
    """Five entries: t created, moved, moved; u created; t deleted."""
    for _ in range(3):
        pushed(catalog, "x")
    give_positions(catalog)
    pushed(catalog, "y", ["u"])
    give_positions(catalog)
    catalog.delete_tag("x", "t", origin=ORIGIN)
    assert catalog.verify_journal() is None  # while the last one has no position yet, in some databases
    give_positions(catalog)
    assert catalog.verify_journal() is None
    return catalog


@pytest.mark.parametrize(
    "statement",
    ["UPDATE journal SET actor = 'x'", "DELETE FROM journal", "DELETE FROM journal WHERE sequence = 5"],
)
def test_append_only(story: Catalog, statement: str, raw: Raw) -> None:
    assert "append-only" in raw.refused(statement)
    assert len(story.journal("x", limit=10)) == 4


def test_entries(story: Catalog) -> None:
    found = story.journal("x", limit=10)
    assert [event.event for event in found] == ["deleted", "moved", "moved", "created"]
    assert [event.sequence for event in found] == [5, 3, 2, 1]
    for newer, older in itertools.pairwise(found):
        assert newer.from_digest == older.to_digest
    assert found[0].to_digest is None
    assert found[-1].from_digest is None
    assert {(event.actor, event.address, event.client) for event in found} == {
        ("tester", "127.0.0.1", "pytest")
    }
    assert story.journal("never", limit=10) == []


FIELDS = (
    "repository, number, at, tag, event, from_digest, to_digest, media_type, size, actor, address, client,"
    " previous_hash"
)


def hashed(row: Sequence[Any]) -> str:
    """The hash of an entry's fields, as the documentation has it."""
    text = json.dumps(list(row), separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_chains_can_be_computed_elsewhere(story: Catalog, backend: Backend, raw: Raw) -> None:
    ends: dict[str, tuple[int, str]] = {}
    whole = "0" * 64
    for *row, digest in raw.query(f"SELECT {FIELDS}, hash FROM journal ORDER BY sequence"):  # noqa: S608
        number, previous = ends.get(row[0], (0, "0" * 64))
        assert (row[1], row[-1]) == (number + 1, previous)
        assert hashed(row) == digest
        ends[row[0]] = (row[1], digest)
        whole = hashlib.sha256((whole + digest).encode()).hexdigest()
    assert {name: number for name, (number, _) in ends.items()} == {"x": 4, "y": 1}
    verdict = backend.catalog_store.verify_journal()
    assert (verdict.entries, verdict.last_hash) == (5, whole)


def test_moves_elsewhere_leave_a_chain_alone(story: Catalog) -> None:
    """What a repository's next entry needs is in its own entries."""
    before = story.journal("x", limit=1)[0]
    for _ in range(3):
        pushed(story, "y")
    give_positions(story)
    pushed(story, "x")
    give_positions(story)
    after = story.journal("x", limit=1)[0]
    assert (after.number, after.previous_hash, after.sequence) == (5, before.hash, 9)


@pytest.mark.long
def test_a_chain_outlives_its_repository(story: Catalog, raw: Raw) -> None:
    raw.edit(
        "DELETE FROM tags WHERE repository_id = (SELECT id FROM repositories WHERE name = 'x')",
        "DELETE FROM manifest_references", "DELETE FROM manifests", "DELETE FROM links", "DELETE FROM tags",
        "DELETE FROM usage", "DELETE FROM repositories",
    )  # fmt: skip
    last = story.journal("x", limit=1)[0]
    pushed(story, "x")
    again = story.journal("x", limit=1)[0]
    assert (again.number, again.previous_hash, again.event) == (5, last.hash, "created")
    pushed(story, "y", ["u"])
    assert story.verify_journal() is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("number", "number + 10"),
        ("at", "at + 1"),
        ("repository", "'z'"),
        ("tag", "'z'"),
        ("event", "'created'"),
        ("from_digest", "NULL"),
        ("to_digest", "'sha256:' || substr(hash, 1, 64)"),
        ("media_type", "'z'"),
        ("size", "size + 1"),
        ("actor", "'somebody else'"),
        ("address", "''"),
        ("client", "'\x7f'"),
        ("previous_hash", "hash"),
        ("hash", "previous_hash"),
    ],
)
def test_a_changed_entry_is_found(story: Catalog, column: str, value: str, raw: Raw) -> None:
    raw.edit(f"UPDATE journal SET {column} = {value} WHERE sequence = 3")  # noqa: S608
    broken = story.verify_journal()
    assert broken is not None
    assert broken.sequence == 3


@pytest.mark.only_on("sqlite", reason="a column may have values of another type")
def test_an_entry_of_other_types(story: Catalog, raw: Raw) -> None:
    raw.edit("UPDATE journal SET size = size || '' WHERE sequence = 3")
    assert story.verify_journal() is None  # the column's affinity makes it the number that it was
    raw.edit("UPDATE journal SET client = x'00ff' WHERE sequence = 3")
    broken = story.verify_journal()
    assert broken is not None
    assert broken.sequence == 3


def test_a_change_with_its_own_hash_mended_is_found_at_the_next(story: Catalog, raw: Raw) -> None:
    row = list(raw.query(f"SELECT {FIELDS} FROM journal WHERE sequence = 2")[0])  # noqa: S608
    row[9] = "somebody else"
    raw.edit(f"UPDATE journal SET actor = 'somebody else', hash = '{hashed(row)}' WHERE sequence = 2")  # noqa: S608
    broken = story.verify_journal()
    assert broken is not None
    assert broken.sequence == 3


@pytest.mark.parametrize("sequence", [1, 2, 4])
def test_a_removed_entry_is_found(story: Catalog, sequence: int, raw: Raw) -> None:
    raw.edit(f"DELETE FROM journal WHERE sequence = {sequence}")  # noqa: S608
    broken = story.verify_journal()
    assert broken is not None
    assert broken.sequence == sequence
    assert "missing" in broken.reason


@pytest.mark.long
def test_a_removed_entry_is_found_although_the_rest_is_renumbered(story: Catalog, raw: Raw) -> None:
    raw.edit(
        "DELETE FROM journal WHERE sequence = 2",
        "UPDATE journal SET sequence = sequence - 1 WHERE sequence > 2",
    )
    broken = story.verify_journal()
    assert broken is not None
    assert broken.sequence == 2


def test_an_inserted_entry_is_found(story: Catalog, raw: Raw) -> None:
    columns = "at, repository, tag, event, from_digest, to_digest, media_type, size, actor, address, client"
    raw.edit(
        f"INSERT INTO journal (sequence, number, {columns}, previous_hash, hash)"  # noqa: S608
        " SELECT 6, 5, at + 10, repository, tag, event, from_digest, to_digest, media_type, size, actor,"
        " address, client, hash, previous_hash FROM journal WHERE sequence = 5",
    )
    broken = story.verify_journal()
    assert broken is not None
    assert broken.sequence == 6


def test_entries_that_change_places_are_found(story: Catalog, backend: Backend, raw: Raw) -> None:
    """Those of one repository by their numbers, those of two by the hash over all."""
    noted = backend.catalog_store.verify_journal().last_hash
    assert noted is not None
    assert backend.catalog_store.verify_journal((noted,)).absent == ()

    def swap(one: int, other: int) -> None:
        raw.edit(
            f"UPDATE journal SET sequence = -1 WHERE sequence = {one}",  # noqa: S608
            f"UPDATE journal SET sequence = {one} WHERE sequence = {other}",  # noqa: S608
            f"UPDATE journal SET sequence = {other} WHERE sequence = -1",  # noqa: S608
        )

    swap(2, 3)
    broken = story.verify_journal()
    assert broken is not None
    assert (broken.sequence, broken.reason) == (2, "entry 2 of x is missing: 3 comes next")
    swap(2, 3)
    swap(3, 4)
    found = backend.catalog_store.verify_journal((noted,))
    assert (found.broken, found.absent) == (None, (noted,))


@pytest.mark.long
def test_chains_that_are_too_many_to_remember_are_proved_too(
    catalog: Catalog, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        for name in ("a", "b", "c", "d"):
            pushed(catalog, name)
    give_positions(catalog)
    monkeypatch.setattr(journal_chain, "_MOST_HEADS", 2)
    assert catalog.verify_journal() is None
    for sequence in range(1, 9):
        ((number,),) = raw.query(f"SELECT number FROM journal WHERE sequence = {sequence}")  # noqa: S608
        raw.edit(f"UPDATE journal SET number = {number + 10} WHERE sequence = {sequence}")  # noqa: S608
        broken = catalog.verify_journal()
        assert broken is not None
        assert broken.sequence == sequence
        raw.edit(f"UPDATE journal SET number = {number} WHERE sequence = {sequence}")  # noqa: S608
    assert catalog.verify_journal() is None


@pytest.mark.parametrize("kept", [0, 2, 3, 4])
def test_entries_cut_off_at_the_end_are_found(story: Catalog, kept: int, raw: Raw) -> None:
    """No hash follows them; the tags that they moved tell."""
    raw.edit(f"DELETE FROM journal WHERE sequence > {kept}")  # noqa: S608
    broken = story.verify_journal()
    assert broken is not None
    assert "tag" in broken.reason


def test_a_tag_moved_behind_the_journals_back_is_found(story: Catalog, raw: Raw) -> None:
    other = pushed(story, "y", ["v"])
    raw.edit(f"UPDATE tags SET digest = '{other.digest}' WHERE name = 'u'")  # noqa: S608
    broken = story.verify_journal()
    assert broken is not None
    assert str(other.digest) in broken.reason
    raw.edit("DELETE FROM tags WHERE name = 'u'")
    broken = story.verify_journal()
    assert broken is not None
    assert "is not there" in broken.reason


def test_a_tag_made_behind_the_journals_back_is_found(story: Catalog, raw: Raw) -> None:
    raw.edit("INSERT INTO tags SELECT repository_id, 'forged', digest, moved_at FROM tags")
    broken = story.verify_journal()
    assert broken is not None
    assert "forged" in broken.reason


def test_a_damaged_entry_cannot_be_read_and_says_which(story: Catalog, raw: Raw) -> None:
    raw.edit("UPDATE journal SET to_digest = 'nonsense' WHERE sequence = 3")
    with pytest.raises(StorageError, match="entry 3"):
        story.journal("x", limit=10)


def test_times_rise_although_the_clock_does_not(catalog: Catalog, clock: Clock) -> None:
    start = clock.now
    for step in (0, 0, -3600 * 1_000_000, 0, 5):
        clock.now += step
        pushed(catalog, "x")
    moments = [time_of.from_datetime(event.at) for event in reversed(catalog.journal("x", limit=10))]
    assert moments == [start, start + 1, start + 2, start + 3, start + 4]
    clock.now = start + 10
    pushed(catalog, "x")
    assert time_of.from_datetime(catalog.journal("x", limit=1)[0].at) == start + 10
    assert catalog.tags("x")[0].moved_at == start + 10
    assert catalog.verify_journal() is None


def test_the_same_digest_again_is_no_event(catalog: Catalog) -> None:
    manifest = pushed(catalog, "x", ["a", "b"])
    assert catalog.put_manifest("x", manifest, tag_names=["a", "b", "a"], origin=ORIGIN) == []
    (event,) = catalog.put_manifest("x", manifest, tag_names=["a", "c", "c"], origin=ORIGIN)
    assert (event.tag, event.event) == ("c", "created")
    assert len(catalog.journal("x", limit=10)) == 3


def test_compare_and_set_in_many_threads(catalog: Catalog) -> None:
    """Whoever moves the tag moves it from where it is: no move is lost, none is told twice."""
    manifests = [image(catalog, "x") for _ in range(20)]
    barrier = threading.Barrier(20)

    def race(number: int) -> None:
        barrier.wait()
        for step in range(10):
            with contextlib.suppress(StorageBusy):  # of a machine that is busy with other tests, too
                put(catalog, "x", manifests[(number + step) % 20], "t")

    threads = [threading.Thread(target=race, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = list(reversed(catalog.journal("x", limit=1000)))
    assert found[0].event == "created"
    assert {event.event for event in found[1:]} == {"moved"}
    for before, after in itertools.pairwise(found):
        assert after.from_digest == before.to_digest
        assert after.to_digest != after.from_digest
        assert after.at > before.at
    assert catalog.tags("x")[0].digest == found[-1].to_digest
    assert catalog.verify_journal() is None


def test_many_catalogs_on_one_file(catalog: Catalog, backend: Backend) -> None:
    """As several worker processes have it: each its own connections, one chain."""
    others = [backend.open_catalog() for _ in range(4)]

    def race(one: Catalog, number: int) -> None:
        for _ in range(10):
            pushed(one, "x", [f"t{number % 2}"])

    threads = [threading.Thread(target=race, args=(one, number)) for number, one in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.number for event in catalog.journal("x", limit=100)] == list(range(40, 0, -1))
    assert catalog.verify_journal() is None
    for one in others:
        one.close()


def test_deleting_what_is_not_there_is_no_event(story: Catalog) -> None:
    with pytest.raises(NotFound):
        story.delete_tag("x", "t", origin=ORIGIN)
    with pytest.raises(NotFound):
        story.delete_manifest("x", Digest.of(b"never"), origin=ORIGIN)
    with pytest.raises(NotFound):
        story.delete_tag("never", "t", origin=ORIGIN)
    assert len(story.journal("x", limit=10)) == 4
