"""What happens in the fleet, its counts and its scans, over each database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.fleet.judgements import Judgement, StatementRow
from digestry.catalog.fleet.run_pages import RunFilter
from digestry.catalog.fleet.scans import RunningImage
from digestry.catalog.fleet.selection import EVERYBODY, ImageFilter
from digestry.model.digest import Digest
from digestry.model.fleet import ClaimReport, FleetReport, ImageReport, RunReport, Started, Stopped
from digestry.model.fleet_answers import FleetState, FleetVerdict
from digestry.model.fleet_events import FLEET_EVENTS, FleetEvent
from tests.catalog.raw import Raw
from tests.catalog.support import pushed

HEARS = Subscription("h", events=frozenset(FLEET_EVENTS))
BEGAN = 1_790_000_000 * clock.SECOND
MINUTE = 60 * clock.SECOND


class Fleet:
    """A catalog with agents that report to it, and a time that goes on when it is told to."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.now = BEGAN
        self.sent: dict[str, int] = {}

    def report(
        self, place: str, *entries: Started | Stopped, images: dict[str, ImageReport] | None = None
    ) -> None:
        sent = self.sent.get(place, 0)
        report = FleetReport(
            agent=Digest.of(place.encode()).encoded[:32],
            place=place,
            version="1",
            interval=60,
            sent_at=clock.to_datetime(self.now),
            first=sent + 1,
            images=images or {},
            entries=entries,
        )
        self.catalog.fleet.record(report, actor="anonymous", came_at=self.now, now=self.now)
        self.sent[place] = sent + len(entries)

    def start(self, place: str, *containers: str, image: str = "bad") -> None:
        described = ImageReport(image, (ClaimReport(Digest.of(image.encode())),))
        self.report(
            place,
            *(
                Started("docker", RunReport(name, "1", "i", clock.to_datetime(self.now)))
                for name in containers
            ),
            images={"i": described},
        )

    def stop(self, place: str, *containers: str, unseen_since: int | None = None) -> None:
        after = None if unseen_since is None else clock.to_datetime(unseen_since)
        self.report(
            place,
            *(Stopped("docker", name, clock.to_datetime(self.now), "", after) for name in containers),
        )

    def judge(
        self,
        *vulnerabilities: str,
        image: str = "bad",
        aliases: tuple[str, ...] = (),
        state: FleetState | None = None,
    ) -> None:
        """Let all images of this name be affected by ``vulnerabilities``, or by none."""
        store = self.catalog.fleet_judgements
        state = state or ("affected" if vulnerabilities else "not_assessed")
        verdict = FleetVerdict(state, vulnerabilities)
        statuses = dict.fromkeys(vulnerabilities + aliases, "affected")
        store.record(
            [
                Judgement(one.number, verdict, statuses, {})
                for one in store.reports(store.every())
                if one.report.reference == image
            ],
            at=self.now,
        )

    def happened(self, *, heard_since: int = BEGAN - 60 * MINUTE) -> dict[str, Any]:
        """Return the data of the events since the last call, by their kinds."""
        found = self.catalog.fleet_events.queue([HEARS], now=self.now, heard_since=heard_since)
        kinds = [event.event for event in found]
        assert len(set(kinds)) == len(kinds)
        return {event.event: json.loads(bytes(event.data)) for event in found}

    def queued(self) -> list[str]:
        """Return the kinds of all events that wait for the webhook."""
        due = self.catalog.delivery_queue.due("h", self.now, limit=1000)
        return [event.event for _, event in due if isinstance(event, FleetEvent)]


@pytest.fixture
def fleet(catalog: Catalog) -> Fleet:
    return Fleet(catalog)


def test_the_first_judgement_of_many_is_one_event(fleet: Fleet) -> None:
    for host in range(3):
        fleet.start(f"h{host}", *(f"c{number}" for number in range(100)))
    fleet.judge("CVE-1", "CVE-2")
    data = fleet.happened()["affected-started"]
    assert (data["containers"], data["images"], data["vulnerabilities"]) == (300, 1, ["CVE-1", "CVE-2"])
    assert len(data["listed"]) == 100
    assert fleet.happened() == {}
    assert fleet.queued() == ["affected-started"]


