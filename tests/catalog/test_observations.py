"""Observations are spans, a gap is not stability, and a move's entry says since when it was possible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from digestry.catalog.catalog import Catalog
from digestry.catalog.clock import SECOND, from_datetime
from digestry.catalog.observation_plan import ScheduledTag
from digestry.catalog.observations import Observation
from digestry.catalog.tag_moves import Observed
from digestry.model.digest import Digest
from tests.catalog.support import ORIGIN, Clock, image

MINUTE = 60 * SECOND
A, B = Digest.of(b"a"), Digest.of(b"b")


@dataclass
class Watcher:
    """Observes the tag ``t`` of repository ``x`` each minute."""

    catalog: Catalog
    clock: Clock

    def sees(self, digest: Digest, *, after: int = MINUTE) -> None:
        self.clock.now += after
        self.catalog.observations.seen("x", "t", digest, interval=MINUTE)

    def fails(self, reason: str = "unreachable") -> None:
        self.clock.now += MINUTE
        self.catalog.observations.failed("x", "t", reason, interval=MINUTE)

    def found(self) -> list[tuple[str, Digest | None, int]]:
        """Outcome, digest and length in minutes of each span, the oldest first."""
        spans = reversed(self.catalog.observations.spans("x", "t"))
        return [(one.outcome, one.digest, (one.last_at - one.first_at) // MINUTE) for one in spans]


@pytest.fixture
def watcher(catalog: Catalog, clock: Clock) -> Watcher:
    return Watcher(catalog, clock)


def test_the_same_in_time_is_one_span(watcher: Watcher) -> None:
    for _ in range(5):
        watcher.sees(A)
    watcher.sees(A, after=2 * MINUTE)
    assert watcher.found() == [("seen", A, 6)]
    (span,) = watcher.catalog.observations.spans("x", "t")
    assert span.count == 6
    assert span.lasts(watcher.clock.now + 2 * MINUTE)
    assert not span.lasts(watcher.clock.now + 2 * MINUTE + 1)
    assert not span.lasts(watcher.clock.now - 1)


def test_what_comes_late_begins_a_new_span(watcher: Watcher) -> None:
    watcher.sees(A)
    watcher.sees(A)
    watcher.sees(A, after=2 * MINUTE + 1)
    assert watcher.found() == [("seen", A, 1), ("seen", A, 0)]


def test_a_clock_that_was_set_back_begins_a_new_span(watcher: Watcher) -> None:
    watcher.sees(A)
    watcher.sees(A, after=-1)
    watcher.sees(A)
    assert watcher.found() == [("seen", A, 0), ("seen", A, 1)]


def test_failures_are_kept_with_their_reason(watcher: Watcher) -> None:
    watcher.sees(A)
    watcher.fails()
    watcher.fails()
    watcher.fails("rate-limited")
    watcher.sees(A)
    assert watcher.found() == [("seen", A, 0), ("failed", None, 1), ("failed", None, 0), ("seen", A, 0)]
    reasons = [one.reason for one in watcher.catalog.observations.spans("x", "t")]
    assert reasons == ["", "rate-limited", "unreachable", ""]


@pytest.mark.long
def test_moves_and_deletions_are_spans(watcher: Watcher) -> None:
    watcher.sees(A)
    watcher.sees(B)
    watcher.catalog.observations.absent("x", "t", interval=MINUTE)
    watcher.sees(A)
    assert [one[:2] for one in watcher.found()] == [("seen", A), ("seen", B), ("absent", None), ("seen", A)]


@pytest.mark.long
def test_many_are_recorded_together(catalog: Catalog, clock: Clock) -> None:
    tags = [f"t{number}" for number in range(450)]
    for _ in range(2):
        clock.now += MINUTE
        catalog.observations.record(Observation("x", tag, "seen", clock.now, MINUTE, A) for tag in tags)
    assert all(
        [one.count for one in catalog.observations.spans("x", tag)] == [2] for tag in ("t0", "t200", "t449")
    )


def test_spans_are_read_in_pages(watcher: Watcher) -> None:
    for _ in range(3):
        watcher.sees(A)
        watcher.sees(B)
    first = watcher.catalog.observations.spans("x", "t", limit=4)
    rest = watcher.catalog.observations.spans("x", "t", before=first[-1].number, limit=4)
    assert [one.digest for one in first + rest] == [B, A, B, A, B, A]


def test_a_mirror_records_what_it_checks_and_dates_its_moves(catalog: Catalog, clock: Clock) -> None:
    old, new = image(catalog, "x"), image(catalog, "x")
    mirror = catalog.pull_through
    first = mirror.put("x", old, tag="t", origin=ORIGIN)
    assert first is not None
    assert first.not_before is None
    clock.now += MINUTE
    mirror.note("x", "t", old.digest)
    unmoved = clock.now
    clock.now += MINUTE
    mirror.failed("x", "t", "unreachable")
    clock.now += MINUTE
    moved = mirror.put("x", new, tag="t", origin=ORIGIN)
    assert moved is not None
    assert moved.not_before is not None
    assert from_datetime(moved.not_before) == unmoved
    clock.now += MINUTE
    gone = mirror.gone("x", "t", origin=ORIGIN)
    assert gone is not None
    assert gone.not_before is not None
    assert from_datetime(gone.not_before) == clock.now - MINUTE
    assert [one.outcome for one in catalog.observations.spans("x", "t")] == [
        "absent",
        "seen",
        "failed",
        "seen",
    ]
    assert catalog.verify_journal() is None


def test_a_move_is_dated_from_before_it_was_first_seen(catalog: Catalog, clock: Clock) -> None:
    """Its manifest could be fetched only later."""
    old, new = image(catalog, "x"), image(catalog, "x")
    catalog.pull_through.put("x", old, tag="t", origin=ORIGIN)
    unmoved = clock.now
    for _ in range(3):
        clock.now += MINUTE
        catalog.pull_through.note("x", "t", new.digest)
    clock.now += MINUTE
    moved = catalog.pull_through.put("x", new, tag="t", origin=ORIGIN)
    assert moved is not None
    assert moved.not_before is not None
    assert from_datetime(moved.not_before) == unmoved


def test_a_new_tag_was_absent_before(catalog: Catalog, clock: Clock) -> None:
    catalog.observations.record([Observation("x", "new", "absent", clock.now, MINUTE)])
    absent = clock.now
    clock.now += MINUTE
    made = catalog.pull_through.put("x", image(catalog, "x"), tag="new", origin=ORIGIN)
    assert made is not None
    assert made.not_before is not None
    assert from_datetime(made.not_before) == absent


def test_tags_of_what_is_observed_are_not_moved_here(catalog: Catalog, clock: Clock) -> None:
    plan, pushed = catalog.observation_plan, image(catalog, "x/y")
    catalog.put_manifest("x/y", pushed, tag_names=["t"], origin=ORIGIN)
    assert plan.pushed_tag("x/y") == "t"
    plan.schedule([ScheduledTag("x", "t", MINUTE, clock.now)])
    with pytest.raises(Observed):
        catalog.put_manifest("x", image(catalog, "x"), tag_names=["t"], origin=ORIGIN)
    seen = image(catalog, "x")
    catalog.pull_through.put("x", seen, tag="t", origin=replace(ORIGIN, actor="mirror:up.test"))
    assert plan.pushed_tag("x") is None
    with pytest.raises(Observed):
        catalog.restore_tag("x", "t", seen.digest, origin=ORIGIN)
    catalog.delete_tag("x", "t", origin=ORIGIN)
    plan.unschedule("x")
    catalog.put_manifest("x", seen, tag_names=["u"], origin=ORIGIN)
    assert plan.pushed_tag("x") == "u"
