"""The entries of a copied log in a database, so that questions about tags need not read all of it.

It is made of the bundles and openings alone, each verified before it is added.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from digestry.catalog.sqlite.private_file import PrivateFile
from digestry.model.descriptor import decode_hook
from digestry.model.history import TagEvent, TagSpan
from digestry.model.json_types import prepared
from digestry.translog.entries import Entry, Opening

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY, repository TEXT, tag TEXT, at INTEGER, to_digest TEXT, entry BLOB,
    opening BLOB
);
CREATE INDEX IF NOT EXISTS entries_by_repository ON entries (repository, at);
CREATE INDEX IF NOT EXISTS entries_by_tag ON entries (repository, tag, at);
CREATE INDEX IF NOT EXISTS entries_by_digest ON entries (to_digest, at);
"""
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_ADD: Final = """
INSERT INTO entries (position, repository, tag, at, to_digest, entry, opening) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (position) DO UPDATE SET repository = excluded.repository, tag = excluded.tag, at = excluded.at,
to_digest = excluded.to_digest, entry = excluded.entry, opening = excluded.opening
WHERE excluded.repository IS NOT NULL OR entries.repository IS NULL
"""


def microseconds(at: datetime.datetime) -> int:
    """Return a time in microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


class CopiedHistory:
    """The entries in the database ``path``. Thread-safe; every method raises :class:`StorageError`.

    Entries of repositories that were sealed are left out of all answers, unless ``with_sealed``.
    """

    def __init__(self, path: Path, *, with_sealed: bool = False) -> None:
        self._shown = "" if with_sealed else " AND opening IS NULL"
        self._file = PrivateFile(
            path,
            _SCHEMA,
            hint="it can be made anew of the copied log: remove it, and call digestry follow --recheck",
        )

    def close(self) -> None:
        """Close the database."""
        self._file.close()

    # -- writing ------------------------------------------------------------------------------

    def add(self, leaves: Iterable[tuple[int, Entry | None, bytes]]) -> None:
        """Add leaves by their position: an entry in clear with its bytes, or None for a sealed one."""
        rows = [_row(position, entry, content, None) for position, entry, content in leaves]
        self._file.write(_ADD, rows)

    def open(self, openings: Iterable[tuple[Opening, Entry]]) -> None:
        """Add the openings of sealed leaves."""
        rows = [
            _row(opening.index, entry, opening.entry.encode(), msgspec.json.encode(opening))
            for opening, entry in openings
        ]
        self._file.write(_ADD, rows)

    # -- reading ------------------------------------------------------------------------------

    def count(self) -> int:
        """Return the number of leaves that are here."""
        return int(self._one("SELECT count(*) FROM entries"))

    def unopened(self, begin: int) -> int:
        """Return the number of sealed leaves from ``begin`` on without an opening."""
        return int(
            self._one("SELECT count(*) FROM entries WHERE position >= ? AND repository IS NULL", begin)
        )

    def events(
        self,
        size: int,
        repository: str,
        *,
        tag: str | None = None,
        before: int | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int,
    ) -> list[TagEvent]:
        """Return the entries of a repository below the position ``size``, newest first. ``before`` is a time
        (microseconds since 1970), exclusive, ``since`` and ``until`` are inclusive."""
        where, values = "repository = ? AND position < ?", [repository, size]
        for condition, value in (
            ("tag = ?", tag),
            ("at < ?", before),
            ("at >= ?", since),
            ("at <= ?", until),
        ):
            if value is not None:
                where += f" AND {condition}"
                values.append(value)
        rows = self._file.rows(
            f"SELECT entry FROM entries WHERE {where}{self._shown} ORDER BY at DESC LIMIT ?",  # noqa: S608
            *values,
            limit,
        )
        return [_event(row[0]) for row in rows]

    def openings(
        self, size: int, repository: str, *, tag: str | None = None, first: int, limit: int
    ) -> list[Opening]:
        """Return the openings of a repository's leaves from the position ``first`` on, by rising position,
        without what only auditors get."""
        values: list[object] = [repository, first, size]
        own = "" if tag is None else " AND tag = ?"
        rows = self._file.rows(
            "SELECT position, entry, opening FROM entries WHERE repository = ? AND position >= ?"  # noqa: S608
            f" AND position < ?{own}{self._shown} ORDER BY position LIMIT ?",
            *values,
            *([] if tag is None else [tag]),
            limit,
        )
        return [
            Opening(
                row[0],
                row[1].decode(),
                "" if row[2] is None else msgspec.json.decode(row[2], type=prepared(Opening)).salt,
            )
            for row in rows
        ]

    def has(self, size: int, repository: str) -> bool:
        """Return whether there is an entry of the repository."""
        return bool(self.events(size, repository, limit=1))

    def repositories(self, size: int) -> list[str]:
        """Return the names of the repositories that there are entries of."""
        rows = self._file.rows(
            "SELECT DISTINCT repository FROM entries WHERE repository IS NOT NULL AND position < ?"  # noqa: S608
            f"{self._shown} ORDER BY repository",
            size,
        )
        return [row[0] for row in rows]

    def spans_at(self, size: int, repository: str, at: int, *, tag: str | None = None) -> list[TagSpan]:
        """Return what the tags of a repository pointed to at a time, by their names."""
        spans = []
        later: dict[str, TagEvent] = {}
        done: set[str] = set()
        for event in self.events(size, repository, tag=tag, limit=_ALL):
            if event.tag in done:
                continue
            if microseconds(event.at) > at:
                later[event.tag] = event
                continue
            done.add(event.tag)
            if event.to_digest is not None:
                spans.append(_span(event, later.get(event.tag)))
        return sorted(spans, key=lambda span: span.tag)

    def spans_of(self, size: int, digest: str, *, repository: str | None = None, limit: int) -> list[TagSpan]:
        """Return each time that a tag came to a digest, newest first."""
        own = "" if repository is None else " AND repository = ?"
        values: list[object] = [digest, size] + ([] if repository is None else [repository])
        rows = self._file.rows(
            f"SELECT entry FROM entries WHERE to_digest = ? AND position < ?{own}{self._shown}"  # noqa: S608
            " ORDER BY at DESC LIMIT ?",
            *values,
            limit,
        )
        spans = []
        for row in rows:
            event = _event(row[0])
            following = self._file.rows(
                "SELECT entry FROM entries WHERE repository = ? AND tag = ? AND at > ? AND position < ?"
                " ORDER BY at LIMIT 1",
                event.repository,
                event.tag,
                microseconds(event.at),
                size,
            )
            spans.append(_span(event, _event(following[0][0]) if following else None, event.repository))
        return spans

    def _one(self, query: str, *values: object) -> Any:
        return self._file.rows(query, *values)[0][0]


_ALL: Final = 1_000_000


def _row(position: int, entry: Entry | None, content: bytes, opening: bytes | None) -> tuple[Any, ...]:
    if entry is None:
        return position, None, None, None, None, None, None
    to = None if entry.to_digest is None else str(entry.to_digest)
    return position, entry.repository, entry.tag, microseconds(entry.at), to, content, opening


def _event(content: bytes) -> TagEvent:
    entry = msgspec.json.decode(content, type=prepared(Entry), dec_hook=decode_hook)
    return TagEvent(
        at=entry.at,
        repository=entry.repository,
        tag=entry.tag,
        event=entry.event,  # type: ignore[arg-type]
        from_digest=entry.from_digest,
        to_digest=entry.to_digest,
        media_type=entry.media_type,
        size=entry.size,
        actor=entry.actor,
        number=entry.number,
        withheld=True,
        not_before=entry.not_before,
    )


def _span(event: TagEvent, following: TagEvent | None, repository: str = "") -> TagSpan:
    assert event.to_digest is not None  # noqa: S101 - the caller has looked
    return TagSpan(
        tag=event.tag,
        digest=event.to_digest,
        since=event.at,
        still=following is None,
        until=None if following is None else following.at,
        media_type=event.media_type,
        size=event.size,
        repository=repository,
    )
