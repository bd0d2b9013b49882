"""Metrics of a worker's requests to upstream registries."""

from __future__ import annotations

from typing import Final

from digestry.registry.observability.counters import Family, ProcessMetrics
from digestry.registry.pull_through.mirrors import Mirrors

ANSWERS: Final = Family(
    "digestry_mirror_answers",
    "Answers from what was here (hit), that upstream was asked for (miss), or that may be out of date"
    " because it could not be asked (stale).",
    ("upstream", "from"),
)
FETCHED: Final = Family("digestry_mirror_fetched_bytes", "Bytes that upstream sent.", ("upstream",))
ERRORS: Final = Family(
    "digestry_mirror_errors", "Questions that upstream did not answer, or not as it should.", ("upstream",)
)


class UpstreamMeter:
    """Copies the mirrors' counts to the process's counters."""

    def __init__(self, metrics: ProcessMetrics, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        self._answers = metrics.counter(ANSWERS)
        self._fetched = metrics.counter(FETCHED)
        self._errors = metrics.counter(ERRORS)

    def read(self) -> None:
        """Copy the present counts."""
        for mirror in self._mirrors.all:
            host, counts = mirror.config.host, mirror.counts
            self._answers.reached(counts.hits, host, "hit")
            self._answers.reached(counts.misses, host, "miss")
            self._answers.reached(counts.stale, host, "stale")
            self._fetched.reached(counts.fetched_bytes, host)
            self._errors.reached(counts.errors, host)
