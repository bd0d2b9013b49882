"""The metrics of the fleet: the counts that one process made for all nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from digestry.catalog.clock import SECOND
from digestry.catalog.fleet.counts import NAME, Counts, of_job
from digestry.catalog.job_states import JobState

_STATES: Final = ("affected", "unknown", "not_assessed", "fixed", "not_affected", "unjudged")
_AGENTS: Final = ("reporting", "silent", "stopped")


def fleet_metrics(states: Sequence[JobState]) -> Iterator[Metric]:
    """Yield the metrics of the counts among ``states``; none if nothing was counted yet.

    All nodes show the same counts: a query over several takes the ``max``, and not the sum.
    """
    for job in states:
        counts = of_job(job) if job.name == NAME else None
        if counts is not None:
            yield from _metrics(counts, job.started_at)


def _metrics(counts: Counts, at: int) -> Iterator[Metric]:
    yield _by_state(
        "digestry_fleet_containers",
        "Containers that run, by the audit's state of their images.",
        _STATES,
        counts.containers,
    )
    yield _by_state(
        "digestry_fleet_images", "Images that run or ran, by the audit's state.", _STATES, counts.images
    )
    yield _by_state(
        "digestry_fleet_agents", "Agents that report, are silent, or have stopped.", _AGENTS, counts.agents
    )
    yield _gauge(
        "digestry_fleet_silent_containers",
        "Containers in places that are silent: nobody knows whether they still run.",
        counts.silent_containers,
    )
    if counts.oldest_affected is not None:
        yield _gauge(
            "digestry_fleet_oldest_affected_timestamp_seconds",
            "When the oldest affected container started; absent if none is affected.",
            counts.oldest_affected / SECOND,
        )
    lag = 0 if counts.oldest_unjudged is None else max(0, at - counts.oldest_unjudged)
    yield _gauge(
        "digestry_fleet_judging_lag_seconds",
        "How long the oldest image without a verdict had been waiting for one when it was counted.",
        lag / SECOND,
    )
    yield _gauge("digestry_fleet_counted_timestamp_seconds", "When the fleet was counted.", at / SECOND)


def _by_state(name: str, text: str, states: Sequence[str], counts: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("state",))
    for state in states:
        family.add_metric((state,), counts.get(state, 0))
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
