"""Answers from the counts of runs are those from the runs, over each database."""

from __future__ import annotations

import random

import pytest

from digestry.catalog import clock as times
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet import run_counts
from digestry.catalog.fleet.run_pages import RunCursor, RunFilter
from digestry.catalog.fleet.selection import EVERYBODY, Asker, ImageFilter
from digestry.catalog.fleet.timeline import timeline_of
from digestry.model.digest import Digest
from digestry.model.fleet import ClaimReport, Entry, ImageReport, RunReport, Started
from tests.catalog.fleet_support import Agent
from tests.catalog.support import Clock

HOUR = 3600 * times.SECOND
DAY = 24 * HOUR
LENGTHS = (0, 0.01, 3, 23.9, 24, 24.1, 90, 96.5, 400, 1500, 2000, 6200)
"""Hours, on both sides of the classes of long runs."""


def image(number: int) -> ImageReport:
    claim = ClaimReport(Digest.of(b"%d" % number), "manifest")
    return ImageReport(f"registry.example/a{number}:1", (claim,))


@pytest.fixture
def fleet(catalog: Catalog, clock: Clock) -> list[tuple[int, int | None]]:
    """Runs of 150 images, over a year, of all lengths: when each started and ended."""
    chance = random.Random(5)
    agent = Agent(catalog, clock)
    images = {str(number): image(number) for number in range(150)}
    found: list[tuple[int, int | None]] = []
    for part in range(4):
        entries: list[Entry] = []
        for number in range(120):
            name = f"c{part}-{number}"
            start = -int(chance.uniform(1, 365 * 24) * 3600)
            end = start + int(chance.choice(LENGTHS) * 3600)
            entries.append(Started("docker", RunReport(name, "1", str(number), agent.at(start))))
            if end < 0 and chance.random() < 0.9:
                entries.append(agent.stopped(name, end))
            else:
                end = 1
            found.append(
                (clock.now + start * times.SECOND, clock.now + end * times.SECOND if end < 0 else None)
            )
        agent.send(*entries, images=images)
        if part == 1:
            assert catalog.fleet_run_counts.add_changes() > 0  # the others wait still
    return found


def running(fleet: list[tuple[int, int | None]], at: int) -> int:
    return sum(start <= at and (end is None or end > at) for start, end in fleet)


@pytest.mark.long
def test_who_ran_anything_at_a_time(
    catalog: Catalog, clock: Clock, fleet: list[tuple[int, int | None]]
) -> None:
    for days in (0, 1, 10, 77, 200, 300, 363):
        at = clock.now - days * DAY - 7
        seen: list[int] = []
        after = None
        while True:
            page = catalog.fleet.runs(RunFilter(at=at), now=clock.now, limit=7, after=after)
            seen += [run.number for run in page.runs]
            assert page.total == running(fleet, at)
            ends = [run.until for run in page.runs if run.until]
            assert ends == sorted(ends, reverse=True)
            if not page.next:
                break
            after = RunCursor.parse(page.next)
        assert len(seen) == len(set(seen)) == running(fleet, at)


@pytest.mark.long
def test_the_states_of_a_year_and_of_a_month(
    catalog: Catalog, clock: Clock, fleet: list[tuple[int, int | None]]
) -> None:
    for days, most in ((365, 200), (30, 200), (90, 200), (1, 96)):
        found = catalog.fleet.state_history(EVERYBODY, since=clock.now - days * DAY, now=clock.now)
        assert 90 <= len(found) <= most
        assert found[-1].at == clock.now
        for count in found:
            assert sum(count.containers.values()) == running(fleet, count.at - 1), count
    nobody = Asker(everything=False, may_audit=lambda _: False)
    nothing = catalog.fleet.state_history(nobody, since=clock.now - 365 * DAY, now=clock.now)
    assert not any(count.containers for count in nothing)


@pytest.mark.parametrize("which", ["all", "some"])
def test_a_timeline_of_counts_says_what_that_of_runs_says(
    catalog: Catalog, clock: Clock, fleet: list[tuple[int, int | None]], which: str
) -> None:
    choice = RunFilter(ImageFilter(state="unjudged") if which == "some" else ImageFilter())
    with catalog._database.read() as connection:
        exact = timeline_of(connection, choice, EVERYBODY, now=clock.now, most=10_000)
        told = timeline_of(
            connection, choice, EVERYBODY, now=clock.now, most=200, most_read=10, most_of_short=10
        )
    assert exact.exact
    assert not told.exact
    assert (told.total, told.running, told.first, told.last_end) == (
        exact.total, exact.running, exact.first, exact.last_end,
    )  # fmt: skip
    assert 100 < len(told.points) <= 200
    for point in told.points[:-1]:
        assert point.containers == running(fleet, times.from_datetime(point.at) - 1)
    assert told.points[-1].containers == exact.running


def test_a_timeline_of_counts_ends_with_the_last_end(catalog: Catalog, clock: Clock) -> None:
    agent = Agent(catalog, clock)
    for number in range(20):
        agent.send(agent.started(f"c{number}", -3600 * 24 * (90 - number)))
        agent.send(agent.stopped(f"c{number}", -3600 * (number + 1)))
    with catalog._database.read() as connection:
        told = timeline_of(connection, RunFilter(), EVERYBODY, now=clock.now, most_read=10, most_of_short=10)
    assert told.last_end == told.last_end_after == told.points[-1].at == agent.at(-3600)
    assert (told.points[-1].containers, told.running, told.total) == (0, 0, 20)


def test_ends_that_change_and_runs_that_are_forgotten_are_counted_once(
    catalog: Catalog, clock: Clock
) -> None:
    agent = Agent(catalog, clock)
    agent.send(agent.started("a", -40 * 3600), agent.started("b", -30 * 3600))
    agent.send(agent.snapshot(agent.run("b", -30 * 3600), seconds=-20 * 3600))  # a has ended, unseen
    catalog.fleet_run_counts.add_changes()
    assert counts(catalog) == (2, 1)
    agent.send(agent.snapshot(agent.run("a", -40 * 3600), agent.run("b", -30 * 3600)))  # it had not
    assert counts(catalog) == (2, 0)
    agent.send(agent.stopped("a"), agent.stopped("b"))
    agent.send(agent.stopped("a", -10))  # earlier
    assert counts(catalog) == (2, 2)
    clock.now += 10 * DAY
    catalog.fleet_retention.prune(keep=DAY, now=clock.now)
    assert counts(catalog) == (0, 0)
    catalog.fleet_run_counts.add_changes()
    assert counts(catalog) == (0, 0)
    with catalog._database.read() as connection:
        left = run_counts.counted(run_counts.DAY, None)
        assert connection.execute(left.select()).all() == []


def counts(catalog: Catalog) -> tuple[int, int]:
    found = set()
    with catalog._database.read() as connection:
        for length in (run_counts.QUARTER, run_counts.DAY):
            rows = connection.execute(run_counts.counted(length, None).select()).all()
            assert all(row.from_at % length == 0 for row in rows)
            found.add((sum(row.started for row in rows), sum(row.ended for row in rows)))
    (one,) = found
    return one
