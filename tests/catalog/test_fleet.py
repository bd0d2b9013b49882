"""What agents report: the runs that the catalog makes of it, over each database."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pytest

from digestry.catalog import clock as times
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet.run_pages import RunFilter
from digestry.errors import CallerError, Forbidden
from digestry.model.digest import Digest
from digestry.model.fleet import (
    ClaimReport,
    Entry,
    FleetReceipt,
    FleetReport,
    Gap,
    ImageReport,
    RunReport,
    Snapshot,
    SourceReport,
    Started,
    Stopped,
)
from digestry.model.fleet_answers import FleetRun
from tests.catalog.support import Clock

AGENT = "a" * 32
OTHER = "b" * 32
IMAGE = ImageReport("registry.example/app:1", (ClaimReport(Digest.of(b"app"), "manifest"),))


class Agent:
    """An agent whose clock, and entries, a test sets."""

    def __init__(self, catalog: Catalog, clock: Clock, name: str = AGENT, place: str = "n1") -> None:
        self.catalog, self.clock, self.id, self.place = catalog, clock, name, place
        self.next = 1
        self.ahead = 0

    def at(self, seconds: float = 0) -> datetime.datetime:
        """A time by the agent's clock, in seconds from now."""
        return times.to_datetime(self.clock.now + int(seconds * times.SECOND) + self.ahead)

    def report(self, *entries: Entry, **more: Any) -> FleetReport:
        fields: dict[str, Any] = {
            "agent": self.id, "place": self.place, "version": "1", "interval": 60, "sent_at": self.at(),
            "first": self.next, "images": {"i": IMAGE}, "entries": tuple(entries),
        }  # fmt: skip
        return FleetReport(**{**fields, **more})

    def send(self, *entries: Entry, actor: str = "robot$n1", **more: Any) -> FleetReceipt:
        report = self.report(*entries, **more)
        receipt = self.record(report, actor=actor)
        self.next = receipt.received + 1
        return receipt

    def record(self, report: FleetReport, *, actor: str = "robot$n1") -> FleetReceipt:
        now = self.clock.now
        return self.catalog.fleet.record(report, actor=actor, came_at=now, now=now)

    def run(self, container: str, seconds: float = 0, instance: str = "1", **more: Any) -> RunReport:
        return RunReport(container, instance, "i", self.at(seconds), **more)

    def started(self, container: str, seconds: float = 0, instance: str = "1") -> Started:
        return Started("docker", self.run(container, seconds, instance))

    def stopped(self, container: str, seconds: float = 0, instance: str = "1", **more: Any) -> Stopped:
        return Stopped("docker", container, self.at(seconds), instance, **more)

    def snapshot(self, *runs: RunReport, seconds: float = 0, part: str = "1", last: bool = True) -> Snapshot:
        return Snapshot("docker", part, self.at(seconds), tuple(runs), last)

    def confirm(self, seconds: float = 0, problem: str = "") -> FleetReceipt:
        return self.send(sources=(SourceReport("docker", self.at(seconds), problem),))


@pytest.fixture
def agent(catalog: Catalog, clock: Clock) -> Agent:
    return Agent(catalog, clock)


def all_runs(catalog: Catalog, clock: Clock) -> Sequence[FleetRun]:
    return catalog.fleet.runs(RunFilter(ever=True), now=clock.now, limit=1000).runs


def pass_time(clock: Clock, seconds: float) -> None:
    clock.now += int(seconds * times.SECOND)