def test_affected_containers_start_and_the_last_one_stops(fleet: Fleet) -> None:
    fleet.start("h1", "a")
    fleet.start("h1", "other", image="good")
    assert fleet.happened() == {}
    fleet.judge("CVE-1")
    assert [one["container"] for one in fleet.happened()["affected-started"]["listed"]] == ["a"]
    fleet.start("h2", "b")
    (started,) = fleet.happened()["affected-started"]["listed"]
    assert (started["container"], started["place"]) == ("b", "h2")
    fleet.now += MINUTE
    fleet.stop("h1", "a")
    assert fleet.happened() == {}
    fleet.now += MINUTE
    fleet.stop("h2", "b", unseen_since=fleet.now - 30 * clock.SECOND)
    (stopped,) = fleet.happened()["last-affected-stopped"]["listed"]
    assert stopped["vulnerability"] == "CVE-1"
    assert stopped["lastEnd"] == text(fleet.now)
    assert stopped["lastEndAfter"] == text(fleet.now - 30 * clock.SECOND)
    assert fleet.happened() == {}


def test_containers_that_are_committed_after_one_with_a_higher_number(fleet: Fleet, raw: Raw) -> None:
    """Nodes commit runs in another order than that of the numbers that PostgreSQL gives them."""
    fleet.start("h1", "a")
    fleet.judge("CVE-1")
    assert fleet.happened()["affected-started"]["containers"] == 1
    late = [f"late-{number}" for number in range(4)]
    fleet.start("h1", *late[:2], "first", *late[2:], "last")
    raw.edit("UPDATE fleet_runs SET number = -number WHERE container LIKE 'late-%'")
    assert names(fleet.happened()) == ["first", "last"]
    raw.edit("UPDATE fleet_runs SET number = -number WHERE container IN ('late-1', 'late-2')")
    assert names(fleet.happened()) == ["late-1", "late-2"]
    fleet.now += 9 * MINUTE
    raw.edit("UPDATE fleet_runs SET number = -number WHERE container = 'late-0'")
    assert names(fleet.happened()) == ["late-0"]
    fleet.start("h1", "next")
    assert names(fleet.happened()) == ["next"]
    # No transaction lasts for so long.
    fleet.now += 2 * MINUTE
    assert not fleet.happened().get("affected-started")
    raw.edit("UPDATE fleet_runs SET number = -number WHERE container = 'late-3'")
    assert not fleet.happened().get("affected-started")


def names(events: dict[str, Any]) -> list[str]:
    """Return the containers that have started."""
    return [one["container"] for one in events["affected-started"]["listed"]]


def test_a_container_that_ran_between_two_looks_is_told(fleet: Fleet) -> None:
    fleet.start("h1", "a")
    fleet.judge("CVE-1")
    fleet.happened()
    fleet.now += MINUTE
    fleet.stop("h1", "a")
    fleet.happened()
    fleet.now += MINUTE
    fleet.start("h1", "brief")
    fleet.now += clock.SECOND
    fleet.stop("h1", "brief")
    fleet.judge("CVE-1")  # as a node does that has taken over
    found = fleet.happened()
    assert [one["container"] for one in found["affected-started"]["listed"]] == ["brief"]
    assert [one["lastEnd"] for one in found["last-affected-stopped"]["listed"]] == [text(fleet.now)]
    assert fleet.happened() == {}


def test_what_ended_before_its_image_was_judged_is_over(fleet: Fleet) -> None:
    fleet.start("h1", "brief")
    fleet.now += clock.SECOND
    fleet.stop("h1", "brief")
    fleet.happened()
    fleet.judge("CVE-1")
    assert fleet.happened() == {}


def test_an_advisory_that_is_withdrawn_is_no_end(fleet: Fleet) -> None:
    fleet.start("h1", "a")
    fleet.judge("CVE-1", "CVE-2")
    assert fleet.happened().keys() == {"affected-started"}
    fleet.judge("CVE-1")
    assert fleet.happened() == {}
    fleet.judge()
    assert fleet.happened() == {}


