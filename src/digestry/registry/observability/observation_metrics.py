"""The metrics of the observer: the counts that the one process which observes left for all nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from digestry.catalog.clock import SECOND
from digestry.catalog.job_states import JobState
from digestry.model.json_types import prepared

NAME: Final = "observation_counts"
"""The name of the row of ``jobs`` with the counts."""

_EVENTS: Final = ("created", "moved", "deleted")


class ObservationCounts(msgspec.Struct, frozen=True):
    """Observations that were answered and that failed; repositories and tags that are observed; moves, by
    kind; and for how many microseconds the tag is overdue that is overdue for the longest."""

    answered: int = 0
    failed: int = 0
    repositories: int = 0
    tags: int = 0
    lag: int = 0
    moves: dict[str, int] = {}


def observation_metrics(states: Sequence[JobState]) -> Iterator[Metric]:
    """Yield the metrics of the counts among ``states``; none if nothing was ever observed.

    All nodes show the same counts: a query over several takes the ``max``, and not the sum.
    """
    for job in states:
        if job.name == NAME:
            try:
                counts = msgspec.convert(job.state, prepared(ObservationCounts))
            except msgspec.ValidationError:
                return
            yield from _metrics(counts, job.started_at)


def _metrics(counts: ObservationCounts, at: int) -> Iterator[Metric]:
    checks = CounterMetricFamily(
        "digestry_observed_checks",
        "Observations of other registries' tags that were answered, or failed.",
        labels=("outcome",),
    )
    checks.add_metric(("answered",), counts.answered)
    checks.add_metric(("failed",), counts.failed)
    yield checks
    moves = CounterMetricFamily(
        "digestry_observed_moves", "Moves of tags that were observed in other registries.", labels=("event",)
    )
    for event in _EVENTS:
        moves.add_metric((event,), counts.moves.get(event, 0))
    yield moves
    yield _gauge(
        "digestry_observed_repositories",
        "Repositories of other registries that are observed.",
        counts.repositories,
    )
    yield _gauge("digestry_observed_tags", "Tags of other registries that are observed.", counts.tags)
    yield _gauge(
        "digestry_observed_lag_seconds",
        "For how long the tag has been due that is due for the longest.",
        counts.lag / SECOND,
    )
    yield _gauge("digestry_observed_counted_timestamp_seconds", "When this was counted.", at / SECOND)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
