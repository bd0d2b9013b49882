"""What agents report: the runs that the catalog makes of it, over each database."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from digestry.backend import Backend
from digestry.catalog import clock as times
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet import intake_limits
from digestry.catalog.fleet.changes import ChangeCursor
from digestry.catalog.fleet.places import PlaceCursor
from digestry.catalog.fleet.run_pages import RunCursor, RunFilter
from digestry.catalog.fleet.selection import EVERYBODY, Asker, ImageFilter
from digestry.catalog.retention_rules import Retention
from digestry.errors import CallerError, Forbidden
from digestry.model.digest import Digest
from digestry.model.fleet import (
    EVENT_START,
    WRITTEN_START,
    ClaimReport,
    Gap,
    ImageReport,
    RunReport,
    SourceReport,
    Started,
    Stopped,
)
from digestry.model.fleet_answers import MOST_POINTS, FleetRun
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from tests.catalog.fleet_support import IMAGE, OTHER, Agent
from tests.catalog.raw import Raw
from tests.catalog.support import Clock, collected, image, index, put


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


@pytest.mark.parametrize("late", [False, True], ids=["known by its event first", "known by its event later"])
@pytest.mark.parametrize("named", ["first", "written"])
def test_a_start_that_one_agent_knows_by_its_event_alone(
    catalog: Catalog, clock: Clock, named: str, late: bool
) -> None:
    """Its container was gone when that agent asked about it; the other agent has the engine's own word."""
    one, two = Agent(catalog, clock), Agent(catalog, clock, OTHER)
    began = one.at(-50)
    event = f"{EVENT_START}{times.from_datetime(began) * 1000}"
    written = (began - datetime.timedelta(seconds=0.3)).isoformat()
    word = "first" if named == "first" else written
    known = (one, one.started("c", -50, word), one.stopped("c", -40, word))
    told = (two, two.started("c", -50, event), two.stopped("c", -40, event))
    for agent, start, end in (known, told) if late else (told, known):
        agent.send(start)
        agent.send(end)
    (run,) = all_runs(catalog, clock)
    assert (run.from_, run.until_after, run.until) == (began, one.at(-40), one.at(-40))
    # The agent that knows it by its event is the only one that sees the end of the next start.
    at = times.from_datetime(two.at(-30)) * 1000
    one.send(one.started("c", -30, two.at(-30).isoformat()))
    two.send(two.started("c", -30, f"{EVENT_START}{at}"), two.stopped("c", -20, f"{EVENT_START}{at}"))
    assert sorted((run.from_, run.until) for run in all_runs(catalog, clock)) == [
        (began, one.at(-40)), (one.at(-30), one.at(-20)),
    ]  # fmt: skip


@pytest.mark.parametrize("late", [False, True], ids=["told first", "told later"])
@pytest.mark.parametrize("named", ["first", "written", "event"])
def test_a_start_of_which_one_agent_knows_the_time_alone(
    catalog: Catalog, clock: Clock, named: str, late: bool
) -> None:
    """The engine forgot what was before; its event came seconds after the time that it wrote down."""
    one, two = Agent(catalog, clock), Agent(catalog, clock, OTHER)
    written = one.at(-52.5)
    event = times.from_datetime(one.at(-50)) * 1000
    word = {"first": "first", "written": written.isoformat(), "event": f"{EVENT_START}{event}"}[named]
    by_time = f"{WRITTEN_START}{times.from_datetime(written) * 1000}"
    known = (one, one.started("c", -50, word), one.stopped("c", -40, word))
    told = (two, two.started("c", -52.5, by_time), two.stopped("c", -40, by_time))
    for agent, start, end in (known, told) if late else (told, known):
        agent.send(start)
        agent.send(end)
    (run,) = all_runs(catalog, clock)
    assert (run.until_after, run.until) == (one.at(-40), one.at(-40))
    # A later start of it, also one that follows at once, is not that one.
    again = times.from_datetime(two.at(-39.9)) * 1000
    two.send(
        two.started("c", -39.9, f"{WRITTEN_START}{again}"), two.stopped("c", -20, f"{WRITTEN_START}{again}")
    )
    assert sorted(run.until for run in all_runs(catalog, clock) if run.until) == [one.at(-40), one.at(-20)]


