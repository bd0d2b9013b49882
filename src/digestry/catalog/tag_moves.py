"""Move and delete tags: compare-and-set, under the policy, each with its journal entry (rule 5).

These are functions on a transaction, for ``catalog.py``. Reads and writes see the same state, because the
writer's transaction holds the lock from its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, select

from digestry.catalog import clock, delivery_queue, journal, lease_rows, push_statements, signature_tags
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.journal import Move, Origin
from digestry.catalog.schema import journal as entries
from digestry.catalog.schema import manifests, tags
from digestry.catalog.tag_history import entry_at
from digestry.catalog.tag_policy import TagPolicy
from digestry.errors import Conflict, Forbidden, NotFound
from digestry.model.digest import Digest
from digestry.model.history import EventKind, TagEvent

NOWHERE: Final = -1
"""The row of a repository that is not there yet: no row has it."""


class TagRefused(Conflict):
    """The policy forbids to move or delete this tag, which points to ``digest``."""

    def __init__(self, message: str, *, tag: str, digest: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.tag = tag
        self.digest = digest


class Observed(Conflict):
    """The repository records what is observed in another registry."""


class TagChanged(Conflict):
    """The tag does not point to what the caller expected, but to ``digest`` (None: there is no tag)."""

    def __init__(self, message: str, *, tag: str, digest: str | None) -> None:
        super().__init__(message, hint="look at what is there now, and decide again")
        self.tag = tag
        self.digest = digest


@dataclass(frozen=True, slots=True)
class Expected:
    """The precondition of a change to a tag (RFC 9110, ``If-Match``, ``If-None-Match``).

    The tag must point to one of ``any_of``, digests as text, or to anything for ``*``. It must not point to
    one of ``none_of``, or must not exist for ``*``. None requires nothing.
    """

    any_of: frozenset[str] | None = None
    none_of: frozenset[str] | None = None

    def check(self, repository: str, tag: str, current: str | None) -> None:
        """Raise :class:`TagChanged` unless ``current`` is as expected."""
        if self.any_of is not None and (
            current is None or ("*" not in self.any_of and current not in self.any_of)
        ):
            wanted = "something" if "*" in self.any_of else " or ".join(sorted(self.any_of)) or "nothing"
            there = "it is not there" if current is None else f"it points to {current}"
            raise TagChanged(
                f"tag {tag} of {repository} was expected to point to {wanted}, but {there}",
                tag=tag,
                digest=current,
            )
        if self.none_of is not None and (
            current is not None and ("*" in self.none_of or current in self.none_of)
        ):
            raise TagChanged(
                f"tag {tag} of {repository} was expected to be free, but it points to {current}"
                if "*" in self.none_of
                else f"tag {tag} of {repository} was expected not to point to {current}, but it does",
                tag=tag,
                digest=current,
            )


ANYTHING: Final = Expected()


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of every move: the policy, the subscriptions to its event, and the lease in microseconds on
    the manifest that the tag leaves, since a client may just have resolved the tag."""

    policy: TagPolicy = field(default_factory=TagPolicy)
    subscriptions: tuple[Subscription, ...] = ()
    now: clock.Clock = clock.now
    lease: int = 0


class RepositoryKey(NamedTuple):
    """A repository: its row, or :data:`NOWHERE`, and its name."""

    row: int
    name: str


class Target(NamedTuple):
    """The manifest that a tag is to point to. ``size`` is in bytes."""

    digest: str
    media_type: str
    size: int


def pointed(connection: Connection, key: RepositoryKey, tag: str) -> str | None:
    """Return the digest that the tag points to now."""
    return connection.execute(push_statements.POINTED, {"repository": key.row, "tag": tag}).scalar()


def check_not_observed(connection: Connection, key: RepositoryKey) -> None:
    """Raise :class:`Observed` if the repository records what is observed in another registry: a tag that was
    moved here would be moved back, and the history would not be that registry's."""
    if connection.execute(push_statements.OBSERVED, {"repository": key.name}).first() is not None:
        raise Observed(
            f"repository {key.name} records where the tags of another registry point: no tag is moved here",
            hint="push to another repository; digestry observe list says what is observed",
        )


def depends_on_nothing(rules: Rules, repository: str, tags: Sequence[str], expected: Expected) -> bool:
    """Return whether :func:`check` lets the tags point anywhere, from anywhere."""
    return expected == ANYTHING and all(rules.policy.rule(repository, tag).mode == "mutable" for tag in tags)


def check(
    connection: Connection,
    rules: Rules,
    key: RepositoryKey,
    tag: str,
    digest: str,
    *,
    expected: Expected = ANYTHING,
    extends: frozenset[tuple[str, str]] = frozenset(),
) -> str | None:
    """Return where the tag points now, if it may be moved to ``digest``, which has all that the manifests
    ``extends`` have, and more.

    Raises :class:`TagChanged`, :class:`TagRefused`.
    """
    current = pointed(connection, key, tag)
    expected.check(key.name, tag, current)
    if current == digest:
        return current  # not a move (rule 6)
    rule = rules.policy.rule(key.name, tag)
    name = f"tag {tag} of {key.name}"
    if rule.mode in {"immutable", "write-once"} and current is not None:
        if (tag, current) in extends and signature_tags.has_subject(connection, key.row, tag):
            return current  # a signature more is no other release
        raise TagRefused(
            f"{name} is {rule.mode} and points to {current}",
            tag=tag,
            digest=current,
            hint="push under a tag of its own",
        )
    if rule.mode == "write-once":
        last = journal.entries(connection, key.name, tag=tag, limit=1)
        if last and str(last[0].from_digest) != digest:
            raise TagRefused(
                f"{name} is write-once and was {last[0].from_digest} until it was deleted",
                tag=tag,
                digest=str(last[0].from_digest),
                hint="push under a tag of its own",
            )
    if rule.mode == "forward-only" and _has_left(connection, key.name, tag, digest):
        there = "it has been deleted since" if current is None else f"it points to {current} now"
        raise TagRefused(
            f"{name} is forward-only and has left {digest}: {there}",
            tag=tag,
            digest=current or digest,
            hint="push something newer, or under a tag of its own",
        )
    return current


