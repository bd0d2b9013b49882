"""The metrics of the transparency log: its size, its last checkpoint, and its witnesses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from digestry.catalog.clock import SECOND
from digestry.catalog.job_states import JobState
from digestry.catalog.transparency.reads import LogState

LOG_STATE: Final = "transparency"
"""The name of the row of ``jobs`` that says whether the log is signed."""
WITNESS_STATE: Final = "transparency_witnesses"
"""The name of the row of ``jobs`` that has the witnesses' failures."""


def log_metrics(
    state: LogState | None, jobs: Sequence[JobState], witnesses: Sequence[str], cosigned: Sequence[int]
) -> Iterator[Metric]:
    """Yield the metrics of the log; none if it was never begun.

    ``cosigned`` are the entries that each of ``witnesses`` has cosigned. All nodes show the same: a query
    over several takes the ``max``, and not the sum.
    """
    if state is None:
        return
    known = {job.name: job.state for job in jobs}
    yield _gauge("digestry_log_entries", "Entries of the journal that are in the signed log.", state.size)
    yield _gauge("digestry_log_unsigned_entries", "Entries of the journal that are not.", state.unsigned)
    signed_at = 0 if state.last is None else state.last.signed_at
    yield _gauge(
        "digestry_log_checkpoint_timestamp_seconds", "When the log was signed last.", signed_at / SECOND
    )
    refused = bool(known.get(LOG_STATE, {}).get("refused"))
    yield _gauge(
        "digestry_log_refused",
        "1 if the log is not signed: the catalog is not the one that was signed before, or is damaged.",
        int(refused),
    )
    changed = int(known.get(LOG_STATE, {}).get("changed", -1))
    yield _gauge(
        "digestry_log_changed", "1 if an entry of the journal is not what was signed.", int(changed >= 0)
    )
    failures = CounterMetricFamily(
        "digestry_log_witness_failures", "Requests to a witness that failed.", labels=("witness",)
    )
    refuses = GaugeMetricFamily(
        "digestry_log_witness_refuses",
        "1 if a witness has cosigned another history of the log.",
        labels=("witness",),
    )
    entries = GaugeMetricFamily(
        "digestry_log_witness_entries", "Entries of the log that a witness has cosigned.", labels=("witness",)
    )
    told = known.get(WITNESS_STATE, {})
    for witness, size in zip(witnesses, cosigned, strict=True):
        row = told.get(witness, {})
        failures.add_metric((witness,), row.get("failures", 0))
        refuses.add_metric((witness,), row.get("refused", 0))
        entries.add_metric((witness,), size)
    if witnesses:
        yield from (failures, refuses, entries)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
