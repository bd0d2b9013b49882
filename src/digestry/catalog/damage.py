"""Damaged content: which digests cannot be served, since when and why, and which tags need them.

A row here hides the content from clients, even where links exist. A push then finds it missing and sends it
again, which deletes the row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    exists,
    func,
    literal,
    select,
)

from digestry.catalog import dialect
from digestry.catalog.database import Database
from digestry.catalog.frequent_statements import frequent
from digestry.catalog.schema import damaged, links, manifest_references, manifests, repositories, tags
from digestry.catalog.transactions import retried
from digestry.model.digest import Digest

_MOST_REPOSITORIES: Final = 100
_HEAL: Final = frequent(delete(damaged).where(damaged.c.digest == bindparam("healed")))

Noted = Literal["new", "known", "unheld"]


@dataclass(frozen=True, slots=True)
class DamagedContent:
    """Content that is not served, why, and since when (microseconds since 1970)."""

    digest: Digest
    problem: str
    found_at: int


@dataclass(frozen=True, slots=True)
class Affected:
    """A repository that has some content, and the tags that need it; ``more`` that are not named."""

    repository: str
    tags: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True)
class HeldContent:
    """Content that some repository may serve. ``size`` is in bytes; ``damaged``: it is known to be."""

    digest: Digest
    size: int
    damaged: bool


def whole(digest: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that this column's digest is not known to be damaged."""
    return ~exists().where(damaged.c.digest == digest)


def is_damaged(connection: Connection, digest: str) -> bool:
    """Return whether content is known to be damaged."""
    return connection.execute(select(damaged.c.digest).where(damaged.c.digest == digest)).first() is not None


def heal(connection: Connection, digest: str) -> None:
    """Note that content is whole again."""
    connection.execute(_HEAL, {"healed": digest})


def _held(digest: ColumnElement[str]) -> ColumnElement[bool]:
    linked = exists().where(links.c.digest == digest)
    return linked | exists().where(manifests.c.digest == digest, manifests.c.deleted_at.is_(None))


class Damage:
    """The damaged content of a catalog. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    def note(self, digest: Digest, problem: str, at: int) -> Noted:
        """Hide content from clients; return ``unheld``, and do nothing, if no repository has it.

        A digest that is known already keeps its first entry.
        """
        with self._database.write() as connection:
            text = str(digest)
            if not connection.execute(select(_held(literal(text)))).scalar():
                return "unheld"
            row = {"digest": text, "problem": problem, "found_at": at}
            new = connection.execute(dialect.of(connection).upserts.damage, row).rowcount > 0
            return "new" if new else "known"

    @retried
    def forget(self, digest: Digest) -> bool:
        """Note that content is whole again; return False if it was not known to be damaged."""
        with self._database.write() as connection:
            return connection.execute(_HEAL, {"healed": str(digest)}).rowcount > 0

    @retried
    def settle(self, problems: Mapping[str, str], at: int) -> None:
        """Replace the list of damaged content by these digests, after a check of all content."""
        rows = [
            {"digest": digest, "problem": problem, "found_at": at} for digest, problem in problems.items()
        ]
        with self._database.write() as connection:
            connection.execute(delete(damaged))
            if rows:
                connection.execute(dialect.of(connection).upserts.damage, rows)

    @retried
    def forget_unheld(self) -> int:
        """Delete the rows of content that no repository has; return how many."""
        nobodys = ~_held(damaged.c.digest)
        with self._database.read() as connection:
            if connection.execute(select(damaged.c.digest).where(nobodys).limit(1)).first() is None:
                return 0
        with self._database.write() as connection:
            return connection.execute(delete(damaged).where(nobodys)).rowcount

    def known(self, digest: Digest) -> bool:
        """Return whether this content is known to be damaged."""
        with self._database.read() as connection:
            return is_damaged(connection, str(digest))

    def count(self) -> int:
        """Return how much content is damaged now."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(damaged)).scalar_one()

    def listed(self, *, limit: int, among: Collection[Digest] = ()) -> list[DamagedContent]:
        """Return the damaged content, in the order it was found; only ``among`` these digests, if given."""
        query = select(damaged).order_by(damaged.c.found_at, damaged.c.digest).limit(limit)
        if among:
            query = query.where(damaged.c.digest.in_(map(str, among)))
        with self._database.read() as connection:
            return [
                DamagedContent(Digest.parse(row.digest), row.problem, row.found_at)
                for row in connection.execute(query)
            ]

    def affected(self, digest: Digest, *, limit: int) -> list[Affected]:
        """Return the repositories that have the content, each with up to ``limit`` of the tags that cannot be
        pulled without it: of this manifest, of one that it is a part of, or of an index of those."""
        with self._database.read() as connection:
            linked = select(links.c.repository_id).where(links.c.digest == str(digest))
            shown = select(manifests.c.repository_id).where(
                manifests.c.digest == str(digest), manifests.c.deleted_at.is_(None)
            )
            rows = connection.execute(
                select(repositories.c.id, repositories.c.name)
                .where(repositories.c.id.in_(linked.union(shown)))
                .order_by(repositories.c.name)
                .limit(_MOST_REPOSITORIES)
            ).all()
            return [_affected(connection, row.id, row.name, str(digest), limit) for row in rows]

    def find(self, digest: Digest) -> HeldContent | None:
        """Return some content if any repository may serve it."""
        text = str(digest)
        linked = select(links.c.size).where(links.c.digest == text)
        shown = select(manifests.c.size).where(manifests.c.digest == text, manifests.c.deleted_at.is_(None))
        with self._database.read() as connection:
            row = connection.execute(linked.union_all(shown).limit(1)).first()
            return None if row is None else HeldContent(digest, row.size, is_damaged(connection, text))

    def content(self, *, after: str, limit: int) -> list[HeldContent]:
        """Return all that some repository may serve, in the order of the digests, those after ``after``."""
        linked = (
            select(links.c.digest, func.max(links.c.size).label("size"), ~whole(links.c.digest).label("bad"))
            .where(links.c.digest > after)
            .group_by(links.c.digest)
        )
        shown = (
            select(
                manifests.c.digest,
                func.max(manifests.c.size).label("size"),
                ~whole(manifests.c.digest).label("bad"),
            )
            .where(manifests.c.digest > after, manifests.c.deleted_at.is_(None))
            .group_by(manifests.c.digest)
        )
        with self._database.read() as connection:
            # Two walks along an index each, merged here: the union of both would be sorted as a whole.
            found = {
                row.digest: HeldContent(Digest.parse(row.digest), row.size, bool(row.bad))
                for query in (linked, shown)
                for row in connection.execute(_first(query, limit))
            }
        return [found[digest] for digest in sorted(found)[:limit]]


def _first(query: Select[tuple[str, int, bool]], limit: int) -> Select[tuple[str, int, bool]]:
    return query.order_by("digest").limit(limit)


def _affected(connection: Connection, repository: int, name: str, digest: str, limit: int) -> Affected:
    above = select(manifest_references.c.parent.label("digest")).where(
        manifest_references.c.repository_id == repository
    )
    up = above.where(manifest_references.c.child == digest).cte("up", recursive=True)
    up = up.union(above.where(manifest_references.c.child == up.c.digest))  # from the part to the whole
    with_it = select(literal(digest)).union_all(select(up.c.digest))
    needing = select(tags.c.name).where(tags.c.repository_id == repository, tags.c.digest.in_(with_it))
    named = list(connection.execute(needing.order_by(tags.c.name).limit(limit)).scalars())
    total = connection.execute(select(func.count()).select_from(needing.subquery())).scalar_one()
    return Affected(name, tuple(named), total - len(named))
