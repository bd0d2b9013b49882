"""The gaps that a report has in place of entries that were lost."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import msgspec

from digestry.model.descriptor import decode_hook
from digestry.model.fleet import Entry, Gap, Started, Stopped
from digestry.model.json_types import prepared


def gaps_for(contents: Iterable[bytes], reason: str) -> list[Gap]:
    """Return a gap for each source of the encoded entries ``contents``, from its first to its last time."""
    found: dict[str, tuple[datetime.datetime, datetime.datetime]] = {}
    for content in contents:
        entry: Entry = msgspec.json.decode(content, type=prepared(Entry), dec_hook=decode_hook)
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
