"""Positions that entries get after the commit: without a gap, in each repository's order, for good."""

from __future__ import annotations

import itertools
import json
import threading

import pytest

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.sqlite.dialect import DIALECT
from digestry.model.history import TagEvent
from tests.catalog.raw import Raw
from tests.catalog.support import ORIGIN, Clock, image, pushed, put, with_options


@pytest.fixture
def catalog(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog whose entries are written without a position, in any database."""
    monkeypatch.setattr(DIALECT, "one_writer", False)
    assert catalog.sequencing.is_needed()
    return catalog


def sequences(catalog: Catalog, name: str) -> list[int]:
    """The positions of a repository's entries, oldest first; 0 for one that has none."""
    return [event.sequence or 0 for event in reversed(catalog.journal(name, limit=1000))]


def test_one_writer_gives_the_position_at_once(backend: Backend) -> None:
    catalog = backend.open_catalog()
    catalog.migrate()
    if not catalog.sequencing.is_needed():
        pushed(catalog, "x")
        assert sequences(catalog, "x") == [1]
        assert catalog.sequencing.run() == 0
    catalog.close()


def test_entries_get_their_positions_in_the_order_of_their_times(catalog: Catalog, clock: Clock) -> None:
    for name in ("b", "a", "b", "c"):
        clock.now += 1
        pushed(catalog, name)
    assert [sequences(catalog, name) for name in "abc"] == [[0], [0, 0], [0]]
    assert catalog.sequencing.run() == 4
    assert [sequences(catalog, name) for name in "abc"] == [[2], [1, 3], [4]]
    assert catalog.sequencing.run() == 0
    clock.now -= 1000  # a clock that is behind
    pushed(catalog, "a")
    pushed(catalog, "d")
    assert catalog.sequencing.run() == 2
    assert (sequences(catalog, "a"), sequences(catalog, "d")) == ([2, 6], [5])
    assert catalog.verify_journal() is None


def test_each_batch_follows_the_one_before(catalog: Catalog) -> None:
    """Numbers in a repository rise with the positions, wherever a batch ends."""
    for number in range(10):
        pushed(catalog, f"r{number % 3}")
    given = [catalog.sequencing.run(limit=4) for _ in range(4)]
    assert given == [4, 4, 2, 0]
    found = [sequences(catalog, name) for name in ("r0", "r1", "r2")]
    assert sorted(itertools.chain(*found)) == list(range(1, 11))
    assert all(one == sorted(one) for one in found)


def test_the_position_is_all_that_changes(catalog: Catalog, raw: Raw) -> None:
    pushed(catalog, "x")
    refused = [
        "UPDATE journal SET actor = 'x'",
        "UPDATE journal SET sequence = 1, actor = 'x'",
        "UPDATE journal SET sequence = 1, number = 2",
        "UPDATE journal SET sequence = 1, hash = previous_hash",
        "UPDATE journal SET sequence = 1, from_digest = 'x'",
        "UPDATE journal SET sequence = NULL",
        "DELETE FROM journal",
    ]
    for statement in refused:
        assert "append-only" in raw.refused(statement), statement
    before = catalog.journal("x", limit=1)[0]
    assert catalog.sequencing.run() == 1
    (after,) = catalog.journal("x", limit=1)
    assert (before.hash, before.number, after.hash, after.sequence) == (after.hash, 1, before.hash, 1)
    for statement in ("UPDATE journal SET sequence = 2", "UPDATE journal SET sequence = NULL", *refused):
        assert "append-only" in raw.refused(statement), statement


@pytest.mark.long
def test_a_reader_that_polls_gets_every_entry_once(catalog: Catalog, backend: Backend) -> None:
    moves = 20
    done = threading.Event()
    seen: list[int] = []

    def write(name: str) -> None:
        for _ in range(moves):
            pushed(catalog, name)

    def sequence() -> None:
        while True:
            last = done.is_set()  # looked at first: what was written before is in the next batch
            if not catalog.sequencing.run(limit=7) and last:
                return

    def poll() -> None:
        quiet = False
        while not quiet:
            quiet = not sequencer.is_alive()
            since = seen[-1] if seen else 0
            lines = backend.catalog_store.export_journal(since=since)
            seen.extend(json.loads(line)["sequence"] for line in lines)

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    sequencer = threading.Thread(target=sequence)
    reader = threading.Thread(target=poll)
    for thread in (sequencer, reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    sequencer.join()
    reader.join()
    assert seen == list(range(1, 3 * moves + 1))
    assert catalog.verify_journal() is None


def test_two_at_a_time_give_each_position_once(catalog: Catalog) -> None:
    for number in range(30):
        pushed(catalog, f"r{number % 4}")
    given: list[int] = []

    def run() -> None:
        while count := catalog.sequencing.run(limit=3):
            given.append(count)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(given) == 30
    found = itertools.chain(*(sequences(catalog, f"r{number}") for number in range(4)))
    assert sorted(found) == list(range(1, 31))


def test_webhooks_are_told_once_there_is_a_position(catalog: Catalog, backend: Backend, clock: Clock) -> None:
    told = with_options(backend, subscriptions=(Subscription("h", ("x",)),)).open_catalog()
    pushed(told, "x")
    pushed(told, "y")
    pushed(told, "x")
    assert told.delivery_queue.due("h", clock.now, limit=10) == []
    assert told.sequencing.run(limit=2) == 2
    assert told.sequencing.run(limit=2) == 1
    assert told.sequencing.run() == 0
    due = told.delivery_queue.due("h", clock.now, limit=10)
    events = [event for _, event in due if isinstance(event, TagEvent)]
    assert [delivery.sequence for delivery, _ in due] == [event.sequence for event in events]
    assert [event.number for event in events] == [1, 2]
    told.close()


def test_entries_without_a_position_are_read_and_proved(catalog: Catalog, backend: Backend, raw: Raw) -> None:
    first = pushed(catalog, "x")
    catalog.sequencing.run()
    pushed(catalog, "x")
    pushed(catalog, "y")
    last = catalog.journal("x", limit=1)[0]
    assert (last.sequence, last.number) == (None, 2)
    assert [event.number for event in catalog.journal("x", before_sequence=2, limit=10)] == [1]
    (span,) = catalog.tag_history.tags_for_digest("x", first.digest, limit=10)
    assert (span.sequence, span.still) == (1, False)
    verdict = backend.catalog_store.verify_journal((last.hash,))
    assert (verdict.entries, verdict.broken, verdict.absent) == (3, None, ())
    assert len(list(backend.catalog_store.export_journal())) == 1
    raw.edit("UPDATE journal SET actor = 'somebody' WHERE repository = 'x' AND number = 2")
    broken = catalog.verify_journal()
    assert broken is not None
    assert broken.reason.startswith("entry 2 of x, without a position yet: its fields do not match")
    raw.edit("DELETE FROM journal WHERE sequence = 1")
    broken = catalog.verify_journal()
    assert broken is not None
    assert "entry 1 of x is missing" in broken.reason


def test_a_move_that_may_have_happened_wakes_the_sequencer(catalog: Catalog) -> None:
    wake = catalog.sequencing.wake
    moved = pushed(catalog, "x")
    for change in (
        lambda: put(catalog, "x", image(catalog, "x"), "t"),
        lambda: catalog.restore_tag("x", "t", moved.digest, origin=ORIGIN),
        lambda: catalog.delete_tag("x", "t", origin=ORIGIN),
        lambda: catalog.delete_manifest("x", moved.digest, origin=ORIGIN),
        lambda: catalog.pull_through.put("x", moved, tag="t", origin=ORIGIN),
        lambda: catalog.pull_through.gone("x", "t", origin=ORIGIN),
    ):
        wake.clear()
        change()
        assert wake.is_set()
