"""An agent for the catalog's tests: it reports what a test says, by a clock that may be off."""

from __future__ import annotations

import datetime
from typing import Any

from digestry.catalog import clock as times
from digestry.catalog.catalog import Catalog
from digestry.model.digest import Digest
from digestry.model.fleet import (
    ClaimReport,
    Entry,
    FleetReceipt,
    FleetReport,
    ImageReport,
    RunReport,
    Snapshot,
    SourceReport,
    Started,
    Stopped,
)
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
