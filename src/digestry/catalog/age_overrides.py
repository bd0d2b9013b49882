"""Overrides of minimum ages: who let a digest through that is too young, until when, and why.

Each is a row and an entry of the journal, ``allowed``, made in one transaction; ``revoked`` ends it. These
entries are acts and not moves: their tag has :data:`MARK` before it, which no tag has, so that no question
about a tag's moves finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, insert, or_, select, update

from digestry.catalog import clock, delivery_queue, journal, repository_rows
from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.database import Database
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.job_states import Fence
from digestry.catalog.journal import Move, Origin
from digestry.catalog.journal_sequencing import JournalSequencing
from digestry.catalog.observation_schema import age_overrides
from digestry.catalog.tag_moves import RepositoryKey, pointed
from digestry.catalog.transactions import retried
from digestry.errors import CallerError, NotFound
from digestry.model.digest import Digest
from digestry.model.history import ACT_MARK as MARK
from digestry.model.history import EventKind, TagEvent

LONGEST_REASON: Final = 500
"""In characters."""
MOST: Final = 1000
"""So many of a repository's overrides are read, the newest first."""


@dataclass(frozen=True, slots=True)
class AgeOverride:
    """An override. ``tag`` and ``digest`` are empty for any. It holds from ``created_at`` until ``ends_at``
    (None: for ever), or until it was taken back (``ended_at``). Times are microseconds since 1970.

    ``advisory`` is the manifest of the advisory that makes it, and ``advised`` what that is attached to; both
    are empty for one that a person makes. One that ended with its advisory has ``ends_at`` as well.
    """

    number: int
    repository: str
    tag: str
    digest: str
    reason: str
    actor: str
    created_at: int
    ends_at: int | None
    ended_at: int | None
    advisory: str = ""
    advised: str = ""

    def holds(self, now: int) -> bool:
        """Return whether it is in force."""
        return self.ended_at is None and (self.ends_at is None or now < self.ends_at)

    def lets_through(self, tag: str, digest: str, now: int) -> bool:
        """Return whether it lets ``digest`` through under ``tag``."""
        return self.holds(now) and self.tag in {"", tag} and self.digest in {"", digest}

    @property
    def subject(self) -> str:
        """What it is about, such as ``team/app:1.5@sha256:…``."""
        return (
            f"{self.repository}{':' if self.tag else ''}{self.tag}{'@' if self.digest else ''}{self.digest}"
        )


