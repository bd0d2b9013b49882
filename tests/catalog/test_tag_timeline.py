"""The moves of one tag: pages of them, how long each stood, and what a picture of a period shows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from digestry.catalog.browsing import TagTimeline
from digestry.catalog.catalog import Catalog
from digestry.catalog.clock import from_datetime
from digestry.catalog.running_images import RunningImage
from digestry.catalog.tag_timeline import MOST_MARKS
from digestry.model.fleet import ClaimReport, ImageReport
from digestry.model.manifest import Manifest
from digestry.model.sightings import SightingReport
from tests.catalog.fleet_support import Agent
from tests.catalog.support import ORIGIN, Clock, image, index, pushed, put

DAY = 86_400_000_000


def moved(
    catalog: Catalog, clock: Clock, manifests: Sequence[Manifest | None], *, step: int = DAY
) -> list[int]:
    """Move the tag ``t`` of ``x`` to each of ``manifests``; None deletes it. Return the times."""
    times = []
    for manifest in manifests:
        clock.now += step
        times.append(clock.now)
        if manifest is None:
            catalog.delete_tag("x", "t", origin=ORIGIN)
        else:
            put(catalog, "x", manifest, "t")
    return times


def timeline(
    catalog: Catalog, clock: Clock, *, before: int | None = None, limit: int = 50, last: int | None = None
) -> TagTimeline:
    found = catalog.browsing.timeline(
        "x", "t", before=before, limit=limit, last=last, now=clock.now, running=True
    )
    assert found is not None
    return found


def test_each_move_says_how_long_it_stood(catalog: Catalog, clock: Clock) -> None:
    a, b = image(catalog, "x"), image(catalog, "x")
    times = moved(catalog, clock, [a, b, None, a])
    pushed(catalog, "x", ["other"])
    pushed(catalog, "y", ["t"])
    clock.now += DAY
    found = timeline(catalog, clock)
    assert (found.totals.moves, found.totals.first_at, found.totals.last_at) == (4, times[0], times[3])
    assert [(move.event.event, move.until) for move in found.moves] == [
        ("created", None), ("deleted", times[3]), ("moved", times[2]), ("created", times[1]),
    ]  # fmt: skip
    assert found.moves[2].event.from_digest == a.digest
    assert not found.more
    assert [(mark.at, mark.digest) for mark in found.period.marks] == [
        (times[0], str(a.digest)), (times[1], str(b.digest)), (times[2], None), (times[3], str(a.digest)),
    ]  # fmt: skip
    assert found.period.exact
    assert found.period.until == clock.now


@pytest.mark.long
def test_pages_follow_each_other(catalog: Catalog, clock: Clock) -> None:
    a, b = image(catalog, "x"), image(catalog, "x")
    times = moved(catalog, clock, [a, b] * 4)
    seen: list[tuple[int, int | None]] = []
    before = None
    while True:
        page = timeline(catalog, clock, before=before, limit=3)
        moves = [(times.index(from_datetime(move.event.at)), move.until) for move in page.moves]
        seen += moves
        if not page.more:
            break
        before = times[moves[-1][0]]
    assert seen == [(n, times[n + 1] if n < 7 else None) for n in range(7, -1, -1)]


def test_what_is_still_present(catalog: Catalog, clock: Clock) -> None:
    a, b = image(catalog, "x"), image(catalog, "x")
    moved(catalog, clock, [a, b])
    catalog.delete_manifest("x", a.digest, origin=ORIGIN)
    assert timeline(catalog, clock).present == {str(b.digest)}
    moved(catalog, clock, [None])
    assert timeline(catalog, clock).present == {str(b.digest)}


def test_what_of_it_still_runs(catalog: Catalog, clock: Clock) -> None:
    """Of an index all that it lists counts, by whatever digest a container was reported."""
    a, b, c = image(catalog, "x"), image(catalog, "x"), image(catalog, "x")
    for child in (a, b, c):
        put(catalog, "x", child)
    both = index(a, b)
    moved(catalog, clock, [both, c, a])
    assert a.config is not None
    assert b.config is not None
    reports = [
        SightingReport("x", both.digest, "one", 1),
        SightingReport("x", a.digest, "one", 2),
        SightingReport("x", a.config.digest, "two", 4),
        SightingReport("x", b.config.digest, "three", 8),
    ]
    catalog.sightings.note(reports, at=clock.now, actor="tester")
    pushed(catalog, "y", ["t"])
    found = timeline(catalog, clock).running
    assert found == {
        str(both.digest): RunningImage(15, 3, clock.now),
        str(a.digest): RunningImage(6, 2, clock.now),
    }
    clock.now += 5
    catalog.sightings.note(reports[2:3], at=clock.now, actor="tester")
    places = catalog.browsing.places("x", str(both.digest), now=clock.now, limit=2)
    assert [(place.place, place.containers) for place in places] == [("two", 4), ("one", 3)]
    assert (places[0].first_at, places[0].last_at) == (clock.now - 5, clock.now)
    assert catalog.browsing.places("y", str(both.digest), now=clock.now, limit=2) == []
    assert catalog.browsing.places("z", str(both.digest), now=clock.now, limit=2) == []


@pytest.mark.long
def test_silence_is_no_end(catalog: Catalog, clock: Clock) -> None:
    """Of each place it is known whether containers run, ended, or whether nobody knows."""
    old = image(catalog, "x")
    moved(catalog, clock, [old, image(catalog, "x")])
    images = {"i": ImageReport("registry.example/x:t", (ClaimReport(old.digest, "manifest"),))}
    gone = Agent(catalog, clock, "a" * 32, "gone")
    quiet = Agent(catalog, clock, "b" * 32, "quiet")
    live = Agent(catalog, clock, "c" * 32, "live")
    for agent in (gone, quiet, live):
        agent.send(agent.started("c1", -5), agent.started("c2"), images=images)
    catalog.sightings.note([SightingReport("x", old.digest, "audited", 7)], at=clock.now, actor="tester")
    ended = clock.now
    gone.send(gone.stopped("c1", -1), gone.stopped("c2"))
    clock.now += 3600_000_000
    gone.confirm()
    live.send(live.stopped("c1", -60))
    live.confirm()
    found = catalog.browsing.places("x", str(old.digest), now=clock.now, limit=9)
    state = {place.place: (place.containers, place.silent, place.ended, place.reported) for place in found}
    assert state == {
        "live": (1, 0, 1, True),
        "audited": (7, 0, 0, False),
        "quiet": (2, 2, 0, True),
        "gone": (0, 0, 2, True),
    }
    assert [place.place for place in found][-1] == "gone"
    assert (found[-1].ended_at, found[-1].first_at) == (ended, ended - 5_000_000)
    assert {place.place: place.ended_at for place in found}["live"] == clock.now - 60_000_000
    assert timeline(catalog, clock).running[str(old.digest)] == RunningImage(3, 2, clock.now, silent=2)
    assert len(catalog.browsing.places("x", str(old.digest), now=clock.now, limit=2)) == 2


def test_a_tag_that_never_was(catalog: Catalog, clock: Clock) -> None:
    pushed(catalog, "x", ["u"])
    assert (
        catalog.browsing.timeline("x", "t", before=None, limit=5, last=None, now=clock.now, running=True)
        is None
    )
    assert (
        catalog.browsing.timeline("y", "u", before=None, limit=5, last=None, now=clock.now, running=True)
        is None
    )


@pytest.mark.long
def test_many_moves_are_counted_in_parts(catalog: Catalog, clock: Clock) -> None:
    """Whatever their number is, there is a mark for each part with a move: what the tag came to last."""
    a, b = image(catalog, "x"), image(catalog, "x")
    times = moved(catalog, clock, [a, b] * (MOST_MARKS + 2), step=1000)
    found = timeline(catalog, clock, limit=5).period
    assert not found.exact
    assert len(found.marks) <= MOST_MARKS + 1
    assert sum(mark.moves for mark in found.marks) == len(times)
    assert found.marks[-1].at == times[-1]
    assert all((times.index(mark.at) % 2 == 0) == (mark.digest == str(a.digest)) for mark in found.marks)
    parts = [(mark.at - found.since) // found.part for mark in found.marks]
    assert parts == sorted(set(parts))
    assert max(parts) < MOST_MARKS


@pytest.mark.parametrize("last", [3 * DAY, 3 * DAY + 1, DAY // 2, 1000 * DAY])
def test_a_period_begins_with_what_the_tag_pointed_to(catalog: Catalog, clock: Clock, last: int) -> None:
    a, b = image(catalog, "x"), image(catalog, "x")
    times = moved(catalog, clock, [a, b, a, b, a])
    clock.now += DAY // 4
    found = timeline(catalog, clock, last=last).period
    since = max(times[0] - 1, clock.now - last)
    assert (found.since, found.exact) == (since, True)
    inside = [time for time in times if time > since]
    assert [mark.at for mark in found.marks if mark.moves] == inside
    assert [mark.at for mark in found.marks if not mark.moves] == (
        [since] if len(inside) < len(times) else []
    )