def test_a_verdict_that_is_not_known_for_a_while_is_neither_an_end_nor_news(fleet: Fleet) -> None:
    fleet.start("h1", "ended", image="other")
    fleet.start("h1", "a")
    fleet.judge("CVE-1", image="other")
    fleet.judge("CVE-1")
    assert fleet.happened()["affected-started"]["containers"] == 2
    fleet.stop("h1", "ended")
    fleet.judge(state="unknown")  # the advisories cannot be read
    assert fleet.happened() == {}
    fleet.now += 30 * MINUTE
    fleet.report("h1")
    fleet.start("h1", "meanwhile")
    assert fleet.happened() == {}
    fleet.start("h1", "brief")
    fleet.now += clock.SECOND
    fleet.stop("h1", "brief")
    assert fleet.happened() == {}
    fleet.judge("CVE-1")
    assert names(fleet.happened()) == ["meanwhile", "brief"]
    assert fleet.happened() == {}
    fleet.judge(state="unknown")
    assert fleet.happened() == {}
    fleet.now += MINUTE
    fleet.stop("h1", "a", "meanwhile")  # while it is not known
    (stopped,) = fleet.happened()["last-affected-stopped"]["listed"]
    assert (stopped["vulnerability"], stopped["lastEnd"]) == ("CVE-1", text(fleet.now))
    fleet.judge("CVE-1")
    assert fleet.happened() == {}


def test_an_end_is_told_once_the_other_verdicts_are_known(fleet: Fleet) -> None:
    fleet.start("h1", "a")
    fleet.start("h1", "b", image="other")
    fleet.judge("CVE-1")
    fleet.judge("CVE-1", image="other")
    assert fleet.happened()["affected-started"]["containers"] == 2
    fleet.judge(image="other", state="unknown")
    fleet.now += MINUTE
    fleet.stop("h1", "a")
    assert fleet.happened() == {}  # the other one may still be affected
    fleet.judge(image="other", state="not_affected")
    assert fleet.happened() == {}
    fleet.now += MINUTE
    assert fleet.happened()["last-affected-stopped"]["listed"][0]["lastEnd"] == text(fleet.now - MINUTE)


@pytest.mark.parametrize(("seconds", "told"), [(10, False), (61, True)])
def test_an_advisory_that_is_replaced_in_two_steps_is_no_news(fleet: Fleet, seconds: int, told: bool) -> None:
    fleet.start("h1", "a")
    fleet.judge("CVE-1")
    assert fleet.happened().keys() == {"affected-started"}
    fleet.judge()
    assert fleet.happened() == {}
    fleet.now += seconds * clock.SECOND
    assert fleet.happened() == {}
    fleet.judge("CVE-1")
    assert fleet.happened().keys() == ({"affected-started"} if told else set())
    assert fleet.happened() == {}


def test_another_vulnerability_of_what_is_affected_already_is_news(fleet: Fleet) -> None:
    fleet.start("h1", "a")
    fleet.start("h1", "b", image="other")
    fleet.judge("CVE-1")
    fleet.judge("CVE-1", image="other")
    assert fleet.happened()["affected-started"]["containers"] == 2
    fleet.judge("CVE-1", "CVE-2")
    data = fleet.happened()["affected-started"]
    assert (names({"affected-started": data}), data["vulnerabilities"]) == (["a"], ["CVE-2", "CVE-1"])
    assert fleet.happened() == {}
    fleet.judge("CVE-1", "CVE-2", aliases=("GHSA-2",))  # the same by another name
    assert fleet.happened() == {}
    fleet.judge("CVE-1")
    fleet.judge("CVE-1", "CVE-2")
    assert fleet.happened() == {}


def test_an_agent_that_is_silent_is_reported_once_and_its_containers_run(fleet: Fleet) -> None:
    fleet.start("h1", "a")
    fleet.start("h2", "b")
    fleet.judge("CVE-1")
    fleet.happened()
    fleet.now += 5 * MINUTE
    fleet.report("h2")
    # A registry that was away itself does not know who was silent.
    assert fleet.happened(heard_since=fleet.now - MINUTE) == {}
    (silent,) = fleet.happened()["agent-silent"]["listed"]
    assert (silent["place"], silent["last"]) == ("h1", text(BEGAN))
    assert fleet.happened() == {}
    fleet.report("h2")
    fleet.report("h1")
    (heard,) = fleet.happened()["agent-heard"]["listed"]
    assert heard["place"] == "h1"
    assert fleet.happened() == {}
    assert fleet.queued() == ["affected-started", "agent-silent", "agent-heard"]


def text(at: int) -> str:
    """Return a time, in microseconds, as JSON has it."""
    return clock.to_datetime(at).isoformat().replace("+00:00", "Z")