class AgeOverrides:
    """The overrides of a registry. Thread-safe."""

    def __init__(
        self,
        database: Database,
        sequencing: JournalSequencing,
        subscriptions: Iterable[Subscription],
        now: clock.Clock,
    ) -> None:
        self._database = database
        self._sequencing = sequencing
        self._now = now
        self.change_subscriptions(subscriptions)

    def change_subscriptions(self, subscriptions: Iterable[Subscription]) -> None:
        """Queue entries for other subscriptions from now on."""
        self._subscriptions = tuple(subscriptions)

    @retried
    def allow(
        self,
        repository: str,
        *,
        tag: str = "",
        digest: Digest | None = None,
        ends_at: int | None = None,
        origin: Origin,
    ) -> tuple[AgeOverride, TagEvent]:
        """Let a digest through under a tag (empty: any), with its journal entry, for ``origin.reason``.

        Without a digest it is the one that the tag points to now. Without a tag and a digest, everything in
        the repository is let through, which needs an end. Raises :class:`UnknownRepository`,
        :class:`NotFound` if there is no such tag, and :class:`CallerError`.
        """
        reason = _checked(origin.reason)
        now = self._now()
        if ends_at is not None and ends_at <= now:
            raise CallerError(f"{clock.to_rfc3339(ends_at)} is past", hint="give a time that is to come")
        if not tag and digest is None and ends_at is None:
            raise CallerError(
                f"all of {repository} may not be let through for ever",
                hint="name a tag or a digest, or say until when",
            )
        with self._sequencing.write() as connection:
            row = repository_rows.lock(connection, repository)
            if row is None:
                raise UnknownRepository(repository)
            subject = "" if digest is None else str(digest)
            if tag and digest is None:
                subject = pointed(connection, RepositoryKey(row, repository), tag) or ""
                if not subject:
                    raise NotFound(f"tag {tag} is not in repository {repository}")
            until = "" if ends_at is None else f" (until {clock.to_rfc3339(ends_at)})"
            move = _act("allowed", repository, tag, subject)
            event = self._record(connection, move, replace(origin, reason=f"{reason}{until}"))
            values = {
                "repository": repository,
                "tag": tag,
                "digest": subject,
                "reason": reason,
                "actor": origin.actor,
                "created_at": clock.from_datetime(event.at),
                "ends_at": ends_at,
            }
            made = _insert(connection, values)
        return made, event

    @retried
    def advise(
        self, repository: str, digest: str, *, advisory: str, advised: str, origin: Origin, fence: Fence
    ) -> AgeOverride | None:
        """Let ``digest`` through for an advisory, with its journal entry, once.

        None if it is let through for that already, if somebody took that back, or if there is no such
        repository. Raises :class:`Conflict` if the ``fence`` of the process is no longer held.
        """
        reason = _checked(origin.reason)
        table = age_overrides.c
        with self._sequencing.write() as connection:
            fence.require_held(connection)
            if repository_rows.lock(connection, repository) is None:
                return None
            known = connection.execute(
                select(table.number).where(
                    table.repository == repository,
                    table.digest == digest,
                    table.advisory == advisory,
                    or_(table.ended_at.is_(None), table.ends_at.is_(None)),
                )
            ).first()
            if known is not None:
                return None
            event = self._record(connection, _act("allowed", repository, "", digest), origin)
            values = {
                "repository": repository,
                "tag": "",
                "digest": digest,
                "reason": reason,
                "actor": origin.actor,
                "created_at": clock.from_datetime(event.at),
                "ends_at": None,
                "advisory": advisory,
                "advised": advised,
            }
            return _insert(connection, values)

    @retried
    def end_advised(self, number: int, *, origin: Origin, fence: Fence) -> bool:
        """End an override whose advisory is not in force any more, with its journal entry; return whether it
        was in force. Raises :class:`Conflict` as :meth:`advise` does."""
        _checked(origin.reason)
        table = age_overrides.c
        with self._sequencing.write() as connection:
            fence.require_held(connection)
            here = table.number == number, table.advisory != "", table.ended_at.is_(None)
            row = connection.execute(select(age_overrides).where(*here)).first()
            if row is None or repository_rows.lock(connection, row.repository) is None:
                return False
            # Somebody may have taken it back while the repository's row was waited for.
            row = connection.execute(select(age_overrides).where(*here)).first()
            if row is None:
                return False
            event = self._record(connection, _act("revoked", row.repository, "", row.digest), origin)
            ended = clock.from_datetime(event.at)
            connection.execute(update(age_overrides).where(*here).values(ended_at=ended, ends_at=ended))
            return True

    def advised(self) -> list[AgeOverride]:
        """Return all overrides in force that advisories make, in the order in which they were made."""
        query = select(age_overrides).where(age_overrides.c.advisory != "", *_in_force(self._now()))
        with self._database.read() as connection:
            return [_override(row) for row in connection.execute(query.order_by(age_overrides.c.number))]

    @retried
    def revoke(self, repository: str, number: int, *, origin: Origin) -> tuple[AgeOverride, TagEvent]:
        """End an override that is in force, with its entry in the journal. Raises :class:`NotFound`."""
        _checked(origin.reason)
        with self._sequencing.write() as connection:
            if repository_rows.lock(connection, repository) is None:
                raise UnknownRepository(repository)
            row = connection.execute(
                select(age_overrides).where(
                    age_overrides.c.number == number, age_overrides.c.repository == repository
                )
            ).first()
            if row is None or not _override(row).holds(self._now()):
                raise NotFound(
                    f"there is no override {number} of {repository} in force",
                    hint=f"see what there is: digestry age list {repository}",
                )
            event = self._record(connection, _act("revoked", repository, row.tag, row.digest), origin)
            ended = clock.from_datetime(event.at)
            connection.execute(
                update(age_overrides).where(age_overrides.c.number == number).values(ended_at=ended)
            )
        return replace(_override(row), ended_at=ended), event

    def of(self, repository: str | None = None, *, ended: bool = False) -> list[AgeOverride]:
        """Return the overrides that are in force, of one repository or of all, the newest first; with
        ``ended``, the others too."""
        query = select(age_overrides)
        if repository is not None:
            query = query.where(age_overrides.c.repository == repository)
        if not ended:
            query = query.where(*_in_force(self._now()))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(age_overrides.c.number.desc()).limit(MOST)).all()
        return [_override(row) for row in rows]

    def _record(self, connection: Connection, act: Move, origin: Origin) -> TagEvent:
        made = journal.append(connection, act, origin, self._now)
        if made.sequence is not None:
            delivery_queue.enqueue(connection, self._subscriptions, made)
        return made


def _insert(connection: Connection, values: dict[str, Any]) -> AgeOverride:
    full = {"advisory": "", "advised": "", **values}
    number = connection.execute(
        insert(age_overrides).values(**full).returning(age_overrides.c.number)
    ).scalar_one()
    return AgeOverride(number=number, ended_at=None, **full)


def _act(kind: EventKind, repository: str, tag: str, digest: str) -> Move:
    return Move(repository, f"{MARK}{tag}", kind, digest or None, None, "", 0)


def in_force(connection: Connection, repository: str, now: int) -> Sequence[AgeOverride]:
    """Return the repository's overrides that are in force, the newest first."""
    query = select(age_overrides).where(age_overrides.c.repository == repository, *_in_force(now))
    rows = connection.execute(query.order_by(age_overrides.c.number.desc()).limit(MOST))
    return [_override(row) for row in rows]


def _in_force(now: int) -> tuple[ColumnElement[bool], ...]:
    return (
        age_overrides.c.ended_at.is_(None),
        or_(age_overrides.c.ends_at.is_(None), age_overrides.c.ends_at > now),
    )


def _override(row: Row[Any]) -> AgeOverride:
    return AgeOverride(**row._asdict())


def _checked(reason: str | None) -> str:
    text = (reason or "").strip()
    if not text or not text.isprintable() or len(text) > LONGEST_REASON:
        raise CallerError(
            "a reason is required: one line of at most 500 characters",
            hint="say why the digest may be used before its age",
        )
    return text
