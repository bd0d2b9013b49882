"""Pages of tags with what each points to, since when, and how often it moved.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, func, literal, or_, select

from digestry.catalog.schema import journal, manifests, tags

MOST_MOVES: Final = 1000
"""Moves of a tag are counted up to so many."""


@dataclass(frozen=True, slots=True)
class TagCursor:
    """The position of a tag in a list: its name and, in the order of time, when it moved."""

    name: str
    moved_at: int = 0


@dataclass(frozen=True, slots=True)
class ListedTag:
    """A tag in a list, and the manifest or index that it points to.

    ``size`` is the manifest's own in bytes, and ``config`` the digest of its config, None for an index.
    ``moves`` counts the journal's entries, up to :data:`MOST_MOVES`.
    """

    name: str
    digest: str
    moved_at: int
    moves: int
    media_type: str
    size: int
    config: str | None
    artifact_type: str | None


def tags_page(
    connection: Connection,
    repository: int,
    name: str,
    *,
    containing: str,
    newest_first: bool,
    after: TagCursor | None,
    limit: int,
) -> list[ListedTag]:
    """Return the tags of the repository ``name`` that contain a text, those after a tag: the order is that of
    their bytes, or with ``newest_first`` that of their last moves."""
    page = select(tags.c.name, tags.c.digest, tags.c.moved_at).where(tags.c.repository_id == repository)
    if containing:
        page = page.where(tags.c.name.contains(containing, autoescape=True))
    if newest_first:
        if after is not None:
            same_time = and_(tags.c.moved_at == after.moved_at, tags.c.name > after.name)
            page = page.where(or_(tags.c.moved_at < after.moved_at, same_time))
        page = page.order_by(tags.c.moved_at.desc(), tags.c.name)
    else:
        page = page.where(tags.c.name > (after.name if after else "")).order_by(tags.c.name)
    # The page is chosen first: only its tags are looked up in the journal.
    tag = page.limit(limit).subquery("tag")
    entries = (
        select(literal(1).label("one"))
        .where(journal.c.repository == name, journal.c.tag == tag.c.name)
        .limit(MOST_MOVES)
        .correlate(tag)
        .subquery("entries")
    )
    query = select(
        tag,
        select(func.count()).select_from(entries).scalar_subquery().label("moves"),
        manifests.c.media_type,
        manifests.c.size,
        manifests.c.config,
        manifests.c.artifact_type,
    ).join_from(
        tag,
        manifests,
        (manifests.c.repository_id == repository) & (manifests.c.digest == tag.c.digest),
    )
    order = (tag.c.moved_at.desc(), tag.c.name) if newest_first else (tag.c.name,)
    return [ListedTag(**row._mapping) for row in connection.execute(query.order_by(*order))]
