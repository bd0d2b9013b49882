"""Pages of repositories with what each has: tags, bytes, and its last change.

Functions on a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, exists, func, select

from digestry.catalog import dialect
from digestry.catalog.schema import journal, links, manifests, repositories, usage


@dataclass(frozen=True, slots=True)
class RepositoryRow:
    """A repository in a list. ``changed_at`` is when one of its tags moved last (microseconds since 1970),
    None if none ever did."""

    name: str
    tags: int
    bytes: int
    changed_at: int | None


def repositories_after(
    connection: Connection, *, after: str, beginning: str, containing: str, limit: int
) -> list[RepositoryRow]:
    """Return the repositories that have anything to pull, whose names begin and contain so, in the order of
    their bytes, those after ``after``."""
    query = _listed().where(repositories.c.name > after).order_by(repositories.c.name).limit(limit)
    if beginning:
        end = f"{beginning}\x7f"  # after every character that a name may have
        query = query.where(repositories.c.name >= beginning, repositories.c.name < end)
    if containing:
        query = query.where(repositories.c.name.contains(containing, autoescape=True))
    return [_row(found) for found in connection.execute(query)]


def repository_named(connection: Connection, name: str) -> RepositoryRow | None:
    """Return a repository that has anything to pull; None if there is none of that name."""
    found = connection.execute(_listed().where(repositories.c.name == name)).first()
    return None if found is None else _row(found)


def _listed() -> Select[Any]:
    row = repositories.c.id
    has_manifest = exists().where(manifests.c.repository_id == row, manifests.c.deleted_at.is_(None))
    has_link = exists().where(links.c.repository_id == row)
    changed_at = (
        select(func.max(journal.c.at)).where(journal.c.repository == repositories.c.name).scalar_subquery()
    )
    return (
        select(repositories.c.name, usage.c.tags, usage.c.bytes, changed_at.label("changed_at"))
        .join_from(repositories, usage, usage.c.repository_id == row, isouter=True)
        .where(has_manifest | has_link)
    )


def _row(found: Row[Any]) -> RepositoryRow:
    return RepositoryRow(found.name, found.tags or 0, found.bytes or 0, found.changed_at)


def present(connection: Connection, repository: int, digests: Iterable[str]) -> frozenset[str]:
    """Return which of the manifests the repository can serve."""
    keys = dialect.of(connection).bulk_keys(sorted((repository, digest) for digest in digests), int)
    here = (manifests.c.repository_id == keys.first) & (manifests.c.digest == keys.second)
    query = select(manifests.c.digest).join_from(keys.table, manifests, here)
    return frozenset(connection.execute(query.where(manifests.c.deleted_at.is_(None))).scalars())