def _has_left(connection: Connection, repository: str, tag: str, digest: str) -> bool:
    query = select(entries.c.number).where(
        entries.c.repository == repository, entries.c.tag == tag, entries.c.from_digest == digest
    )
    return connection.execute(query.limit(1)).first() is not None


def point(
    connection: Connection,
    rules: Rules,
    key: RepositoryKey,
    tag: str,
    target: Target,
    *,
    origin: Origin,
    expected: Expected = ANYTHING,
    extends: frozenset[tuple[str, str]] = frozenset(),
) -> TagEvent | None:
    """Point the tag at an existing manifest; return None if it pointed there already.

    Raises :class:`TagChanged`, :class:`TagRefused`, and :class:`Forbidden` if the principal may not move it.
    """
    current = check(connection, rules, key, tag, target.digest, expected=expected, extends=extends)
    if current == target.digest:
        return None
    if current is not None and not origin.may_move:
        raise Forbidden(
            f"{origin.actor} may not move tag {tag} of {key.name}, which points to {current}",
            hint="push under a tag of its own, or ask who runs the registry for move-tag",
        )
    kind: EventKind = "created" if current is None else "moved"
    move = Move(key.name, tag, kind, current, target.digest, target.media_type, target.size)
    event = _record(connection, rules, move, origin)
    at = clock.from_datetime(event.at)
    if current is None:
        values = {"repository_id": key.row, "name": tag, "digest": target.digest, "moved_at": at}
        connection.execute(push_statements.CREATE_TAG, values)
    else:
        moved = {"repository": key.row, "tag": tag, "to": target.digest, "at": at}
        connection.execute(push_statements.MOVE_TAG, moved)
    return event


def drop(
    connection: Connection,
    rules: Rules,
    key: RepositoryKey,
    tag: str,
    *,
    origin: Origin,
    expected: Expected = ANYTHING,
) -> TagEvent:
    """Remove the tag, not its manifest.

    Raises :class:`NotFound`, :class:`TagChanged`, :class:`TagRefused`.
    """
    current = pointed(connection, key, tag)
    expected.check(key.name, tag, current)
    if current is None:
        raise NotFound(f"tag {tag} is not in repository {key.name}")
    rule = rules.policy.rule(key.name, tag)
    if not rule.may_delete:
        raise TagRefused(
            f"tag {tag} of {key.name} is {rule.mode} and points to {current}: it cannot be deleted",
            tag=tag,
            digest=current,
            hint="whoever runs the registry can change the rule",
        )
    kind = _kind(connection, key, current)
    connection.execute(delete(tags).where(tags.c.repository_id == key.row, tags.c.name == tag))
    # Read even if the manifest is no longer visible: the entry must name the digest that the tag left.
    move = Move(
        key.name,
        tag,
        "deleted",
        current,
        None,
        "" if kind is None else kind.media_type,
        0 if kind is None else kind.size,
    )
    return _record(connection, rules, move, origin)


def _kind(connection: Connection, key: RepositoryKey, digest: str) -> Any:
    return connection.execute(
        select(manifests.c.media_type, manifests.c.size).where(
            manifests.c.repository_id == key.row, manifests.c.digest == digest
        )
    ).first()


def _record(connection: Connection, rules: Rules, move: Move, origin: Origin) -> TagEvent:
    event = journal.append(connection, move, origin, rules.now)
    if move.from_digest is not None:
        lease_rows.extend(connection, move.from_digest, clock.from_datetime(event.at) + rules.lease)
    if event.sequence is not None:
        delivery_queue.enqueue(connection, rules.subscriptions, event)
    return event


def past(connection: Connection, key: RepositoryKey, tag: str, wanted: Digest | int) -> str:
    """Return a digest that the tag pointed to: ``wanted``, if it ever did, or the one at that time.

    Raises :class:`NotFound`.
    """
    if isinstance(wanted, Digest):
        query = select(entries.c.number).where(
            entries.c.repository == key.name, entries.c.to_digest == str(wanted), entries.c.tag == tag
        )
        if connection.execute(query.limit(1)).first() is None:
            raise NotFound(
                f"tag {tag} of {key.name} never pointed to {wanted}",
                hint=f"push it under that tag, or see what it had: digestry log {key.name}:{tag}",
            )
        return str(wanted)
    found = entry_at(connection, key.name, tag, wanted)
    if found is None or found.to_digest is None:
        raise NotFound(f"there was no tag {tag} in {key.name} at {clock.to_rfc3339(wanted)}")
    return str(found.to_digest)
