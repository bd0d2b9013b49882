"""Pages of referrers and of advisories, newest first.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select, select

from digestry.catalog import manifest_rows
from digestry.catalog.manifest_rows import StoredManifest
from digestry.catalog.schema import manifests
from digestry.model import media_types

_PAGE_BYTES: Final = 3 << 20
"""So many bytes of annotations end a page: clients take answers of 4 MiB (distribution-spec)."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; ``more`` is whether further entries follow."""

    rows: tuple[StoredManifest, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a list that is newest first; its entry may have been removed since."""

    pushed_at: int
    digest: str


def referrers(
    connection: Connection,
    repository: int,
    subject: str,
    *,
    artifact_type: str | None,
    after: Cursor | None,
    limit: int,
) -> Page:
    """Return the manifests whose subject this is, newest first, those after ``after``."""
    query = select(manifests.c.digest, manifests.c.size).where(
        manifests.c.repository_id == repository,
        manifests.c.subject == subject,
        manifests.c.deleted_at.is_(None),
    )
    if artifact_type is not None:
        query = query.where(manifests.c.artifact_type == artifact_type)
    if after is not None:
        query = query.where(
            (manifests.c.pushed_at < after.pushed_at)
            | ((manifests.c.pushed_at == after.pushed_at) & (manifests.c.digest > after.digest))
        )
    newest_first = (manifests.c.pushed_at.desc(), manifests.c.digest)
    # Digests alone are put in order, and then the rows of one page are read: their annotations may be large.
    chosen = connection.execute(query.order_by(*newest_first).limit(limit + 1)).all()
    page: list[StoredManifest] = []
    held = 0
    for digests in manifest_rows.in_pieces(((row.digest, row.size) for row in chosen), _PAGE_BYTES):
        of_piece = manifests.c.repository_id == repository, manifests.c.digest.in_(digests)
        rows = {row.digest: row for row in connection.execute(select(manifests).where(*of_piece))}
        for digest in digests:
            held += len(rows[digest].annotations)
            if page and (len(page) == limit or held > _PAGE_BYTES):
                return Page(tuple(page), more=True)
            page.append(manifest_rows.to_stored(rows[digest]))
    return Page(tuple(page), more=False)


def advisories(
    connection: Connection, repository: int, predicate_prefix: str, *, after: str | None, limit: int
) -> Page:
    """Return the repository's advisories, newest first: in-toto referrers annotated with such a predicate."""
    query = select(manifests).where(
        manifests.c.repository_id == repository,
        manifests.c.subject.is_not(None),
        manifests.c.artifact_type == media_types.IN_TOTO,
        manifests.c.deleted_at.is_(None),
    )
    if after is not None:
        here = (manifests.c.repository_id == repository) & (manifests.c.digest == after)
        pushed_at = connection.execute(select(manifests.c.pushed_at).where(here)).scalar()
        if pushed_at is None:
            return Page((), more=False)
        query = query.where(
            (manifests.c.pushed_at < pushed_at)
            | ((manifests.c.pushed_at == pushed_at) & (manifests.c.digest < after))
        )
    query = query.order_by(manifests.c.pushed_at.desc(), manifests.c.digest.desc())
    return _page(connection, query, limit, predicate_prefix)


def _page(
    connection: Connection, query: Select[Any], limit: int, predicate_prefix: str | None = None
) -> Page:
    """Read row by row: a page ends before its annotations are more than an answer may have."""
    page: list[StoredManifest] = []
    held = 0
    rows = connection.execute(query, execution_options={"yield_per": 16})
    try:
        for row in rows:
            held += len(row.annotations)
            if page and (len(page) == limit or held > _PAGE_BYTES):
                return Page(tuple(page), more=True)
            found = manifest_rows.to_stored(row)
            if predicate_prefix is not None:
                predicate = found.annotations.get(media_types.PREDICATE_TYPE, "")
                if not predicate.startswith(predicate_prefix):
                    held -= len(row.annotations)
                    continue
            page.append(found)
    finally:
        rows.close()
    return Page(tuple(page), more=False)
