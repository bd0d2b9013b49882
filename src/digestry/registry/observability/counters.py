"""Counters and histograms of one process. Counting a request costs well under a microsecond.

Not prometheus_client's own counters: in its mode for several processes each increment takes a lock and
writes to a mapped file, five times for each request (docs/observability.md has the figures). Here they
are plain numbers of the event loop's thread, which :mod:`.metrics_files` publishes every second.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from digestry.registry.observability.metrics_files import Labels, MetricsSnapshot

OTHER: Final = "other"
CLIENT_CLOSED_REQUEST: Final = 499
"""The status that metrics and logs have for a request whose client left before an answer."""
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""The upper bounds of a histogram's buckets."""

CLASSES: Final = ((64 << 10, "64KiB"), (1 << 20, "1MiB"), (16 << 20, "16MiB"), (256 << 20, "256MiB"))
"""Sizes of blobs, each up to so many bytes; larger ones are :data:`LARGEST`."""
LARGEST: Final = "more"


def size_class(size: int) -> str:
    """Return the label of a blob of ``size`` bytes."""
    for most, name in CLASSES:
        if size <= most:
            return name
    return LARGEST


@dataclass(frozen=True, slots=True)
class Family:
    """The metrics of one name: a counter or, with ``bounds``, a histogram."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


REQUESTS: Final = Family(
    "digestry_requests", "Requests that ended, by status.", ("route", "method", "status")
)
REQUEST_SECONDS: Final = Family(
    "digestry_request_seconds",
    "From a request's headers to the end of its answer.",
    ("route", "method"),
    SECONDS,
)
RECEIVED: Final = Family("digestry_received_bytes", "Bytes of requests' bodies.", ("route",))
SENT: Final = Family("digestry_sent_bytes", "Bytes of answers' bodies.", ("route",))
UPLOAD_SECONDS: Final = Family(
    "digestry_upload_seconds",
    "From the begin of a blob's upload to its 201, by the blob's size.",
    ("size",),
    SECONDS,
)
PULL_SECONDS: Final = Family(
    "digestry_pull_seconds", "Blobs sent to their end, by the size of what was asked for.", ("size",), SECONDS
)
CPU: Final = Family("process_cpu_seconds", "Processor time of all processes of a kind.", ("process",))


class Counter:
    """A counter of one family or, with bounds, a histogram. Thread-safe."""

    def __init__(self, family: Family, inherited: Sequence[tuple[Labels, list[float]]] = ()) -> None:
        self.family = family
        self._cells = {tuple(labels): list(cell) for labels, cell in inherited}
        self._reached: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: float = 1) -> None:
        """Add ``by`` to the count."""
        with self._lock:
            self._cells.setdefault(labels, [0.0])[0] += by

    def reached(self, count: float, *labels: str) -> None:
        """Set a counter that is counted elsewhere in this process to ``count``."""
        self.add(*labels, by=count - self._reached.get(labels, 0))
        self._reached[labels] = count

    def observe(self, value: float, *labels: str) -> None:
        """Count one observation of that value."""
        bounds = self.family.bounds
        with self._lock:
            cell = self._cells.get(labels)
            if cell is None:
                cell = self._cells[labels] = [0.0] * (len(bounds) + 2)
            cell[0] += value
            cell[1 + bisect_left(bounds, value)] += 1

    def cells(self) -> list[tuple[Labels, list[float]]]:
        """Return a copy of all cells."""
        with self._lock:
            return [(labels, list(cell)) for labels, cell in self._cells.items()]


class RequestCounts:
    """The counts of requests of one route, method and status; ``buckets`` by their duration."""

    __slots__ = ("buckets", "received", "seconds", "sent")

    def __init__(self) -> None:
        self.received = self.sent = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(SECONDS) + 1)


class ProcessMetrics:
    """All metrics of one process, continued from those of the process that it replaces."""

    def __init__(self, inherited: MetricsSnapshot | None = None) -> None:
        self._inherited = inherited or MetricsSnapshot()
        self._tallies: dict[tuple[str, str, int], RequestCounts] = {}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[tuple[str, Labels], float] = {}
        self.changed = True
        self.upload_seconds = self.counter(UPLOAD_SECONDS)
        self.pull_seconds = self.counter(PULL_SECONDS)

    def counter(self, family: Family) -> Counter:
        """Return the counter of that family, always the same one."""
        found = self._counters.get(family.name)
        if found is None:
            found = Counter(family, self._inherited.series.get(family.name, ()))
            self._counters[family.name] = found
        return found

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a number that may fall."""
        self._gauges[name, labels] = value

    @property
    def families(self) -> list[Family]:
        """Return the families that :meth:`counter` was called with."""
        return [counter.family for counter in self._counters.values()]

    def tally(self, key: tuple[str, str, int]) -> RequestCounts:
        """Return the tally of a route, method and status. Runs on the event loop."""
        self.changed = True
        found = self._tallies.get(key)
        if found is None:
            route, method, status = key
            key = route, method if method in METHODS else OTHER, status
            found = self._tallies.setdefault(key, RequestCounts())
        return found

    def snapshot(self) -> MetricsSnapshot:
        """Return a copy of all metrics, with the inherited ones. Runs on the event loop."""
        self.changed = False
        series = {name: dict(rows) for name, rows in self._inherited.series.items()}
        for counter in self._counters.values():
            series[counter.family.name] = dict(counter.cells())  # it began with the inherited counts
        for (route, method, status), tally in self._tallies.items():
            cells: tuple[tuple[Family, Labels, list[float]], ...] = (
                (REQUESTS, (route, method, str(status)), [sum(tally.buckets)]),
                (REQUEST_SECONDS, (route, method), [tally.seconds, *tally.buckets]),
                (RECEIVED, (route,), [tally.received]),
                (SENT, (route,), [tally.sent]),
            )
            for family, labels, cell in cells:
                rows = series.setdefault(family.name, {})
                rows[labels] = added(rows.get(labels), cell)
        gauges: dict[str, list[tuple[Labels, float]]] = {}
        for (name, labels), value in self._gauges.items():
            gauges.setdefault(name, []).append((labels, value))
        return MetricsSnapshot({name: list(rows.items()) for name, rows in series.items()}, gauges)


def added(total: Sequence[float] | None, other: Sequence[float]) -> list[float]:
    """Return the sum of two cells of one series."""
    if total is None or len(total) != len(other):
        return list(other)
    return [a + b for a, b in zip(total, other, strict=True)]
