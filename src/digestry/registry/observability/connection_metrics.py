"""Metrics of the connections that a worker's guard has closed."""

from __future__ import annotations

from typing import Final

from digestry.registry.connections.guard import REASONS, ConnectionGuard
from digestry.registry.observability.counters import Family, ProcessMetrics

OPEN: Final = "digestry_connections"
MOST: Final = "digestry_connections_limit"
ENDED: Final = Family(
    "digestry_connections_ended",
    "Connections that the registry ended, by what was wrong with them.",
    ("reason",),
)


class ConnectionMeter:
    """Copies the guard's counts to the process's counters."""

    def __init__(self, metrics: ProcessMetrics, guard: ConnectionGuard) -> None:
        self._measures = metrics
        self._guard = guard
        self._ended = metrics.counter(ENDED)

    def read(self) -> None:
        """Copy the present counts."""
        self._measures.gauge(OPEN, self._guard.open)
        self._measures.gauge(MOST, self._guard.total)
        for reason in REASONS:
            self._ended.reached(self._guard.ended[reason], reason)
