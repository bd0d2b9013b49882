"""Redaction of journal entries for readers without the right ``audit``: who, from where, with what.

The position and the hashes of an entry go with it: the position counts the moves in repositories that the
reader may not know of, and from a hash the address that it covers could be guessed.
"""

from __future__ import annotations

import datetime
from typing import Final, NamedTuple

from msgspec import structs

from digestry.catalog import clock
from digestry.model.history import TagEvent, TagSpan
from digestry.model.timestamps import parse_rfc3339, rfc3339
from digestry.registry.error_responses import bad_parameter
from digestry.registry.exchange import Exchange

_DIGITS: Final = 19


def event(entry: TagEvent, *, audits: bool) -> TagEvent:
    """Return the entry as it is shown to a reader who may, or may not, audit its repository.

    A mirror's note that it saw a move in another registry is not about a person, and stays.
    """
    if audits:
        return entry
    actor = entry.actor if entry.observed_in else ""
    nothing: dict[str, object] = {
        "address": "",
        "client": "",
        "sequence": None,
        "previous_hash": "",
        "hash": "",
        "reason": None,
    }
    return structs.replace(entry, actor=actor, withheld=True, **nothing)


def span(found: TagSpan, *, audits: bool) -> TagSpan:
    """Return the span as a reader may see it."""
    return found if audits else structs.replace(found, sequence=None)


class Cursor(NamedTuple):
    """The end of a page of entries: an entry's position, or its time (microseconds since 1970)."""

    sequence: int | None = None
    time: int | None = None


def cursor(exchange: Exchange, *, audits: bool) -> Cursor:
    """Return the query parameter ``before``: an entry's position, or its time (RFC 3339), exclusive.

    Positions are only for readers who see positions: others could find out the entries' positions by asking
    for all before one. Raises :class:`ErrorResponse`.
    """
    value = exchange.parameter("before")
    if value is None:
        return Cursor()
    if value.isascii() and value.isdigit() and audits and len(value) < _DIGITS:
        return Cursor(sequence=int(value))
    try:
        return Cursor(time=clock.from_datetime(parse_rfc3339(value).first))
    except ValueError as error:
        wanted = "the sequence number of an entry" if audits else "the time of an entry, as a Link has it,"
        raise bad_parameter("before", value, f"{wanted} is required") from error


def position(sequence: int | None, at: datetime.datetime, *, audits: bool) -> str:
    """Return the ``before`` of the page after this entry."""
    return str(sequence) if audits and sequence is not None else rfc3339(at)
