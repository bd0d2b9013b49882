"""The request observer of a worker process: counts requests, and writes the logs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from digestry.catalog.database import Outcome
from digestry.registry.batches import Batches
from digestry.registry.config import RegistryConfig
from digestry.registry.exchange import Exchange
from digestry.registry.observability import audit_events, process_metrics
from digestry.registry.observability.audit_log import AuditLog, AuditMeter, LogEntry
from digestry.registry.observability.counters import (
    CLIENT_CLOSED_REQUEST,
    SECONDS,
    ProcessMetrics,
    size_class,
)
from digestry.registry.observability.logs import note_request
from digestry.registry.observability.metrics_files import Slot
from digestry.registry.observability.refusals import REFUSED, Refusals, reason_of
from digestry.registry.observability.request_id import RequestIds
from digestry.registry.waiting_call import WaitingCall, answer_all

log: Final = logging.getLogger("digestry.registry")

_PUBLISH_SECONDS: Final = 1.0
_PROCESS_SECONDS: Final = 15.0
_WITH_CONTENT: Final = frozenset((200, 206))
_FROM: Final = {"all": 0, "errors": 400, "none": 1000}
_EVERYDAY: Final = frozenset((401, 404))
"""How clients ask whether they must log in, and whether something is there: no errors of theirs."""


class _Lines(NamedTuple):
    """Lines of a request for the audit log, and the call that it waits for."""

    audit: AuditLog
    entries: Sequence[LogEntry]
    call: WaitingCall


def _nothing() -> None:
    """Do nothing: the lines are written with those of other requests."""


class Observer:
    """The observer of one worker process. All but the audit log runs on the event loop's thread."""

    def __init__(self, config: RegistryConfig) -> None:
        self.name = RequestIds().of
        self._slot = self._claim(config)
        self.metrics = ProcessMetrics(None if self._slot is None else self._slot.inherited)
        self.audit = AuditLog(config.log, config.scratch)
        self._strangers = AuditLog(config.log.for_anonymous_refusals(config.scratch), config.scratch)
        self._refusals = Refusals()
        self.answered = 0
        """So many requests have ended."""
        self._noted_from = _FROM[config.log.requests]
        self._noted_all = config.log.requests == "all"
        self._meters = [
            process_metrics.ProcessMeter(self.metrics, "worker").read,
            AuditMeter(self.metrics, self.audit, self._strangers).read,
        ]
        self._refused = self.metrics.counter(REFUSED)
        self._failed = False
        self._turn = asyncio.Lock()
        # A thread of its own: a line must not wait for transfers, nor change places with another.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="observer")
        self._lines = Batches(self._write_lines, self._writer)

    def _claim(self, config: RegistryConfig) -> Slot | None:
        try:
            return Slot(config.scratch, "worker") if config.metrics.enabled else None
        except OSError as error:
            log.error("this process is not in the metrics: %s", error.strerror or error)
            return None

    def ended(self, exchange: Exchange, seconds: float) -> None:
        """Count a request that has ended."""
        self.answered += 1
        status = exchange.status or CLIENT_CLOSED_REQUEST
        tally = self.metrics.tally((exchange.route.metric, exchange.scope["method"], status))
        tally.buckets[bisect_left(SECONDS, seconds)] += 1
        tally.seconds += seconds
        tally.sent += exchange.sent
        tally.received += exchange.received
        if status >= 400 and (reason := reason_of(exchange, status)) is not None:
            self.refused(reason)
        if exchange.route.metric == "blob" and exchange.sent == exchange.length and status in _WITH_CONTENT:
            self.metrics.pull_seconds.observe(seconds, size_class(exchange.sent))
        if status >= self._noted_from and (self._noted_all or status not in _EVERYDAY):
            note_request(exchange, status, seconds)

    def refused(self, reason: str) -> None:
        """Count a refusal by its reason, one or two words that are not the client's. Thread-safe."""
        self._refused.add(reason)
        self.metrics.changed = True

    def uploaded(self, size: int, seconds: float) -> None:
        """Count an upload of ``size`` bytes that was stored."""
        self.metrics.upload_seconds.observe(seconds, size_class(size))

    def lines(self, exchange: Exchange, status: int) -> Sequence[LogEntry]:
        """Return the audit lines of a write that succeeded, before it is answered with ``status``, for who
        writes them. In any thread, while the request waits."""
        if not self.audit.enabled or not audit_events.is_write(exchange, status):
            return ()
        exchange.audited = True
        return audit_events.of_request(exchange, status)

    async def note_write(self, exchange: Exchange, status: int) -> None:
        """Write the audit lines of a request that is about to be answered, or never will be."""
        if not self.audit.enabled or not audit_events.is_write(exchange, status):
            return
        if exchange.audited and (status < 400 or status == CLIENT_CLOSED_REQUEST):
            return
        audit = self.audit
        if status >= 400:
            if not self._refusals.admits(exchange, audit_events.action_of(exchange), status):
                return
            if exchange.principal.identity.anonymous:
                audit = self._strangers
        lines = _Lines(audit, audit_events.of_request(exchange, status), WaitingCall(_nothing))
        self._lines.add([lines])
        await lines.call.future

    def _write_lines(self, batch: Sequence[_Lines]) -> None:
        """Write what requests wait for with, in most cases, one system call for all of them."""
        for audit, lines in itertools.groupby(batch, key=lambda line: line.audit):
            audit.write([entry for line in lines for entry in line.entries])
        answer_all((lines.call, Outcome()) for lines in batch)

    def _write_summaries(self, of_users: Sequence[LogEntry], of_strangers: Sequence[LogEntry]) -> None:
        for audit, entries in (self.audit, of_users), (self._strangers, of_strangers):
            if entries:
                audit.write(entries)

    def note(self, entries: Sequence[LogEntry]) -> None:
        """Write audit lines that belong to no request. Blocks."""
        if entries and self.audit.enabled:
            self.audit.write(entries)

    def watch(self, read: Callable[[], None]) -> None:
        """Call ``read`` before each publishing, to copy counts from elsewhere."""
        self._meters.append(read)

    # -- for the other processes ---------------------------------------------------------------

    async def publish(self) -> None:
        """Publish this process's metrics to the other processes."""
        if self._slot is None:
            return
        async with self._turn:
            for read in self._meters:
                read()
            snapshot = self.metrics.snapshot()
            try:
                await asyncio.get_running_loop().run_in_executor(self._writer, self._slot.write, snapshot)
                self._failed = False
            except OSError as error:
                if not self._failed:
                    log.error("metrics cannot be written: %s", error.strerror or error)
                self._failed = True

    async def publish_forever(self) -> None:
        """Publish the metrics every second, if they changed."""
        idle = 0.0
        while True:
            summaries = self._refusals.summaries()
            if any(summaries):
                await asyncio.get_running_loop().run_in_executor(
                    self._writer, self._write_summaries, *summaries
                )
            if self.metrics.changed or idle >= _PROCESS_SECONDS:
                idle = 0.0
                await self.publish()
            await asyncio.sleep(_PUBLISH_SECONDS)
            idle += _PUBLISH_SECONDS

    def close(self) -> None:
        """Publish the metrics a last time. Blocks."""
        self._writer.shutdown(wait=True)
        self._write_summaries(*self._refusals.summaries(last=True))
        if self._slot is not None:
            with contextlib.suppress(OSError):
                self._slot.write(self.metrics.snapshot())
            self._slot.close()
        self.audit.close()
        self._strangers.close()
