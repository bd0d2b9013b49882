"""The exported journal: entries as lines of JSON, and the proof of their chains from these alone.

docs/tags.md documents the form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from digestry.catalog import clock
from digestry.catalog.journal import to_event
from digestry.catalog.journal_chain import BrokenEntry, ChainWalk, Verdict
from digestry.catalog.journal_source import journal_source
from digestry.errors import ContentError
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.json_types import prepared

_BATCH: Final = 1000


def export(connection: Connection, *, since: int = 0) -> Iterator[bytes]:
    """Yield the entries after position ``since`` as lines of JSON, in the registry's order, read as they are
    taken.

    Entries that have no position yet are not among them.
    """
    entries = journal_source(connection)
    query = select(entries).where(entries.c.sequence > since).order_by(entries.c.sequence)
    with contextlib.closing(connection.execute(query, execution_options={"yield_per": _BATCH})) as rows:
        for row in rows:
            yield msgspec.json.encode(to_event(row._asdict()), enc_hook=encode_hook) + b"\n"


class _Line(TagEvent, frozen=True, forbid_unknown_fields=True):
    """An exported entry. Fields that no hash covers are refused."""


def verify_lines(lines: Iterable[bytes], expect: Collection[str] = ()) -> Verdict:
    """Walk the chains of an exported journal, or of a later part of one.

    Raises :class:`ContentError` for a line that is no entry at all.
    """
    decoder = msgspec.json.Decoder(prepared(_Line), dec_hook=decode_hook)
    walk = ChainWalk(set(expect))
    for number, line in enumerate(lines, start=1):
        try:
            entry = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ContentError(f"line {number} is no journal entry: {error}") from error
        if entry.withheld:
            raise ContentError(
                f"line {number} is an entry whose hash was withheld",
                hint="digestry journal export --root DIR has all; over HTTP, who may audit the repository",
            )
        if entry.sequence is None:
            raise ContentError(f"line {number} is no journal entry: it has no sequence")
        if number == 1 and entry.sequence > 1:
            walk.begin_part(entry.sequence, entry.previous_hash if entry.number is None else "")
        reason = _step(walk, entry)
        if reason:
            return walk.verdict(BrokenEntry(walk.position, f"{reason} (line {number})"))
    return walk.verdict(None)


def _step(walk: ChainWalk, entry: TagEvent) -> str:
    at = clock.from_datetime(entry.at)
    rest = (
        entry.tag,
        entry.event,
        _text(entry.from_digest),
        _text(entry.to_digest),
        entry.media_type,
        entry.size,
        entry.actor,
        entry.address,
        entry.client,
        entry.previous_hash,
    )
    if entry.number is None:  # of the registry's chain
        return walk.step_before((entry.sequence, at, entry.repository, *rest), entry.hash)
    not_before = None if entry.not_before is None else clock.from_datetime(entry.not_before)
    further = (not_before, entry.reason)
    return walk.step(entry.sequence, (entry.repository, entry.number, at, *rest), further, entry.hash)


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)