def test_a_start_that_nobody_saw_does_not_prolong_the_one_before(catalog: Catalog, clock: Clock) -> None:
    """The only agent was away while the container ended and ran again; the engine has no events."""
    one = Agent(catalog, clock)
    one.send(one.started("c", -50, "first"))
    written = f"{WRITTEN_START}{times.from_datetime(one.at(-47)) * 1000}"
    one.send(one.started("c", -47, written), one.stopped("c", -40, written))
    first, second = sorted(all_runs(catalog, clock), key=lambda run: run.from_)
    assert first.until == one.at(-47)
    assert first.until_after is not None
    assert first.until_after < one.at(-47)  # nobody saw it
    assert (second.from_, second.until) == (one.at(-47), one.at(-40))


def test_an_event_that_follows_a_first_start_is_another_start(catalog: Catalog, clock: Clock) -> None:
    """The end of the first start was not told yet, and its own event came when it began."""
    one, two = Agent(catalog, clock), Agent(catalog, clock, OTHER)
    one.send(one.started("c", -50, "first"))
    event = f"{EVENT_START}{times.from_datetime(two.at(-47)) * 1000}"
    two.send(two.started("c", -47, event), two.stopped("c", -40, event))
    one.send(one.stopped("c", -48, "first"))
    assert sorted((run.from_, run.until) for run in all_runs(catalog, clock)) == [
        (one.at(-50), one.at(-48)), (one.at(-47), one.at(-40)),
    ]  # fmt: skip


def test_an_end_without_a_start_is_that_of_what_ran_before_it(
    agent: Agent, catalog: Catalog, clock: Clock
) -> None:
    agent.send(agent.started("c", -50, "first"))
    agent.send(agent.snapshot(agent.run("c", -39, "second"), seconds=-38.9))
    agent.send(agent.stopped("c", -40, ""))
    agent.send(agent.started("d", -39, "first"), agent.stopped("d", -40, ""))  # to the second alone
    assert {(run.container, run.from_): run.until for run in all_runs(catalog, clock)} == {
        ("c", agent.at(-50)): agent.at(-40), ("c", agent.at(-39)): None, ("d", agent.at(-39)): agent.at(-39),
    }  # fmt: skip


def test_an_end_that_another_agent_saw_is_not_that_of_the_next_start(catalog: Catalog, clock: Clock) -> None:
    """An agent that was killed no longer knows of which start the end is; the next one came at once."""
    one, two = Agent(catalog, clock), Agent(catalog, clock, OTHER)
    again = one.at(-39.96)
    event = times.from_datetime(one.at(-39.46)) * 1000
    one.send(one.started("c", -41, "first"), one.stopped("c", -40, "first"))
    one.send(one.snapshot(one.run("c", -39.96, again.isoformat()), seconds=-39.4))
    two.send(two.stopped("c", -40, ""), two.started("c", -39.46, f"{EVENT_START}{event}"))
    two.send(two.stopped("c", -38, f"{EVENT_START}{event}"))
    assert sorted((run.from_, run.until) for run in all_runs(catalog, clock)) == [
        (one.at(-41), one.at(-40)), (again, one.at(-38)),
    ]  # fmt: skip


def test_starts_that_are_close_stay_two(catalog: Catalog, clock: Clock) -> None:
    one, two = Agent(catalog, clock), Agent(catalog, clock, OTHER)
    one.send(one.started("c", -50, "first"), one.stopped("c", -49.8, "first"))
    again = times.from_datetime(two.at(-49.7)) * 1000
    two.send(
        two.started("c", -49.7, f"{EVENT_START}{again}"), two.stopped("c", -49.6, f"{EVENT_START}{again}")
    )
    assert sorted((run.from_, run.until) for run in all_runs(catalog, clock)) == [
        (one.at(-50), one.at(-49.8)), (one.at(-49.7), one.at(-49.6)),
    ]  # fmt: skip
    # The engine's own word for that start, which its agent tells later, is of the same one.
    one.send(
        one.started("c", -49.7, one.at(-49.71).isoformat()),
        one.stopped("c", -49.6, one.at(-49.71).isoformat()),
    )
    assert len(all_runs(catalog, clock)) == 2


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


