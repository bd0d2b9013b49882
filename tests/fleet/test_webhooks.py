"""Webhooks about the fleet: affected containers, and agents that fall silent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.fleet.judgements import Judgement
from digestry.errors import InvalidConfiguration
from digestry.model.digest import Digest
from digestry.model.fleet import ClaimReport, FleetReport, ImageReport, RunReport, Started, Stopped
from digestry.model.fleet_answers import FleetVerdict
from digestry.model.fleet_events import FLEET_EVENTS, FleetEvent
from digestry.registry.config import load
from tests.backends import open_catalog
from tests.cli.test_layer_advisories import push
from tests.fleet.support import SimulatedAgent, moment
from tests.registry.webhook_receiver import SECRET, running_receiver
from tests.support import run_digestry, start_registry, wait_until

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

    def judge(self, *vulnerabilities: str, image: str = "bad") -> None:
        """Let all images of this name be affected by ``vulnerabilities``, or by none."""
        store = self.catalog.fleet_judgements
        state = FleetVerdict("affected" if vulnerabilities else "not_assessed", vulnerabilities)
        statuses = dict.fromkeys(vulnerabilities, "affected")
        store.record(
            [
                Judgement(one.number, state, statuses, {})
                for one in store.reports(store.every())
                if one.report.reference == image
            ],
            at=self.now,
        )

    def happened(self, *, heard_since: int = BEGAN - 60 * MINUTE) -> dict[str, Any]:
        """Return the data of the events since the last call, by their kinds."""
        found = self.catalog.fleet_happenings.queue([HEARS], now=self.now, heard_since=heard_since)
        kinds = [event.event for event in found]
        assert len(set(kinds)) == len(kinds)
        return {event.event: json.loads(bytes(event.data)) for event in found}

    def queued(self) -> list[str]:
        """Return the kinds of all events that wait for the webhook."""
        due = self.catalog.delivery_queue.due("h", self.now, limit=1000)
        return [event.event for _, event in due if isinstance(event, FleetEvent)]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    catalog = open_catalog(tmp_path)
    catalog.migrate()
    yield Fleet(catalog)
    catalog.close()


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


def test_an_advisory_that_is_withdrawn_is_no_end(fleet: Fleet) -> None:
    fleet.start("h1", "a")
    fleet.judge("CVE-1", "CVE-2")
    assert fleet.happened().keys() == {"affected-started"}
    fleet.judge("CVE-1")
    assert fleet.happened() == {}
    fleet.judge()
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


@pytest.mark.parametrize("wanted", ["affected", "agent_silent", 3])
def test_events_that_do_not_exist(tmp_path: Path, wanted: object) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(
        '[[webhook]]\nname = "h"\nurl = "http://127.0.0.1:1/"\nsecret = "0123456789abcdef"\n'
        f"events = [{json.dumps(wanted)}]\n"
    )
    with pytest.raises(InvalidConfiguration):
        load(path, {"root": tmp_path})


@pytest.mark.parametrize("killed", [False, True])
def test_a_message_arrives(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "registry.toml"
    with running_receiver() as receiver:
        path.write_text(
            'hosts = ["127.0.0.1"]\n'
            f'[[webhook]]\nname = "h"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n'
            'events = ["affected-started", "last-affected-stopped"]\n'
        )
        server = start_registry(tmp_path / "root", "--config", str(path))
        try:
            bad = push(server, "team/app", "1", b"bad")
            agent = SimulatedAgent(server, "h1")
            agent.start({"a": f"team/app:1@{bad}"})
            done = run_digestry(
                "advisory", "add", f"{server.host}/team/app:1", "--id", "CVE-1", "--status", "affected",
                "--author", "me", timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            arrive(receiver.taken, 1)
            if killed:
                server.kill()
                server = start_registry(tmp_path / "root", "--config", str(path))
                agent.registry = server
            at = moment(-0.001)
            agent.stop("a", at)
            arrive(receiver.taken, 2)
        finally:
            server.stop()
        # A message may arrive again, with the same ID; each happening has one.
        started, stopped = {message["id"]: message for message in receiver.taken}.values()
        assert started["type"] == "digestry.fleet.affected-started.v1"
        assert (started["source"], started["subject"]) == ("/v2/_digestry/fleet", "h1")
        assert started["data"]["listed"][0]["digest"] == str(bad)
        assert stopped["type"] == "digestry.fleet.last-affected-stopped.v1"
        assert stopped["subject"] == "CVE-1"
        assert stopped["data"]["listed"][0]["lastEnd"] == stopped["data"]["listed"][0]["lastEndAfter"]


def text(at: int) -> str:
    """Return a time, in microseconds, as JSON has it."""
    return clock.to_datetime(at).isoformat().replace("+00:00", "Z")


def arrive(taken: list[dict[str, Any]], count: int) -> None:
    """Wait until so many different messages have come."""
    arrived: Callable[[], bool] = lambda: len({one["id"] for one in taken}) >= count  # noqa: E731
    wait_until(arrived, what=f"the arrival of {count}")
