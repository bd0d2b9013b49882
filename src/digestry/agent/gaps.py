"""The gaps that a report has in place of entries that were lost."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Final

import msgspec

from digestry.agent import segments
from digestry.agent.clock import shifted_gap
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.fleet import Entry, Gap, Started, Stopped
from digestry.model.json_types import prepared

_FULL: Final = "the agent's buffer was full"


class DroppedEntries:
    """The gaps that dropped entries have left, and that no entry tells of yet: one for each source, from the
    first to the last dropped entry. Its times are by one clock."""

    def __init__(self, gaps: tuple[Gap, ...] = ()) -> None:
        self.gaps = gaps

    def add(self, entries: Iterable[Entry]) -> None:
        """Note that ``entries`` are dropped, which came right after those that were dropped before."""
        self.gaps = tuple(_gaps([*self.gaps, *entries], _FULL))

    def shift(self, seconds: float) -> None:
        """Move all times by so many seconds: the clock was set."""
        if seconds:
            self.gaps = tuple(shifted_gap(gap, seconds) for gap in self.gaps)

    def encoded(self) -> bytes:
        """Return the record of a segment that replaces earlier ones of this kind."""
        return segments.encode("dropped", msgspec.json.encode(self.gaps, enc_hook=encode_hook))

    @classmethod
    def decoded(cls, content: bytes) -> DroppedEntries:
        """Return what the content of a record says."""
        return cls(msgspec.json.decode(content, type=prepared(tuple[Gap, ...]), dec_hook=decode_hook))


def gaps_for(contents: Iterable[bytes], reason: str) -> list[Gap]:
    """Return a gap for each source of the encoded entries ``contents``, from its first to its last time."""
    return _gaps(map(decode_entry, contents), reason)


def decode_entry(content: bytes) -> Entry:
    """Return the entry of a report that ``content`` is, as JSON."""
    entry: Entry = msgspec.json.decode(content, type=prepared(Entry), dec_hook=decode_hook)
    return entry


def _gaps(entries: Iterable[Entry], reason: str) -> list[Gap]:
    found: dict[str, tuple[datetime.datetime, datetime.datetime]] = {}
    for entry in entries:
        first, last = _times(entry)
        known = found.get(entry.source, (first, last))
        found[entry.source] = min(known[0], first), max(known[1], last)
    return [Gap(source, first, last, reason) for source, (first, last) in found.items()]


def _times(entry: Entry) -> tuple[datetime.datetime, datetime.datetime]:
    if isinstance(entry, Started):
        return entry.run.started_at, entry.run.started_at
    if isinstance(entry, Stopped):
        return entry.after or entry.at, entry.at
    if isinstance(entry, Gap):
        return entry.from_, entry.until
    return entry.at, entry.at
