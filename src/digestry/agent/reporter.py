"""The sending of reports to the registry: batches, pauses after failures, receipts."""

from __future__ import annotations

import datetime
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from digestry.agent.buffer import Batch, EntryBuffer
from digestry.agent.gaps import gaps_for
from digestry.agent.registry_clock import RegistryClock
from digestry.client.fleet_reports import FleetIntake, ReportRefusal
from digestry.errors import DigestryError, InvalidConfiguration
from digestry.fsio import read_file
from digestry.model.descriptor import encode_hook
from digestry.model.fleet import MOST_ENTRIES, AgentId, FleetReceipt, PlaceName, SourceReport
from digestry.version import __version__

log: Final = logging.getLogger("digestry.agent")

LARGEST: Final = 512 << 10
"""Bytes of entries and images in one report."""

_SHORTEST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_LONGEST_ASKED: Final = 900.0
_NOT_ALLOWED: Final = frozenset({401, 403, 404, 405})
_TOO_LARGE: Final = 413
_MALFORMED: Final = frozenset({400, 422})
_LONGEST_TOKEN: Final = 4096
_MOST_QUESTIONS: Final = 3
_BETWEEN_GAPS: Final = 60.0
"""Seconds. What the buffer drops within them is one gap, if entries wait all the time."""


