"""What a worker process's guard has done with its connections, as it counts it."""

from __future__ import annotations

from typing import Final

from digestry.registry.connections.guard import REASONS, Guard
from digestry.registry.observability.counters import Family, Measures

OPEN: Final = "digestry_connections"
MOST: Final = "digestry_connections_limit"
ENDED: Final = Family(
    "digestry_connections_ended",
    "Connections that the registry ended, by what was wrong with them.",
    ("reason",),
)


class ConnectionMeter:
    """Reads the guard's counts."""

    def __init__(self, measures: Measures, guard: Guard) -> None:
        self._measures = measures
        self._guard = guard
        self._ended = measures.counter(ENDED)

    def read(self) -> None:
        """Notes what they have come to."""
        self._measures.gauge(OPEN, self._guard.open)
        self._measures.gauge(MOST, self._guard.total)
        for reason in REASONS:
            self._ended.reached(self._guard.ended[reason], reason)