@pytest.mark.parametrize("set_back", [0, 3600])
def test_reports_that_were_held_up_and_come_together(
    agent: Agent, catalog: Catalog, clock: Clock, set_back: int
) -> None:
    """A cut network let none pass for ten minutes, and then all: each looks behind by another time."""
    agent.ahead = 3600 * times.SECOND
    agent.send(agent.started("c0"))
    agent.ahead -= set_back * times.SECOND  # which the agent sees
    ahead = agent.ahead / times.SECOND
    held, real = [], {}
    for number in range(1, 6):
        pass_time(clock, 60)
        real[f"c{number}"] = times.to_datetime(clock.now - 5 * times.SECOND)
        held.append(agent.report(agent.started(f"c{number}", -5), ahead=ahead, first=number + 1))
    pass_time(clock, 300)
    for report in held:
        agent.record(report)
    runs = {run.container: run.from_ for run in all_runs(catalog, clock)}
    assert {name: runs[name] for name in real} == real


def test_a_clock_that_is_ahead_of_what_the_agent_states(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    agent.ahead = 3600 * times.SECOND
    real = times.to_datetime(clock.now - 5 * times.SECOND)
    agent.send(agent.started("c1", -5), ahead=0.0)  # no report comes before it was sent
    assert all_runs(catalog, clock)[0].from_ == real


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
    for platform in (
        Platform("a" * 65, "linux"),
        Platform("amd64", "linux\x00"),
        Platform(os_features=("\x1b",)),
    ):
        with pytest.raises(CallerError, match="the platform of the image 'i'"):
            agent.send(agent.started("c1"), images={"i": ImageReport("app", platform=platform)})


# -- questions ---------------------------------------------------------------------------------


def containers(catalog: Catalog, clock: Clock, choice: RunFilter, asker: Asker = EVERYBODY) -> list[str]:
    return [run.container for run in catalog.fleet.runs(choice, asker, now=clock.now, limit=100).runs]


def test_an_image_is_found_by_every_digest_of_it(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    old = put(catalog, "app", image(catalog, "app"))
    other = put(catalog, "app", image(catalog, "app"))
    parent = put(catalog, "app", index(old, other))
    assert old.config is not None
    assert other.config is not None
    reported = ImageReport("reg.example/app:1", (ClaimReport(parent.digest),), image_id=old.config.digest)
    agent.send(agent.started("c1"), images={"i": reported})
    for digest in (old.digest, parent.digest, old.config.digest, old.layers[0].digest):
        assert containers(catalog, clock, RunFilter(ImageFilter(digest=digest))) == ["c1"], digest
    for digest in (other.digest, other.config.digest, other.layers[0].digest):
        assert containers(catalog, clock, RunFilter(ImageFilter(digest=digest))) == [], digest
    (found,) = catalog.fleet.runs(now=clock.now, limit=1).images
    assert (found.digest, found.kind) == (parent.digest, "index")


def test_an_image_that_is_pushed_after_it_ran(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    manifest = image(catalog, "app")
    named = ImageReport("reg.example/app:1", (ClaimReport(manifest.digest),))
    agent.send(agent.started("c1"), images={"i": named})
    layer = RunFilter(ImageFilter(digest=manifest.layers[0].digest))
    alice = Asker(everything=False, may_audit=lambda name: name == "app")
    assert containers(catalog, clock, layer) == []
    assert containers(catalog, clock, RunFilter(), alice) == []
    put(catalog, "app", manifest)
    pass_time(clock, 400)
    numbers = catalog.fleet.stale_images(clock.now - 300 * times.SECOND, limit=10)
    assert catalog.fleet.relate(numbers, now=clock.now) == 1
    assert containers(catalog, clock, layer) == ["c1"]
    assert containers(catalog, clock, RunFilter(), alice) == ["c1"]
    assert containers(catalog, clock, RunFilter(), Asker(False, lambda name: name != "app")) == []
    assert catalog.fleet.stale_images(clock.now - 300 * times.SECOND, limit=10) == []


def test_the_manifest_of_a_platform_is_asked_for(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    one, two = (put(catalog, "app", image(catalog, "app")) for _ in range(2))
    parent = put(catalog, "app", index(one, two))
    arm = Platform("linux", "arm64")
    agent.send(
        agent.started("c1"), images={"i": ImageReport("app", (ClaimReport(parent.digest),), platform=arm)}
    )
    by_layer = RunFilter(ImageFilter(digest=two.layers[0].digest))
    assert containers(catalog, clock, by_layer) == []
    asked = []

    def choose(digest: str, platform: Platform) -> str:
        asked.append((digest, platform))
        return str(two.digest)

    catalog.fleet.relate([1], now=clock.now, choose=choose)
    assert asked == [(str(parent.digest), arm)]
    assert containers(catalog, clock, by_layer) == ["c1"]


def test_a_tag_is_what_it_points_to_or_pointed_to(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    old, new = image(catalog, "app"), image(catalog, "app")
    put(catalog, "app", old, "1")
    put(catalog, "app", new, "1")
    images = {
        key: ImageReport("reg.example/app:1", (ClaimReport(manifest.digest),))
        for key, manifest in (("old", old), ("new", new))
    }
    agent.send(
        *(Started("docker", RunReport(f"c-{key}", "1", key, agent.at(-9))) for key in images), images=images
    )
    tag = Reference("any.example", "app", "1")
    assert containers(catalog, clock, RunFilter(ImageFilter(reference=tag))) == ["c-new"]
    assert set(containers(catalog, clock, RunFilter(ImageFilter(reference=tag, ever=True)))) == {
        "c-new", "c-old",
    }  # fmt: skip
    pinned = Reference("any.example", "app", "1", old.digest)
    assert containers(catalog, clock, RunFilter(ImageFilter(reference=pinned))) == ["c-old"]
    # Of another registry, its name is all that is known.
    foreign = ImageFilter(reference=tag, own=False)
    assert containers(catalog, clock, RunFilter(foreign)) == []
    same = ImageFilter(reference=Reference("reg.example", "app", "1"), own=False)
    assert set(containers(catalog, clock, RunFilter(same))) == {"c-new", "c-old"}


def test_runs_at_a_time_and_in_pages(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    for number in range(7):
        agent.send(agent.started(f"c{number}", -100 + number), agent.started(f"d{number}", -90))
        agent.send(agent.stopped(f"c{number}", -50 + number))
    at = clock.now - 49 * times.SECOND
    found = containers(catalog, clock, RunFilter(at=at))
    assert found == [f"d{number}" for number in range(6, -1, -1)] + ["c6", "c5", "c4", "c3", "c2"]
    pages, after = [], None
    while True:
        page = catalog.fleet.runs(RunFilter(ever=True), now=clock.now, limit=3, after=after)
        pages += [run.container for run in page.runs]
        assert (page.total, page.running) == (14, 7)
        if not page.next:
            break
        after = RunCursor.parse(page.next)
    assert len(pages) == len(set(pages)) == 14
    assert pages[7:] == [f"c{number}" for number in range(6, -1, -1)]


def test_changes_oldest_first(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    for number in range(5):
        agent.send(agent.started(f"c{number}", -50 + number), agent.stopped(f"c{number}", -46 + number))
    found, after = [], None
    while True:
        page = catalog.fleet.changes(
            since=clock.now - 49 * times.SECOND, until=clock.now, now=clock.now, limit=2, after=after
        )
        found += [(change.change, change.run.container) for change in page.changes]
        assert page.total == 9
        if not page.next:
            break
        after = ChangeCursor.parse(page.next)
    assert found == [
        ("started", "c1"), ("started", "c2"), ("started", "c3"), ("started", "c4"), ("stopped", "c0"),
        ("stopped", "c1"), ("stopped", "c2"), ("stopped", "c3"), ("stopped", "c4"),
    ]  # fmt: skip


def test_silence_is_not_gone(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    other = Agent(catalog, clock, OTHER, "n2")
    agent.send(agent.started("c1"))
    agent.confirm()
    other.send(other.started("c2"))
    pass_time(clock, 170)
    other.confirm()
    assert catalog.fleet.places(now=clock.now, limit=10, silent=True).sources == ()
    pass_time(clock, 30)
    silent = catalog.fleet.places(now=clock.now, limit=10, silent=True)
    assert [(source.place, source.running) for source in silent.sources] == [("n1", 1)]
    assert [(agent.place, agent.silent) for agent in silent.agents] == [("n1", True)]
    everything = catalog.fleet.places(now=clock.now, limit=1)
    assert everything.sources[0].place == "n1"
    after = PlaceCursor.parse(everything.next)
    assert [s.place for s in catalog.fleet.places(now=clock.now, limit=1, after=after).sources] == ["n2"]
    runs = {run.container: run.silent for run in catalog.fleet.runs(now=clock.now, limit=10).runs}
    assert runs == {"c1": True, "c2": False}
    told = catalog.fleet.summary(now=clock.now)
    assert (told.containers, told.silent_containers) == ({"unjudged": 2}, 1)
    assert (told.places, told.silent_places, told.agents, told.silent_agents) == (2, 1, 2, 1)
    # An engine that does not answer is no better.
    agent.confirm(problem="the engine does not answer")
    assert catalog.fleet.places(now=clock.now, limit=10).sources[1].problem
    assert catalog.fleet.summary(now=clock.now).silent_containers == 1
    agent.confirm()
    assert catalog.fleet.summary(now=clock.now).silent_containers == 0


def test_an_agent_that_stops_on_purpose_is_not_silent_but_its_containers_are(
    agent: Agent, catalog: Catalog, clock: Clock
) -> None:
    agent.send(agent.started("c1"), stopping=True, sources=(SourceReport("docker", agent.at()),))
    pass_time(clock, 1000)
    (found,) = catalog.fleet.places(now=clock.now, limit=10).agents
    assert (found.silent, found.stopped is None) == (False, False)
    assert catalog.fleet.runs(now=clock.now, limit=10).runs[0].silent
    agent.send(agent.stopped("c1", 0))
    assert catalog.fleet.places(now=clock.now, limit=10).agents[0].stopped is None


@pytest.mark.parametrize("running", [True, False])
def test_silence_is_one_rule(agent: Agent, catalog: Catalog, clock: Clock, running: bool) -> None:
    """Answers, metrics and webhooks agree on a source whose agent stopped on purpose."""
    agent.send(agent.started("c1"), sources=(SourceReport("docker", agent.at()),))
    if not running:
        agent.send(agent.stopped("c1", 1))
    agent.send(stopping=True, sources=(SourceReport("docker", agent.at()),))
    pass_time(clock, 1000)
    dark = int(running)
    places = catalog.fleet.places(now=clock.now, limit=10, silent=True)
    assert [source.running for source in places.sources] == [1] * dark
    told = catalog.fleet.summary(now=clock.now)
    assert (told.silent_containers, told.silent_places, told.silent_agents) == (dark, dark, 0)
    counted = catalog.fleet_counts.count(clock.now)
    assert (counted.silent_containers, counted.agents) == (dark, {"stopped": 1})
    assert [run.silent for run in catalog.fleet.runs(now=clock.now, limit=10).runs] == [True] * dark
    heard_since = clock.now - 900 * times.SECOND
    assert catalog.fleet_events.queue((), now=clock.now, heard_since=heard_since) == []


def test_how_many_run_in_a_source_is_always_known(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    def running() -> int:
        found = catalog.fleet.places(now=clock.now, limit=10).sources[0].running
        assert found == sum(run.until is None for run in all_runs(catalog, clock))
        assert found == catalog.fleet.runs(now=clock.now, limit=1).running
        return found

    agent.send(agent.started("c1", -90), agent.started("c2", -80), agent.stopped("c3", -70))
    assert running() == 2
    agent.send(agent.started("c3", -75), agent.started("c1", -60, instance="2"))
    assert running() == 2
    agent.send(agent.snapshot(agent.run("c1", -60, instance="2"), seconds=-30))
    assert running() == 1
    agent.send(agent.snapshot(agent.run("c2", -80), seconds=-20))
    assert running() == 1
    agent.send(agent.snapshot(agent.run("c2", -80), agent.run("c4", -10)))
    assert running() == 2
    pass_time(clock, 100)
    assert catalog.fleet_retention.prune(keep=times.SECOND, now=clock.now) == 5
    assert catalog.fleet.summary(now=clock.now).places == 0


def test_a_report_looks_up_some_of_its_images_and_the_upkeep_the_others(
    agent: Agent, catalog: Catalog, clock: Clock
) -> None:
    manifest = image(catalog, "app")
    put(catalog, "app", manifest)
    claims = (ClaimReport(manifest.digest, "manifest"),)
    images = {f"i{n}": ImageReport(f"registry.example/app:{n}", claims) for n in range(130)}
    runs = (Started("docker", RunReport(f"c{n}", "1", f"i{n}", agent.at())) for n in range(130))
    agent.send(*runs, images=images)
    later = catalog.fleet.stale_images(clock.now, limit=1000)
    assert len(later) == 30
    assert catalog.fleet.relate(later, now=clock.now) == 30
    config = ImageFilter(digest=manifest.config.digest if manifest.config else None)
    assert catalog.fleet.runs(RunFilter(config), now=clock.now, limit=1).total == 130


def test_what_one_place_may_report_in_an_hour_is_limited(
    agent: Agent, catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_limits, "MOST_RUNS_AN_HOUR", 3)
    monkeypatch.setattr(intake_limits, "MOST_IMAGES_AN_HOUR", 1)
    monkeypatch.setattr(intake_limits, "MOST_AGENTS_AN_HOUR", 2)
    agent.send(agent.started("c1"), agent.started("c2"))
    other = Agent(catalog, clock, OTHER, agent.place)
    with pytest.raises(Forbidden, match="n1 would have reported more than 3 new containers in this hour"):
        other.send(other.started("c3"), other.started("c4"))
    with pytest.raises(Forbidden, match="more than 1 new images in this hour"):
        other.send(other.started("c3"), images={"i": ImageReport("registry.example/more:1")})
    other.send(other.started("c3"))
    with pytest.raises(Forbidden, match="more than 2 new agents in this hour"):
        Agent(catalog, clock, "c" * 32, agent.place).send()
    agent.send(agent.stopped("c1"))
    pass_time(clock, 3600)
    agent.send(agent.started("c5"), agent.started("c6"))
    assert catalog.fleet.runs(now=clock.now, limit=1).running == 4


def test_a_timeline_ends_at_the_right_second(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    for number in range(4):
        agent.send(agent.started(f"c{number}", -100 + number))
    choice = RunFilter(ImageFilter(digest=Digest.of(b"app")))
    told = catalog.fleet.timeline(choice, now=clock.now)
    assert [point.containers for point in told.points] == [1, 2, 3, 4]
    assert (told.running, told.last_end, told.exact) == (4, None, True)
    agent.send(*(agent.stopped(f"c{number}", -50 + number) for number in range(4)))
    told = catalog.fleet.timeline(choice, now=clock.now)
    assert [point.containers for point in told.points] == [1, 2, 3, 4, 3, 2, 1, 0]
    assert (told.running, told.unknown, told.total) == (0, 0, 4)
    assert told.last_end == told.last_end_after == told.points[-1].at == agent.at(-47)
    none = RunFilter(ImageFilter(vulnerability="CVE-1"))
    assert catalog.fleet.timeline(none, now=clock.now).total == 0


def test_a_long_timeline_has_equal_steps(agent: Agent, catalog: Catalog, clock: Clock) -> None:
    agent.send(*(agent.started(f"c{number}", -1000 + number) for number in range(600)))
    agent.send(*(agent.stopped(f"c{number}", -900 + number) for number in range(600)))
    told = catalog.fleet.timeline(RunFilter(ImageFilter(digest=Digest.of(b"app"))), now=clock.now)
    assert not told.exact
    assert len(told.points) <= MOST_POINTS
    assert max(point.containers for point in told.points) == 100
    assert told.points[-1].containers == 0


def test_who_may_not_audit_everything_sees_no_other_names(
    agent: Agent, catalog: Catalog, clock: Clock
) -> None:
    mine, other = (put(catalog, name, image(catalog, name)) for name in ("mine", "other"))
    images = {
        "mine": ImageReport("reg.example/mine:1", (ClaimReport(mine.digest),)),
        "other": ImageReport("reg.example/other:1", (ClaimReport(other.digest),)),
        "hub": IMAGE,
    }
    agent.send(*(Started("docker", RunReport(key, "1", key, agent.at(-9))) for key in images), images=images)
    asker = Asker(everything=False, may_audit=lambda name: name == "mine")
    page = catalog.fleet.runs(RunFilter(ever=True), asker, now=clock.now, limit=10, with_reports=True)
    assert ([run.container for run in page.runs], page.total, page.limited) == (["mine"], 1, True)
    assert page.images[0].report is None
    assert catalog.fleet.summary(asker, now=clock.now).containers == {"unjudged": 1}
    changed = catalog.fleet.changes(asker=asker, since=0, until=clock.now, now=clock.now, limit=10)
    assert [change.run.container for change in changed.changes] == ["mine"]


# -- what is kept ------------------------------------------------------------------------------

DAYS = 86_400


def counts(raw: Raw) -> dict[str, int]:
    tables = ("runs", "images", "image_digests", "sources", "agents", "gaps", "early_ends", "snapshot_runs")
    return {table: raw.query(f"SELECT count(*) FROM fleet_{table}")[0][0] for table in tables}  # noqa: S608


def test_what_is_old_goes(agent: Agent, catalog: Catalog, clock: Clock, raw: Raw) -> None:
    other = Agent(catalog, clock, OTHER, "gone")
    old = ImageReport("reg.example/old:1", (ClaimReport(Digest.of(b"old")),))
    other.send(
        other.started("x"), Gap("docker", other.at(-9), other.at(), "why"), other.stopped("no", 0),
        images={"i": old},
    )  # fmt: skip
    agent.send(agent.started("c1", -10), agent.stopped("c1", -5), agent.started("c2"))
    agent.send(agent.snapshot(agent.run("c2"), last=False))
    pass_time(clock, 50 * DAYS)
    agent.confirm()
    prune = catalog.fleet_retention.prune
    assert prune(keep=51 * DAYS * times.SECOND, now=clock.now) == 0
    assert counts(raw)["runs"] == 3
    assert prune(keep=49 * DAYS * times.SECOND, now=clock.now, stopped=lambda: True) == 0
    assert prune(keep=49 * DAYS * times.SECOND, now=clock.now) == 2
    assert counts(raw) == {
        "runs": 1, "images": 1, "image_digests": 1, "sources": 1, "agents": 1, "gaps": 0, "early_ends": 0,
        "snapshot_runs": 0,
    }  # fmt: skip
    assert containers(catalog, clock, RunFilter(ever=True)) == ["c2"]
    assert prune(keep=None, now=clock.now) == 0


def test_an_image_without_runs_goes_and_comes_again(
    agent: Agent, catalog: Catalog, clock: Clock, raw: Raw
) -> None:
    agent.send(agent.started("c1", -10), agent.stopped("c1", -5))
    pass_time(clock, 2 * DAYS)
    catalog.fleet_retention.prune(keep=DAYS * times.SECOND, now=clock.now)
    assert counts(raw)["images"] == 0
    agent.send(agent.started("c2"))
    assert counts(raw)["images"] == 1


@pytest.mark.parametrize("how", ["manifest", "config", "index"])
def test_what_runs_or_ran_lately_is_kept(how: str, agent: Agent, catalog: Catalog, clock: Clock) -> None:
    manifest = put(catalog, "app", image(catalog, "app"))
    other = put(catalog, "app", image(catalog, "app"))
    parent = put(catalog, "app", index(manifest))
    assert manifest.config is not None
    named = {
        "manifest": manifest.digest, "config": manifest.config.digest, "index": parent.digest,
    }  # fmt: skip
    digest = named[how]
    agent.send(agent.started("c1"), images={"i": ImageReport("app", (ClaimReport(digest),))})
    rules = Retention(untagged=DAYS, sighted=10 * DAYS)

    def kept() -> set[Digest]:
        collected(catalog, rules)
        with_tag = {manifest.digest, other.digest, parent.digest}
        return {one for one in with_tag if catalog.manifest("app", one) is not None}

    pass_time(clock, 20 * DAYS)
    agent.confirm()
    pass_time(clock, 5 * DAYS)
    assert kept() == {manifest.digest, parent.digest}
    agent.send(agent.stopped("c1", 0))
    pass_time(clock, 9 * DAYS)
    assert kept() == {manifest.digest, parent.digest}
    pass_time(clock, 2 * DAYS)
    assert kept() == set()


def test_what_runs_in_a_place_that_is_gone_is_kept_no_longer(
    agent: Agent, catalog: Catalog, clock: Clock
) -> None:
    manifest = put(catalog, "app", image(catalog, "app"))
    agent.send(agent.started("c1"), images={"i": ImageReport("app", (ClaimReport(manifest.digest),))})
    agent.confirm()
    pass_time(clock, 11 * DAYS)
    collected(catalog, Retention(untagged=DAYS, sighted=10 * DAYS))
    assert catalog.manifest("app", manifest.digest) is None


# -- several nodes -----------------------------------------------------------------------------


def test_two_agents_at_once(backend: Backend, catalog: Catalog, clock: Clock) -> None:
    """Each through a node of its own, about the same containers and images, in another order."""
    nodes = [catalog, *(backend.open_catalog() for _ in range(3))]
    images = {
        str(n): ImageReport(f"reg.example/app:{n}", (ClaimReport(Digest.of(b"%d" % n)),)) for n in range(9)
    }

    def report(number: int) -> None:
        agent = Agent(nodes[number], clock, str(number) * 32)
        for turn in range(6):
            order = range(9) if number % 2 else range(8, -1, -1)
            agent.send(
                *(Started(f"s{n % 3}", RunReport(f"c{turn}-{n}", "1", str(n), agent.at(-60))) for n in order),
                *(Stopped(f"s{n % 3}", f"c{turn}-{n}", agent.at(-number), "1") for n in order if n < 5),
                images=images,
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(report, range(4)))
    for node in nodes[1:]:
        node.close()
    runs = all_runs(catalog, clock)
    assert len(runs) == len({run.container for run in runs}) == 54
    ended = [run for run in runs if run.until is not None]
    assert len(ended) == 30
    assert {run.until for run in ended} == {times.to_datetime(clock.now - 3 * times.SECOND)}


def test_an_end_by_an_event_whose_time_is_another_clocks_ends_what_ran(
    catalog: Catalog, clock: Clock
) -> None:
    """Its agent corrects the times of an engine whose clock is off, and never the words for a start."""
    one, two = Agent(catalog, clock), Agent(catalog, clock, OTHER)
    event = f"{EVENT_START}{(times.from_datetime(one.at(-50)) + 3600 * times.SECOND) * 1000}"
    one.send(one.started("c", -50, "first"))
    two.send(two.started("c", -50, event))
    two.send(two.stopped("c", -40, event))
    one.send(one.stopped("c", -40, "first"))
    (run,) = all_runs(catalog, clock)
    assert (run.from_, run.until_after, run.until) == (one.at(-50), one.at(-40), one.at(-40))
