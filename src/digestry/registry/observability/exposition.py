"""The response to a Prometheus scrape: the sums over all processes, and the present state of the store."""

from __future__ import annotations

import asyncio
import logging
import platform
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics

from digestry import fsio
from digestry.catalog.catalog import Catalog
from digestry.catalog.clock import SECOND
from digestry.catalog.job_states import COLLECTION, SCRUB, JobState
from digestry.coordination.protocol import Coordination
from digestry.errors import StorageError
from digestry.model.json_types import prepared
from digestry.registry import scrub
from digestry.registry.config import RegistryConfig
from digestry.registry.observability import connection_metrics, metrics_files, process_metrics, store_size
from digestry.registry.observability.counters import (
    CPU,
    RECEIVED,
    REQUEST_SECONDS,
    REQUESTS,
    SENT,
    Family,
    ProcessMetrics,
    added,
)
from digestry.registry.observability.fleet_metrics import fleet_metrics
from digestry.registry.observability.log_metrics import LOG_STATE, WITNESS_STATE, log_metrics
from digestry.registry.observability.metrics_files import FOLDER, Labels
from digestry.registry.observability.observation_metrics import observation_metrics

log: Final = logging.getLogger("digestry.registry")

__all__ = ["FOLDER", "Scrape", "ServerStart", "record_server_start"]

BEGUN: Final = "begun.json"
_OPENMETRICS: Final = "application/openmetrics-text"
_EVENTS: Final = ("created", "moved", "deleted")
_RISING: Final = {
    COLLECTION: frozenset(
        ("tags", "manifests", "links", "blobs", "bytes", "stayed", "runs", "failures", "refused")
    ),
    SCRUB: frozenset(("passes",)),
}
"""The counts of a job over all its runs; the others are of the last run, finished or not."""

_OF_OTHERS: Final = ("fleet_", "observation_", LOG_STATE, WITNESS_STATE)
"""The beginnings of names of rows that have metrics of their own."""
_GAUGES: Final = {
    process_metrics.MEMORY: "Resident memory of all processes of a kind.",
    process_metrics.FILES: "Open files of all processes of a kind.",
    process_metrics.PROCESSES: "Processes of a kind that run.",
    connection_metrics.OPEN: "Connections that clients have open.",
    connection_metrics.MOST: "Connections that clients may have open.",
    f"{store_size.PREFIX}repositories": "Repositories.",
    f"{store_size.PREFIX}tags": "Tags.",
    f"{store_size.PREFIX}manifests": "Manifests that can be pulled, in each repository.",
    f"{store_size.PREFIX}blobs": "Blobs that a repository has, each once.",
    f"{store_size.PREFIX}bytes": "Bytes of those blobs.",
    f"{store_size.PREFIX}linked_bytes": "Bytes of blobs, in each repository that has them.",
    f"{store_size.PREFIX}journal_entries": "Entries of the journal.",
}


class ServerStart(msgspec.Struct):
    """The state when the server started: the time (microseconds), and the journal's last entry."""

    at: int
    entry: int


def record_server_start(scratch: Path, begun: ServerStart) -> None:
    """Store the state at the server's start, in the folder that processes publish their metrics in.

    The folder is emptied first. Raises OSError.
    """
    metrics_files.prepare(scratch)
    (scratch / FOLDER / BEGUN).write_bytes(msgspec.json.encode(begun))


class _Moves:
    """Counts the tag events since the server started, from the journal."""

    def __init__(self) -> None:
        self._after: int | None = None
        self._counts: dict[str, int] = defaultdict(int)

    def count(self, scratch: Path, catalog: Catalog) -> dict[str, int]:
        """Count the events since the last call. Blocks; for one thread at a time."""
        if self._after is None:
            self._after = _begun(scratch).entry
        self._after, new = catalog.statistics.moves(self._after)
        for event, count in new.items():
            self._counts[event] += count
        return {event: self._counts[event] for event in _EVENTS}


def _begun(scratch: Path) -> ServerStart:
    try:
        return msgspec.json.decode(fsio.read_file(scratch / FOLDER / BEGUN), type=prepared(ServerStart))
    except (OSError, ValueError, RecursionError):
        return ServerStart(0, 0)