def test_a_start_and_an_end(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    began = agent.at(-5)
    assert agent.send(agent.started("c1", -5)).received == 1
    (run,) = catalog.fleet.runs(now=clock.now, limit=10).runs
    assert (run.container, run.from_, run.until, run.place, run.source) == ("c1", began, None, "n1", "docker")
    pass_time(clock, 30)
    agent.send(agent.stopped("c1", -1))
    assert catalog.fleet.runs(now=clock.now, limit=10).runs == ()
    (run,) = all_runs(catalog, clock)
    assert run.until == run.until_after == run.last_seen == agent.at(-1)


def test_a_report_that_comes_again_changes_nothing(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    report = agent.report(agent.started("c1"), agent.started("c2"), agent.stopped("c1", 0))
    first = agent.record(report)
    before = all_runs(catalog, clock)
    pass_time(clock, 5)
    again = agent.record(report)
    assert (first.received, again.received, again.resynchronize) == (3, 3, False)
    assert all_runs(catalog, clock) == before
    # What is new after what was recorded counts.
    more = agent.record(agent.report(*report.entries, agent.stopped("c2", 0)))
    assert more.received == 4
    assert not catalog.fleet.runs(now=clock.now, limit=10).runs


def test_a_heartbeat_raises_until_when_all_is_known(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    agent.send(agent.started("c1"))
    pass_time(clock, 60)
    agent.confirm(-3)
    (run,) = catalog.fleet.runs(now=clock.now, limit=10).runs
    assert run.last_seen == agent.at(-3)
    # While entries wait in the agent's buffer, an end may be among them.
    pass_time(clock, 60)
    agent.send(sources=(SourceReport("docker", agent.at()),), behind=5)
    assert catalog.fleet.runs(now=clock.now, limit=10).runs[0].last_seen == run.last_seen


def test_a_snapshot_ends_what_it_does_not_have(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    agent.send(agent.started("c1"), agent.started("c2"))
    pass_time(clock, 60)
    agent.confirm()
    known = agent.at()
    pass_time(clock, 600)
    agent.send(agent.snapshot(agent.run("c2", -660), agent.run("c3", -10)))
    runs = {run.container: run for run in all_runs(catalog, clock)}
    assert (runs["c1"].until_after, runs["c1"].until) == (known, agent.at())
    assert runs["c2"].until is None
    assert runs["c3"].from_ == agent.at(-10)
    # Nobody saw the end: a later snapshot that has it again takes it back.
    pass_time(clock, 60)
    agent.send(agent.snapshot(agent.run("c1", -720), agent.run("c2", -720), part="2"))
    runs = {run.container: run for run in all_runs(catalog, clock)}
    assert runs["c1"].until is None
    assert runs["c3"].until == agent.at()


def test_a_snapshot_in_parts(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    agent.send(*(agent.started(f"c{number}", -60) for number in range(6)))
    at = -1
    agent.send(agent.snapshot(agent.run("c0", -60), agent.run("n1", -5), seconds=at, part="7", last=False))
    agent.send(agent.snapshot(agent.run("c1", -60), seconds=at, part="7", last=False))
    assert len(catalog.fleet.runs(now=clock.now, limit=10).runs) == 7
    agent.send(agent.snapshot(agent.run("c2", -60), seconds=at, part="7"))
    assert {run.container for run in catalog.fleet.runs(now=clock.now, limit=10).runs} == {
        "c0", "c1", "c2", "n1",
    }  # fmt: skip


def test_a_snapshot_does_not_end_what_started_after_it(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    agent.send(agent.started("c1", -1))
    agent.send(agent.snapshot(seconds=-10))
    assert len(catalog.fleet.runs(now=clock.now, limit=10).runs) == 1


def test_two_agents_of_one_place_in_either_order(catalog: Catalog, clock: Clock) -> None:
    one, two = Agent(catalog, clock), Agent(catalog, clock, OTHER)
    one.send(one.started("c1", -50))
    two.send(two.started("c1", -50), two.stopped("c1", -20))
    one.send(one.stopped("c1", -19))
    # The end of c2 comes before its start.
    two.send(two.stopped("c2", -5))
    one.send(one.started("c2", -30))
    runs = {run.container: run for run in all_runs(catalog, clock)}
    assert len(all_runs(catalog, clock)) == 2
    assert runs["c1"].until == one.at(-20)
    assert (runs["c2"].from_, runs["c2"].until) == (one.at(-30), one.at(-5))


def test_a_container_that_restarts_has_two_runs(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    agent.send(agent.started("c1", -50, "x"))
    agent.send(agent.started("c1", -10, "y"))  # the end between the two was not seen
    first, second = sorted(all_runs(catalog, clock), key=lambda run: run.from_)
    assert (first.until, second.until) == (agent.at(-10), None)
    assert first.until_after is not None
    assert first.until_after < agent.at(-10)
    agent.send(agent.stopped("c1", -2, ""))  # of whichever runs
    assert max(all_runs(catalog, clock), key=lambda run: run.from_).until == agent.at(-2)


def test_an_older_start_that_comes_late_has_ended(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    agent.send(agent.started("c1", -10, "y"))
    agent.send(agent.started("c1", -50, "x"))
    first, second = sorted(all_runs(catalog, clock), key=lambda run: run.from_)
    assert (first.until, second.until) == (agent.at(-10), None)


def test_an_end_that_somebody_saw_replaces_one_that_nobody_saw(
    agent: Agent, catalog: Catalog, clock: Clock
) -> None:
    agent.send(agent.started("c1", -100))
    agent.send(agent.snapshot())
    assert all_runs(catalog, clock)[0].until == agent.at()
    agent.send(agent.stopped("c1", -30))
    assert (all_runs(catalog, clock)[0].until_after, all_runs(catalog, clock)[0].until) == (
        agent.at(-30), agent.at(-30),
    )  # fmt: skip


def test_a_late_snapshot_ends_nothing_and_revives_nothing(catalog: Catalog, clock: Clock) -> None:
    one, two = Agent(catalog, clock), Agent(catalog, clock, OTHER)
    one.send(one.snapshot(one.run("c1", -100), part="1"))
    # Taken before that one: it lacks c1, and has c0, which the later one had no more.
    two.send(two.snapshot(two.run("c0", -500), seconds=-90, part="2"))
    runs = {run.container: run for run in all_runs(catalog, clock)}
    assert runs["c1"].until is None
    assert (runs["c0"].until_after, runs["c0"].until) == (one.at(-90), one.at(0))


def test_a_clock_that_is_off_is_corrected(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    real = agent.at(-5)
    agent.ahead = 3600 * times.SECOND
    agent.send(agent.started("c1", -5))
    assert all_runs(catalog, clock)[0].from_ == real
    # A report that was held up on its way does not move the times.
    report = agent.report(agent.started("c2", -5))
    real = times.to_datetime(clock.now - 5 * times.SECOND)
    pass_time(clock, 40)
    agent.record(report)
    assert {run.container: run.from_ for run in all_runs(catalog, clock)}["c2"] == real


def test_impossible_times_are_replaced_and_said(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    zero = datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=14)))
    far = datetime.datetime(9999, 12, 31, 23, 59, tzinfo=datetime.UTC)
    listed = [RunReport("c1", "", "i", zero), RunReport("c2", "", "i", far)]
    agent.send(agent.snapshot(*listed), Gap("docker", zero, far, "why"))
    assert all(run.from_ <= agent.at() for run in all_runs(catalog, clock))
    agent.send(agent.stopped("c1", 0, "", after=zero))
    agent.send(sent_at=far)
    assert all_runs(catalog, clock)


def test_numbers_that_are_not_there_or_begin_anew(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    assert agent.send(agent.started("c1")).resynchronize is False
    lost = agent.send(agent.started("c2"), first=10)
    assert (lost.received, lost.resynchronize) == (10, True)
    anew = agent.send(agent.started("c3"), first=3)
    assert (anew.received, anew.resynchronize) == (10, True)
    assert agent.send(first=11).resynchronize is False
    assert agent.send(first=1).resynchronize is False  # a heartbeat that says nothing of numbers


def test_an_agent_belongs_to_its_user_and_place(agent: Agent) -> None:
    agent.send(agent.started("c1"), actor="alice")
    with pytest.raises(Forbidden, match="another user"):
        agent.send(agent.started("c2"), actor="bob")
    with pytest.raises(Forbidden, match="reports for n1"):
        agent.record(agent.report(place="n2"), actor="alice")


def test_a_report_that_is_no_whole_one(agent: Agent) -> None:
    with pytest.raises(CallerError, match="not among the report's images"):
        agent.send(Started("docker", RunReport("c", "1", "none", agent.at())))
    runs = tuple(agent.run(str(number)) for number in range(3000))
    with pytest.raises(CallerError, match="5000 are the most"):
        agent.send(agent.snapshot(*runs, part="1", last=False), agent.snapshot(*runs, part="2"))
    with pytest.raises(CallerError, match="64 are the most"):
        agent.send(*(Gap(f"s{number}", agent.at(), agent.at(), "x") for number in range(65)))