class _Report(msgspec.Struct, rename="camel", omit_defaults=True):
    """A :class:`~digestry.model.fleet.FleetReport` whose entries are encoded already."""

    agent: AgentId
    place: PlaceName
    version: str
    interval: int
    sent_at: datetime.datetime
    first: int = 1
    images: dict[str, msgspec.Raw] = {}
    entries: list[msgspec.Raw] = []
    sources: tuple[SourceReport, ...] = ()
    stopping: bool = False
    behind: int = 0
    ahead: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one report. ``pause``: seconds before the next one, None if it was taken.

    ``more``: entries wait that may be sent at once. ``resynchronize``: all that runs must be reported again.
    """

    pause: float | None = None
    more: bool = False
    resynchronize: bool = False


class Reporter:
    """Sends the entries of ``buffer`` to ``intake``, for ``place``, with the token in ``token_file``.

    ``sources`` returns the state of the sources; ``interval`` is the most seconds between two reports.
    """

    def __init__(
        self,
        intake: FleetIntake,
        buffer: EntryBuffer,
        *,
        place: str,
        token_file: Path,
        interval: int,
        sources: Callable[[], Sequence[SourceReport]],
    ) -> None:
        self._intake = intake
        self._buffer = buffer
        self._place = place
        self._token_file = token_file
        self._interval = interval
        self._sources = sources
        self._sent = buffer.first - 1
        self._largest = LARGEST
        self._most = MOST_ENTRIES
        self._failures = 0
        self._said = ""
        self._clock = RegistryClock()
        self._gaps_at = time.monotonic()
        # What waits has waited for a while, and its times need the registry's.
        self._questions = _MOST_QUESTIONS if self.waiting else 0

    @property
    def waiting(self) -> int:
        """How many entries the registry does not have yet."""
        return max(0, self._buffer.next - 1 - self._sent)

    def send(self, *, stopping: bool = False) -> Outcome:
        """Send one report, with the entries that wait, or without any as a heartbeat.

        Before entries that have waited, the registry is asked for its time: a report may be held up on its
        way, and come together with others. Raises :class:`~digestry.errors.StorageError` of the buffer alone.
        """
        if self._questions and not stopping and self._clock.ahead is None:
            return self._ask_time()
        # The state first: what it confirms must not have entries that were appended after the batch.
        sources = tuple(self._sources())
        batch = self._buffer.batch(self._sent + 1, self._largest, self._most)
        # Numbers may be left out after the last entry that is there.
        behind = max(0, self._buffer.next - 1 - batch.last) if batch.entries else 0
        if behind:
            sources = tuple(msgspec.structs.replace(source, confirmed_at=None) for source in sources)
        if batch.entries:
            self._buffer.sync()
        answer = self._send(
            first=batch.first,
            images=batch.images,
            entries=batch.entries,
            sources=sources,
            stopping=stopping,
            behind=behind,
        )
        if isinstance(answer, Outcome):
            return answer
        if isinstance(answer, ReportRefusal):
            return self._refused(answer, batch)
        return self._received(answer, batch, behind)

    def _ask_time(self) -> Outcome:
        """Send a report that says nothing, for the time in its receipt."""
        answer = self._send(behind=self.waiting)
        if isinstance(answer, Outcome):
            return answer
        if isinstance(answer, ReportRefusal):
            return self._refused(answer, Batch(1))
        self._questions -= 1
        return Outcome(more=True)

    def _send(self, **content: Any) -> FleetReceipt | ReportRefusal | Outcome:
        """Send a report with this ``content``; return the registry's answer, or what came of it."""
        reading, sent_at = self._clock.read(), datetime.datetime.now(datetime.UTC)
        report = _Report(
            agent=self._buffer.agent,
            place=self._place,
            version=__version__,
            interval=self._interval,
            sent_at=sent_at,
            ahead=self._clock.ahead,
            **content,
        )
        try:
            answer = self._intake.send(msgspec.json.encode(report, enc_hook=encode_hook), self._token())
        except DigestryError as error:
            return self._failed(error.message, error.hint)
        if isinstance(answer, FleetReceipt):
            self._clock.learn(sent_at, reading, answer.time)
        return answer

    def _token(self) -> str:
        """Return the token, read anew: it may have been replaced. Raises :class:`InvalidConfiguration`."""
        try:
            token = read_file(self._token_file, _LONGEST_TOKEN).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfiguration(f"cannot read the token in {self._token_file}: {error}") from error
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise InvalidConfiguration(f"{self._token_file} is not the one line that `digestry token` prints")
        return token

    def _received(self, receipt: FleetReceipt, batch: Batch, behind: int) -> Outcome:
        if self._said:
            log.info("registry %s: it takes reports again", self._intake.host)
        self._said = ""
        self._failures = 0
        if receipt.received > batch.last + behind:
            # The numbers were given before: by this agent, whose buffer was restored or lost since.
            log.warning(
                "registry %s has entries up to %d of this agent, which has given %d: it takes a new identity",
                self._intake.host,
                receipt.received,
                batch.last + behind,
            )
            self._buffer.become_another()
            return Outcome(more=True, resynchronize=True)
        self._sent = batch.last if receipt.resynchronize else max(receipt.received, self._buffer.first - 1)
        self._buffer.acknowledge(self._sent)
        self._largest = min(LARGEST, 2 * self._largest)
        self._most = min(MOST_ENTRIES, 2 * self._most)
        return Outcome(more=self._append_gaps(behind) or behind > 0, resynchronize=receipt.resynchronize)

    def _append_gaps(self, behind: int) -> bool:
        """Report what the buffer has dropped, once nothing waits, or it has waited for long."""
        if behind and time.monotonic() - self._gaps_at < _BETWEEN_GAPS:
            return False
        self._gaps_at = time.monotonic()
        return self._buffer.append_gaps()

    def _refused(self, refusal: ReportRefusal, batch: Batch) -> Outcome:
        if refusal.status in _MALFORMED | {_TOO_LARGE}:
            if len(batch.entries) > 1:
                self._most = max(1, len(batch.entries) // 2)
                self._largest = max(1, batch.size // 2)
                return Outcome(more=True)
            if batch.entries and refusal.status in _MALFORMED:
                return self._drop(refusal, batch)
        if refusal.status in _NOT_ALLOWED:
            return self._failed(refusal.message, refusal.hint, refusal.pause or _LONGEST_PAUSE / 2)
        return self._failed(refusal.message, refusal.hint, refusal.pause)

    def _drop(self, refusal: ReportRefusal, batch: Batch) -> Outcome:
        """Put a gap in the place of an entry that the registry refuses, so that the others are sent."""
        log.error("registry %s refuses entry %d: %s", self._intake.host, batch.first, refusal.message)
        for gap in gaps_for(map(bytes, batch.entries), "the registry refused what the agent reported"):
            position = self._buffer.position(gap.source)
            self._buffer.append((gap,), {}, source=gap.source, position=position)
        self._sent = batch.last
        return Outcome(more=True, resynchronize=True)

    def _failed(self, message: str, hint: str, asked: float | None = None) -> Outcome:
        if message != self._said:
            log.warning("registry %s: %s%s", self._intake.host, message, f"; {hint}" if hint else "")
            self._said = message
        self._questions = _MOST_QUESTIONS
        pause = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(self._failures, 10))
        self._failures += 1
        if asked is not None:
            pause = max(pause, min(asked, _LONGEST_ASKED))
        return Outcome(pause=pause * random.uniform(0.9, 1.1))  # noqa: S311 - no secret