def test_counts(fleet: Fleet) -> None:
    fleet.start("h1", "a", "b")
    fleet.now += MINUTE
    fleet.start("h2", "c", image="good")
    fleet.start("h2", "d", image="new")
    fleet.judge("CVE-1")
    fleet.judge(image="good")
    fleet.report("h2")
    found = fleet.catalog.fleet_counts.count(fleet.now)
    assert found.containers == {"affected": 2, "not_assessed": 1, "unjudged": 1}
    assert found.images == {"affected": 1, "not_assessed": 1, "unjudged": 1}
    assert found.agents == {"reporting": 2}
    assert (found.oldest_affected, found.oldest_unjudged) == (BEGAN, fleet.now)
    fleet.now += 3 * MINUTE
    found = fleet.catalog.fleet_counts.count(fleet.now)
    assert found.agents == {"reporting": 1, "silent": 1}
    fleet.catalog.fleet_counts.store(found, fleet.now)
    fleet.catalog.fleet_counts.store(found, fleet.now)


def test_a_vulnerability_is_not_gone_while_the_verdict_is_not_known(fleet: Fleet) -> None:
    choice = RunFilter(ImageFilter(vulnerability="CVE-1"), ever=True)

    def running() -> int:
        return fleet.catalog.fleet.timeline(choice, EVERYBODY, now=fleet.now).running

    fleet.start("h1", "a")
    fleet.judge("CVE-1")
    assert running() == 1
    fleet.judge(state="unknown")
    assert running() == 1
    fleet.judge("CVE-2", state="unknown")  # what else can be read
    assert running() == 1
    fleet.judge()
    assert running() == 0


def test_what_is_to_be_judged(fleet: Fleet) -> None:
    store = fleet.catalog.fleet_judgements
    fleet.start("h1", "a")
    fleet.start("h1", "b", image="good")
    assert len(store.unjudged(limit=10)) == 2
    fleet.judge("CVE-1")
    (good,) = store.unjudged(limit=10)
    (bad,) = set(store.every()) - {good}
    assert store.touched((), [str(Digest.of(b"bad"))]) == {bad}
    assert store.touched(["library/good"], ()) == {good}
    verdict = FleetVerdict("not_assessed")
    shared = str(Digest.of(b"the same config"))
    store.record([Judgement(one, verdict, {}, {shared: "config"}) for one in (bad, good)], at=fleet.now)
    assert store.of_same_code([bad]) == {bad, good}
    assert store.unjudged(limit=10) == []


def test_statements(catalog: Catalog) -> None:
    store = catalog.fleet_judgements
    rows = [StatementRow(f"CVE-{number}", "x", "s1", "a1", "affected", 1) for number in range(3)]
    store.replace_statements([("x", "s1")], rows)
    store.replace_statements([("x", "s2")], [StatementRow("CVE-1", "x", "s2", "a2", "fixed", 1)])
    assert store.stated_advisories() == {("x", "a1"), ("x", "a2")}
    store.replace_statements([("x", "s1")], [])
    assert store.stated_advisories() == {("x", "a2")}


def test_what_changed(catalog: Catalog) -> None:
    store = catalog.fleet_judgements
    assert store.tag_moves(0).last == 0
    first = pushed(catalog, "x", ["t"])
    catalog.sequencing.run()
    moves = store.tag_moves(0)
    assert moves.repositories == {"x"}
    assert moves.digests == {str(first.digest)}
    assert store.last_move() == moves.last == 1
    assert store.tag_moves(moves.last).repositories == frozenset()
    assert store.referrers(0) == []


def test_scans(fleet: Fleet) -> None:
    manifest = pushed(fleet.catalog, "library/app", ["1"])
    described = ImageReport("app:1", (ClaimReport(manifest.digest),))
    run = RunReport("a", "1", "i", clock.to_datetime(fleet.now))
    fleet.report("h1", Started("docker", run), images={"i": described})
    scans = fleet.catalog.fleet_scans
    assert scans.running() == [RunningImage("library/app", str(manifest.digest))]
    assert scans.times() == {}
    scans.store({str(manifest.digest): 1}, fleet.now)
    scans.store({str(manifest.digest): 2}, fleet.now)
    assert scans.times() == {str(manifest.digest): 2}
    fleet.stop("h1", "a")
    assert scans.running() == []
