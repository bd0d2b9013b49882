"""The counts of runs follow the runs through all that changes them, and are corrected if they are wrong."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from sqlalchemy import delete, insert, select, update

from digestry.catalog import clock as times
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet import run_counts
from digestry.catalog.fleet.run_counts import DAY, QUARTER
from digestry.catalog.fleet.run_pages import RunFilter
from digestry.catalog.fleet.selection import EVERYBODY, ImageFilter
from digestry.catalog.fleet.timeline import timeline_of
from digestry.catalog.fleet_schema import LONGER_THAN, fleet_run_changes, fleet_run_counts, fleet_runs
from digestry.model.digest import Digest
from digestry.model.fleet import ClaimReport, Entry, ImageReport, RunReport, Snapshot, Started
from tests.catalog.fleet_support import OTHER, Agent
from tests.catalog.support import Clock

IMAGES = {
    str(number): ImageReport(
        f"registry.example/app:{number}", (ClaimReport(Digest.of(b"%d" % number), "manifest"),)
    )
    for number in range(5)
}
LENGTHS = (0.001, 3, 5.9, 24, 24.1, 90, 96.5, 400, 1500, 6200)


class Fleet:
    """Two agents that start, end, forget and correct runs by chance."""

    def __init__(self, catalog: Catalog, clock: Clock, chance: random.Random) -> None:
        self.catalog, self.clock, self.chance = catalog, clock, chance
        self.agents = [Agent(catalog, clock), Agent(catalog, clock, OTHER)]
        self.names = 0
        self.running: dict[str, RunReport] = {}

    def step(self) -> None:
        acts = [
            self.start,
            self.start,
            self.end,
            self.snapshot,
            self.restart,
            self.prune,
            self.add,
            self.wait,
        ]
        self.chance.choice(acts)()

    def _run(self, name: str) -> RunReport:
        hours = self.chance.choice(LENGTHS) * self.chance.random()
        image = self.chance.choice(list(IMAGES))
        return RunReport(name, str(self.names), image, self.agents[0].at(-hours * 3600))

    def send(self, *entries: Entry) -> None:
        for agent in self.chance.choice([self.agents[:1], self.agents[1:], self.agents]):
            agent.send(*entries, images=IMAGES)

    def start(self) -> None:
        entries: list[Entry] = []
        for _ in range(self.chance.randrange(1, 8)):
            self.names += 1
            run = self._run(f"c{self.names}")
            entries.append(Started("docker", run))
            if self.chance.random() < 0.5:
                ends = self.chance.uniform(-3600, -1)
                entries.append(self.agents[0].stopped(run.container, ends, run.instance))
            else:
                self.running[run.container] = run
        self.send(*entries)

    def restart(self) -> None:
        """Start a container anew whose end nobody reported."""
        if self.running:
            self.names += 1
            name = self.chance.choice(list(self.running))
            run = self.running[name] = RunReport(name, str(self.names), "0", self.agents[0].at(-1))
            self.send(Started("docker", run))

    def end(self) -> None:
        """End a run; sometimes twice, at two times, or without its words."""
        if self.running:
            run = self.running.pop(self.chance.choice(list(self.running)))
            for agent in self.agents[: self.chance.choice([1, 2])]:
                instance = self.chance.choice([run.instance, ""])
                agent.send(agent.stopped(run.container, self.chance.uniform(-90_000, 0), instance))

    def snapshot(self) -> None:
        """Report some of the runs as all that there are: the others end unseen, until they are seen alive."""
        there = [run for run in self.running.values() if self.chance.random() < 0.8]
        at = self.chance.choice([0, -10, -90_000])
        self.send(Snapshot("docker", f"{self.names:x}", self.agents[0].at(at), tuple(there)))

    def prune(self) -> None:
        self.catalog.fleet_retention.prune(keep=self.chance.choice([3, 40, 400]) * DAY, now=self.clock.now)

    def add(self) -> None:
        self.catalog.fleet_run_counts.add_changes()

    def wait(self) -> None:
        self.clock.now += int(self.chance.uniform(0, 3) * DAY)


def rows(catalog: Catalog) -> list[tuple[int, int, int | None]]:
    with catalog._database.read() as connection:
        columns = fleet_runs.c.image, fleet_runs.c.started_at, fleet_runs.c.ended_at
        return [tuple(row) for row in connection.execute(select(*columns))]


def running(runs: list[tuple[int, int, int | None]], at: int) -> int:
    return sum(start <= at and (end is None or end > at) for _, start, end in runs)


def check_answers(catalog: Catalog, now: int) -> None:
    runs = rows(catalog)
    expected: Counter[tuple[int, int, int, int]] = Counter()
    for image, start, end in runs:
        for kind, at in enumerate((start, end)):
            if at is not None:
                for length in (QUARTER, DAY):
                    expected[length, at - at % length, image, kind] += 1
    told: Counter[tuple[int, int, int, int]] = Counter()
    with catalog._database.read() as connection:
        for length in (QUARTER, DAY):
            for row in connection.execute(run_counts.counted(length, None).select()):
                told[length, row.from_at, row.image, 0] += int(row.started)
                told[length, row.from_at, row.image, 1] += int(row.ended)
        timeline = timeline_of(connection, RunFilter(), EVERYBODY, now=now, most_read=0, most_of_short=0)
        longest = connection.execute(select(fleet_runs)).all()
    assert {key: count for key, count in told.items() if count} == dict(expected)
    for row in longest:
        took = 0 if row.ended_at is None else row.ended_at - row.started_at
        assert row.longer_than == max((days for days in LONGER_THAN if took > days * DAY), default=None)
    assert (timeline.total, timeline.running) == (len(runs), sum(end is None for *_, end in runs))
    for point in timeline.points[:-1]:
        at = times.from_datetime(point.at)
        assert point.containers == running(runs, at if timeline.exact else at - 1)
    for count in catalog.fleet.state_history(EVERYBODY, since=now - 200 * DAY, now=now):
        last = count.at if count.at == now else count.at - 1  # what was at the present is counted, too
        assert sum(count.containers.values()) == running(runs, last)
    for days in (1, 20, 90):
        at = now - days * DAY - 5
        assert catalog.fleet.runs(RunFilter(at=at), now=now, limit=3).total == running(runs, at)


def check_all(catalog: Catalog) -> int:
    """Check all days; return how many counts were wrong."""
    checks, found = catalog.fleet_run_count_checks, 0
    day = checks.next_day(None)
    while day is not None:
        found += checks.check(day)
        day = checks.next_day(day)
    return found


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))])
def test_answers_follow_the_runs_through_everything(catalog: Catalog, clock: Clock, seed: int) -> None:
    fleet = Fleet(catalog, clock, random.Random(seed))
    for number in range(60):
        fleet.step()
        if number % 10 == 9:
            check_answers(catalog, clock.now)
    assert check_all(catalog) == 0
    fleet.add()
    check_answers(catalog, clock.now)
    assert check_all(catalog) == 0


@pytest.fixture
def counted(catalog: Catalog, clock: Clock) -> Catalog:
    chance = random.Random(3)
    fleet = Fleet(catalog, clock, chance)
    for _ in range(20):
        fleet.start()
    fleet.add()
    fleet.start()
    for name in ("long", "longer"):
        agent = fleet.agents[0]
        start = Started("docker", RunReport(name, "1", "0", agent.at(-90 * 86_400)))
        agent.send(start, agent.stopped(name, -86_400), images=IMAGES)
    assert check_all(catalog) == 0
    return catalog


CHANGES = {
    "a count is lost": delete(fleet_run_counts).where(
        fleet_run_counts.c.from_at == select(fleet_run_counts.c.from_at).limit(1).scalar_subquery()
    ),
    "all counts are lost": delete(fleet_run_counts),
    "what waits is lost": delete(fleet_run_changes),
    "a quarter is wrong": update(fleet_run_counts)
        .where(fleet_run_counts.c.length == QUARTER)
        .values(started=7),
    "a day is wrong": update(fleet_run_counts).where(fleet_run_counts.c.length == DAY).values(ended=3),
    "runs were removed": delete(fleet_runs).where(fleet_runs.c.number % 3 == 0),
    "ends were changed": update(fleet_runs).where(fleet_runs.c.ended_at.is_not(None)).values(
        ended_at=fleet_runs.c.started_at + 1, ended_after=fleet_runs.c.started_at + 1
    ),
    "a length is wrong": update(fleet_runs)
        .where(fleet_runs.c.longer_than.is_not(None))
        .values(longer_than=1),
    "lengths are lost": update(fleet_runs).values(longer_than=None),
    "an image is not there": insert(fleet_run_counts).values(
        length=QUARTER, from_at=100 * DAY, image=12345, started=3, ended=1
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("what", CHANGES)
def test_counts_that_are_wrong_are_found_and_corrected(counted: Catalog, clock: Clock, what: str) -> None:
    with counted._database.write() as connection:
        assert connection.execute(CHANGES[what]).rowcount > 0
    assert check_all(counted) > 0
    counted.fleet_run_counts.add_changes()
    check_all(counted)  # the days, of what was added
    assert check_all(counted) == 0
    check_answers(counted, clock.now)


def test_a_timeline_of_some_images_is_that_of_their_runs(counted: Catalog, clock: Clock) -> None:
    for state in ("unjudged", "affected"):
        choice = RunFilter(ImageFilter(state=state))
        with counted._database.read() as connection:
            exact = timeline_of(connection, choice, EVERYBODY, now=clock.now, most=10_000)
            told = timeline_of(connection, choice, EVERYBODY, now=clock.now, most_read=0, most_of_short=0)
        assert (told.total, told.running, told.first) == (exact.total, exact.running, exact.first)
