"""Which images run, and where, as agents report or audits saw it: of an index all that it lists counts.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Select, case, func, select, union

from digestry.catalog import dialect
from digestry.catalog.dialect import BulkKeys
from digestry.catalog.fleet.silence import source_silent
from digestry.catalog.fleet_schema import (
    fleet_agents,
    fleet_image_digests,
    fleet_images,
    fleet_runs,
    fleet_sources,
)
from digestry.catalog.schema import manifest_references, sightings

_LATEST_ENDS: Final = 10_000
"""Ended runs of an image among which its places are found: the latest."""


@dataclass(frozen=True, slots=True)
class RunningImage:
    """The containers of an image at all places, and when one was last seen (microseconds since 1970).

    ``silent`` of them were last reported by agents that are silent: nobody knows whether these still run.
    """

    containers: int
    places: int
    last_at: int
    silent: int = 0


@dataclass(frozen=True, slots=True)
class RunningPlace:
    """The containers of an image at one place, and when they were first and last seen there.

    ``containers`` have no known end; ``silent`` of these are where nobody knows what runs now. ``ended`` ran
    there and ended, the last one at ``ended_at``. ``reported`` is whether an agent says so: it reports
    ends, and an audit, which saw them at ``last_at``, does not.
    """

    place: str
    containers: int
    first_at: int
    last_at: int
    reported: bool = False
    silent: int = 0
    ended: int = 0
    ended_at: int | None = None


def running(
    connection: Connection, repository: int, name: str, digests: Iterable[str], *, now: int
) -> dict[str, RunningImage]:
    """Return which of the images of the repository ``name`` run: as agents report it, and of the others as
    audits saw it. Two statements."""
    wanted = list(digests)
    return _seen(connection, repository, name, wanted) | _reported(connection, name, wanted, now)


def _reported(connection: Connection, name: str, digests: Iterable[str], now: int) -> dict[str, RunningImage]:
    """Return the images that run now, as agents report it. ``last_at`` is when that was last known."""
    keys = dialect.of(connection).bulk_keys(sorted((name, digest) for digest in set(digests)), str)
    query = select(
        keys.second.label("image"),
        func.count(fleet_runs.c.number.distinct()).label("containers"),
        func.count(fleet_sources.c.place.distinct()).label("places"),
        func.max(fleet_sources.c.confirmed_at).label("last_at"),
        _silent_containers(now),
    )
    rows = connection.execute(_open_runs(query, keys).group_by(keys.second))
    return {row.image: RunningImage(row.containers, row.places, row.last_at, row.silent) for row in rows}


def _silent_containers(now: int) -> ColumnElement[int]:
    """Return how many of the runs of :func:`_open_runs` are where nobody knows what runs now."""
    return func.count(case((source_silent(now), fleet_runs.c.number)).distinct()).label("silent")


def _open_runs(query: Select[Any], keys: BulkKeys) -> Select[Any]:
    """Return ``query`` over the runs that have not ended, of the images in a repository that ``keys`` names
    by repository and digest."""
    known = (fleet_image_digests.c.digest == keys.second) & (fleet_image_digests.c.kind != "layer")
    here = (fleet_images.c.number == fleet_image_digests.c.image) & (fleet_images.c.home == keys.first)
    runs = (fleet_runs.c.image == fleet_images.c.number) & fleet_runs.c.ended_at.is_(None)
    return (
        query.join_from(keys.table, fleet_image_digests, known)
        .join(fleet_images, here)
        .join(fleet_runs, runs)
        .join(fleet_sources, fleet_sources.c.number == fleet_runs.c.source)
        .outerjoin(fleet_agents, fleet_agents.c.number == fleet_sources.c.agent)
    )


def _seen(
    connection: Connection, repository: int, name: str, digests: Iterable[str]
) -> dict[str, RunningImage]:
    """Return where audits saw the images."""
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
    connection: Connection, repository: int, name: str, digest: str, *, now: int, limit: int
) -> list[RunningPlace]:
    """Return the places where an image of the repository ``name`` runs or ran: as agents report it, and of
    other places as audits saw it. Those without a known end come first, and of these the last seen."""
    found = _reported_places(connection, name, digest, now=now, limit=limit)
    for place in _ended_places(connection, name, digest, limit=limit):
        known = found.get(place.place)
        found[place.place] = place if known is None else _both(known, place)
    for place in _seen_places(connection, repository, name, digest, limit=limit):
        found.setdefault(place.place, place)
    order = sorted(found.values(), key=lambda place: (not place.containers, -place.last_at, place.place))
    return order[:limit]


def _both(running: RunningPlace, ended: RunningPlace) -> RunningPlace:
    """Return what is known of a place where containers of an image run, and others ended."""
    first_at = min(running.first_at, ended.first_at)
    return replace(running, first_at=first_at, ended=ended.ended, ended_at=ended.ended_at)


def _reported_places(
    connection: Connection, name: str, digest: str, *, now: int, limit: int
) -> dict[str, RunningPlace]:
    keys = dialect.of(connection).bulk_keys([(name, digest)], str)
    last_at = func.max(fleet_sources.c.confirmed_at).label("last_at")
    query = select(
        fleet_sources.c.place,
        func.count(fleet_runs.c.number.distinct()).label("containers"),
        func.min(fleet_runs.c.started_at).label("first_at"),
        last_at,
        _silent_containers(now),
    )
    query = _open_runs(query, keys).group_by(fleet_sources.c.place)
    rows = connection.execute(query.order_by(last_at.desc(), fleet_sources.c.place).limit(limit))
    return {row.place: RunningPlace(**row._mapping, reported=True) for row in rows}


def _ended_places(connection: Connection, name: str, digest: str, *, limit: int) -> list[RunningPlace]:
    """Return the places of the latest runs of an image that ended."""
    images = (
        select(fleet_images.c.number)
        .join_from(fleet_image_digests, fleet_images, fleet_images.c.number == fleet_image_digests.c.image)
        .where(
            fleet_image_digests.c.digest == digest,
            fleet_image_digests.c.kind != "layer",
            fleet_images.c.home == name,
        )
    )
    over = fleet_runs.c.ended_at.is_not(None) & fleet_runs.c.image.in_(images)
    numbers = select(fleet_runs.c.number).where(over).order_by(fleet_runs.c.ended_at.desc())
    latest = numbers.limit(_LATEST_ENDS).subquery()
    ended_at = func.max(fleet_runs.c.ended_at).label("ended_at")
    query = (
        select(
            fleet_sources.c.place,
            func.count().label("ended"),
            func.min(fleet_runs.c.started_at).label("first_at"),
            ended_at,
        )
        .join_from(latest, fleet_runs, fleet_runs.c.number == latest.c.number)
        .join(fleet_sources, fleet_sources.c.number == fleet_runs.c.source)
        .group_by(fleet_sources.c.place)
        .order_by(ended_at.desc(), fleet_sources.c.place)
        .limit(limit)
    )
    return [
        RunningPlace(
            row.place, 0, row.first_at, row.ended_at, reported=True, ended=row.ended, ended_at=row.ended_at
        )
        for row in connection.execute(query)
    ]


def _seen_places(
    connection: Connection, repository: int, name: str, digest: str, *, limit: int
) -> list[RunningPlace]:
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
