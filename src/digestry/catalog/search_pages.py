"""Searches over all repositories: tags and digests that begin with a text, and what advisories state.

Functions on a transaction, each one statement. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import ColumnElement, Connection, and_, literal, or_, select, tuple_

from digestry.catalog.schema import advisory_statements, links, manifests, repositories, tags
from digestry.model.digest_prefix import DigestPrefix

_AFTER_NAME: Final = "\x7f"
"""It follows every character that a name or tag may have."""
_AFTER_HEX: Final = "g"


@dataclass(frozen=True, slots=True)
class FoundTag:
    """A tag that a search found."""

    repository: str
    name: str
    digest: str
    moved_at: int


@dataclass(frozen=True, slots=True)
class FoundDigest:
    """A digest that a search found in a repository: a manifest, deleted or not, or a blob."""

    repository: str
    digest: str
    kind: Literal["manifest", "blob"]
    media_type: str
    deleted_at: int | None


@dataclass(frozen=True, slots=True)
class FoundStatement:
    """What an advisory states about a vulnerability of ``subject``: an index, image, config or layer."""

    vulnerability: str
    repository: str
    subject: str
    advisory: str
    status: str
    stated_at: int


def tags_beginning(
    connection: Connection, start: str, *, beginning: str, after: tuple[str, str], limit: int
) -> list[FoundTag]:
    """Return the tags that begin with ``start``, in repositories whose names begin so: in the order of both,
    those after a pair of repository and tag."""
    repository, tag = after
    query = (
        select(repositories.c.name.label("repository"), tags.c.name, tags.c.digest, tags.c.moved_at)
        .join_from(repositories, tags, tags.c.repository_id == repositories.c.id)
        .where(
            tags.c.name >= start,
            tags.c.name < start + _AFTER_NAME,
            *_in(beginning),
            repositories.c.name >= repository,
            or_(repositories.c.name > repository, tags.c.name > tag),
        )
        .order_by(repositories.c.name, tags.c.name)
        .limit(limit)
    )
    return [FoundTag(**row._mapping) for row in connection.execute(query)]


def digests_beginning(
    connection: Connection, prefix: DigestPrefix, *, beginning: str, after: tuple[str, str], limit: int
) -> list[FoundDigest]:
    """Return the manifests and blobs whose digests begin so, in repositories whose names begin so: in the
    order of both, those after a pair of digest and repository."""
    found: list[FoundDigest] = []
    for algorithm in prefix.algorithms:
        start = f"{algorithm}:{prefix.encoded}"
        for table, kind, columns in (
            (manifests, "manifest", (manifests.c.media_type, manifests.c.deleted_at)),
            (links, "blob", (literal("").label("media_type"), literal(None).label("deleted_at"))),
        ):
            column = table.c.digest
            query = (
                select(repositories.c.name.label("repository"), column, *columns)
                .join_from(table, repositories, table.c.repository_id == repositories.c.id)
                .where(column >= start, column < start + _AFTER_HEX, *_in(beginning), _after(column, after))
                .order_by(column, repositories.c.name)
                .limit(limit)
            )
            found += [FoundDigest(kind=kind, **row._mapping) for row in connection.execute(query)]  # type: ignore[arg-type]
    return sorted(found, key=lambda one: (one.digest, one.repository))[:limit]


def statements_about(
    connection: Connection,
    vulnerability: str,
    *,
    beginning: str,
    after: FoundStatement | None,
    limit: int,
) -> list[FoundStatement]:
    """Return what advisories state about a vulnerability, in repositories whose names begin so: in the order
    of repositories and subjects, those after a statement."""
    stated = advisory_statements.c
    position = tuple_(stated.vulnerability, stated.repository, stated.subject, stated.advisory)
    spellings = {vulnerability, vulnerability.upper(), vulnerability.casefold()}
    query = select(advisory_statements).where(stated.vulnerability.in_(sorted(spellings)))
    if beginning:
        query = query.where(stated.repository >= beginning, stated.repository < beginning + _AFTER_NAME)
    if after is not None:
        query = query.where(
            position > tuple_(after.vulnerability, after.repository, after.subject, after.advisory)
        )
    order = (stated.vulnerability, stated.repository, stated.subject, stated.advisory)
    rows = connection.execute(query.order_by(*order).limit(limit))
    return [FoundStatement(**row._mapping) for row in rows]


def _in(beginning: str) -> list[ColumnElement[bool]]:
    name = repositories.c.name
    return [name >= beginning, name < beginning + _AFTER_NAME] if beginning else []


def _after(column: ColumnElement[str], after: tuple[str, str]) -> ColumnElement[bool]:
    digest, repository = after
    return or_(column > digest, and_(column == digest, repositories.c.name > repository))