class Scrape:
    """Collects all metrics, as a collector of prometheus_client's. Blocks. One at a time, by ``turn``."""

    def __init__(
        self,
        config: RegistryConfig,
        catalog: Catalog,
        coordination: Coordination,
        disk: Path | None,
        metrics: ProcessMetrics,
    ) -> None:
        """``disk`` is a directory on the file system that the registry fills, if it fills one."""
        self._disk = disk
        self._config = config
        self._catalog = catalog
        self._coordination = coordination
        self._measures = metrics
        self._moves = _Moves()
        self.turn = asyncio.Lock()

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return the answer's body and media type: OpenMetrics if requested, else the older text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        if _OPENMETRICS in accept:
            body: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
            return body, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def describe(self) -> list[Metric]:
        """Describe nothing: names do not clash, and to describe the metrics would take a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield InfoMetricFamily(
            "digestry_build",
            "What runs.",
            {
                "version": version("digestry"),
                "python": platform.python_version(),
                "server": f"granian {version('granian')}",
            },
        )
        scratch = self._config.scratch
        yield _gauge("process_start_time_seconds", "When the server started.", _begun(scratch).at / SECOND)
        yield from self._counted()
        # Files that cannot be read are left out.
        for part in (self._in_catalog, self._on_nodes, self._on_disk):
            try:
                yield from list(part())
            except (OSError, StorageError) as error:
                log.error("some metrics are missing: %s", error)

    def _counted(self) -> Iterator[Metric]:
        series: dict[str, dict[Labels, list[float]]] = defaultdict(dict)
        gauges: dict[str, dict[Labels, float]] = defaultdict(dict)
        for lives, snapshot in metrics_files.read_all(self._config.scratch):
            for name, rows in snapshot.series.items():
                for labels, cell in rows:
                    series[name][labels] = added(series[name].get(labels), cell)
            for name, values in snapshot.gauges.items() if lives else ():
                for labels, value in values:
                    gauges[name][labels] = gauges[name].get(labels, 0) + value
        counted = [REQUESTS, REQUEST_SECONDS, RECEIVED, SENT, CPU]
        for family in dict.fromkeys([*counted, *self._measures.families]):
            yield _family(family, series[family.name])
        for name, text in _GAUGES.items():
            kinds = (
                ("process",)
                if name in {process_metrics.MEMORY, process_metrics.FILES, process_metrics.PROCESSES}
                else ()
            )
            gauge = GaugeMetricFamily(name, text, labels=kinds)
            for labels, value in sorted(gauges[name].items()):
                gauge.add_metric(labels, value)
            yield gauge

    def _in_catalog(self) -> Iterator[Metric]:
        moves = CounterMetricFamily(
            "digestry_tag_events", "Tags created, moved, deleted, by whomever.", labels=("event",)
        )
        for event, count in self._moves.count(self._config.scratch, self._catalog).items():
            moves.add_metric((event,), count)
        yield moves
        present = self._catalog.statistics.present()
        yield _gauge("digestry_uploads", "Uploads under way.", present.uploads)
        yield _gauge(
            "digestry_quarantined_blobs", "Content that is damaged, and not served.", present.quarantined
        )
        deliveries = GaugeMetricFamily(
            "digestry_webhook_deliveries",
            "Events that a webhook has not taken: they wait, or are dead (given up).",
            labels=("webhook", "state"),
        )
        known = {webhook.name for webhook in self._config.webhooks}
        for name in sorted(known | {webhook for webhook, _ in present.deliveries}):
            for dead in (False, True):
                count = present.deliveries.get((name, dead), 0)
                deliveries.add_metric((name, "dead" if dead else "waiting"), count)
        yield deliveries
        yield from _jobs(job for job in present.jobs if not job.name.startswith(_OF_OTHERS))
        yield from fleet_metrics(present.jobs)
        yield from observation_metrics(present.jobs)
        if self._config.transparency.enabled:
            yield from self._log(present.jobs)
        last = scrub.last(self._catalog)
        done = 0.0 if last is None else last.done
        yield _gauge("digestry_scrub_done", "How much of its last pass is behind, from 0 to 1.", done)

    def _log(self, jobs: Sequence[JobState]) -> Iterator[Metric]:
        state = self._catalog.log.state()
        if state is not None:
            names = [witness.name for witness in self._config.transparency.witnesses]
            cosigned = [self._catalog.log.last_cosigned(state.origin, name) for name in names]
            yield from log_metrics(state, jobs, names, cosigned)

    def _on_nodes(self) -> Iterator[Metric]:
        """Yield which node does which job, where there are several; each says it of all."""
        holders = self._coordination.holders()
        if holders:
            nodes = GaugeMetricFamily(
                "digestry_job_node", "The node that has the lock of a job: always 1.", labels=("job", "node")
            )
            for job, node in sorted(holders.items()):
                nodes.add_metric((job, node), 1)
            yield nodes

    def _on_disk(self) -> Iterator[Metric]:
        yield _gauge("digestry_catalog_bytes", "The catalog's files.", self._catalog.size())
        if self._disk is None:
            return
        usage = shutil.disk_usage(self._disk)
        yield _gauge("digestry_disk_free_bytes", "Free on the file system of the root.", usage.free)
        yield _gauge("digestry_disk_size_bytes", "All of that file system.", usage.total)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _family(family: Family, rows: dict[Labels, list[float]]) -> Metric:
    if not family.bounds:
        counter = CounterMetricFamily(family.name, family.help, labels=family.labels)
        if not rows and not family.labels:
            rows = {(): [0.0]}  # a rate needs a beginning
        for labels, cell in sorted(rows.items()):
            counter.add_metric(labels, cell[0])
        return counter
    histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    names = [*(str(float(bound)) for bound in family.bounds), "+Inf"]
    for labels, (total, *counts) in sorted(rows.items()):
        histogram.add_metric(labels, list(zip(names, _running(counts), strict=True)), total)
    return histogram


def _running(counts: Iterable[float]) -> Iterator[float]:
    total = 0.0
    for count in counts:
        total += count
        yield total


def _jobs(states: Iterable[JobState]) -> Iterator[Metric]:
    """Yield the metrics of the registry's own jobs: every number of their reports."""
    started = GaugeMetricFamily("digestry_job_started_seconds", "When it began last.", labels=("job",))
    finished = GaugeMetricFamily(
        "digestry_job_finished_seconds",
        "When it ended last, well; 0 while it runs, or if it was broken off.",
        labels=("job",),
    )
    own: list[Metric] = []
    for job in states:
        started.add_metric((job.name,), job.started_at / SECOND)
        finished.add_metric((job.name,), (job.finished_at or 0) / SECOND)
        for key, value in sorted(job.state.items()):
            if _is_number(value):
                name = f"digestry_{job.name}_{key}"
                rises = key in _RISING.get(job.name, ())
                text = f"{key}, as the {job.name} has it: of {'all its runs' if rises else 'its last run'}."
                kind = CounterMetricFamily if rises else GaugeMetricFamily
                own.append(kind(name, text, value=value))
    yield from (started, finished, *own)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
