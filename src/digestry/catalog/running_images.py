"""Which images run, and where, as audits saw them: of an index all that it lists counts.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CompoundSelect, Connection, func, select, union

from digestry.catalog import dialect
from digestry.catalog.schema import manifest_references, sightings


@dataclass(frozen=True, slots=True)
class RunningImage:
    """The containers of an image at all places, and when one was last seen (microseconds since 1970)."""

    containers: int
    places: int
    last_at: int


@dataclass(frozen=True, slots=True)
class RunningPlace:
    """The containers of an image at one place, and when they were first and last seen there."""

    place: str
    containers: int
    first_at: int
    last_at: int


def running(
    connection: Connection, repository: int, name: str, digests: Iterable[str]
) -> dict[str, RunningImage]:
    """Return which of the images of the repository ``name`` run, in one statement."""
    inside = _inside(connection, repository, digests).subquery()
    query = (
        select(
            inside.c.image,
            func.sum(sightings.c.containers).label("containers"),
            func.count(sightings.c.place.distinct()).label("places"),
            func.max(sightings.c.last_at).label("last_at"),
        )
        .join_from(
            inside, sightings, (sightings.c.digest == inside.c.digest) & (sightings.c.repository == name)
        )
        .group_by(inside.c.image)
    )
    return {
        row.image: RunningImage(int(row.containers), row.places, row.last_at)
        for row in connection.execute(query)
    }


def places(
    connection: Connection, repository: int, name: str, digest: str, *, limit: int
) -> list[RunningPlace]:
    """Return the places where an image of the repository ``name`` runs, the last seen first."""
    inside = _inside(connection, repository, [digest]).subquery()
    last_at = func.max(sightings.c.last_at).label("last_at")
    query = (
        select(
            sightings.c.place,
            func.sum(sightings.c.containers).label("containers"),
            func.min(sightings.c.first_at).label("first_at"),
            last_at,
        )
        .join_from(
            inside, sightings, (sightings.c.digest == inside.c.digest) & (sightings.c.repository == name)
        )
        .group_by(sightings.c.place)
        .order_by(last_at.desc(), sightings.c.place)
        .limit(limit)
    )
    return [
        RunningPlace(row.place, int(row.containers), row.first_at, row.last_at)
        for row in connection.execute(query)
    ]


def _inside(connection: Connection, repository: int, digests: Iterable[str]) -> CompoundSelect[Any]:
    """Return each image with every digest that its containers may be reported by: its own, its config's, and
    those of what it lists."""
    keys = dialect.of(connection).bulk_keys(sorted((repository, digest) for digest in set(digests)), int)
    outer, inner = manifest_references.alias("outer"), manifest_references.alias("inner")
    listed = (
        (outer.c.repository_id == keys.first)
        & (outer.c.parent == keys.second)
        & outer.c.role.in_(("manifest", "config"))
    )
    below = (
        (inner.c.repository_id == outer.c.repository_id)
        & (inner.c.parent == outer.c.child)
        & (inner.c.role == "config")
    )
    return union(
        select(keys.second.label("image"), keys.second.label("digest")),
        select(keys.second, outer.c.child).join_from(keys.table, outer, listed),
        select(keys.second, inner.c.child).join_from(keys.table, outer, listed).join(inner, below),
    )
