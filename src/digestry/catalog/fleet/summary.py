"""The fleet in numbers: how many containers run, by the audit's state of their images."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Select, case, func, select

from digestry.catalog import clock
from digestry.catalog.fleet.selection import Asker, ImageFilter, chosen
from digestry.catalog.fleet.silence import agent_silent, source_silent
from digestry.catalog.fleet_schema import fleet_agents, fleet_images, fleet_runs, fleet_sources
from digestry.model.fleet_answers import FleetState, FleetSummary

_MOST_HOSTS: Final = 20


def summarize(connection: Connection, asker: Asker, *, now: int) -> FleetSummary:
    """Return the summary of what ``asker`` may know of. Places and agents are counted for one who audits
    everything; for others only the places where their images run."""
    numbers = chosen(connection, ImageFilter(), asker)
    running = select(
        fleet_runs.c.image,
        func.count().label("containers"),
        func.min(fleet_runs.c.started_at).label("oldest"),
    ).where(fleet_runs.c.ended_at.is_(None))
    if numbers is not None:
        running = running.where(fleet_runs.c.image.in_(numbers))
    counted = running.group_by(fleet_runs.c.image).subquery()
    states = (
        select(
            fleet_images.c.state,
            func.sum(counted.c.containers).label("containers"),
            func.count().label("images"),
            func.min(counted.c.oldest).label("oldest"),
        )
        .join_from(counted, fleet_images, fleet_images.c.number == counted.c.image)
        .group_by(fleet_images.c.state)
    )
    containers: dict[FleetState, int] = {}
    images: dict[FleetState, int] = {}
    oldest = None
    for row in connection.execute(states):
        containers[row.state] = int(row.containers)
        images[row.state] = int(row.images)
        if row.state == "affected":
            oldest = clock.to_datetime(row.oldest)
    silent_containers, places, silent_places = _places(connection, asker, numbers, now)
    agents, silent_agents = _agents(connection, asker, now)
    return FleetSummary(
        at=clock.to_datetime(now),
        containers=containers,
        images=images,
        silent_containers=silent_containers,
        places=places,
        silent_places=silent_places,
        agents=agents,
        silent_agents=silent_agents,
        oldest_affected=oldest,
        limited=not asker.everything,
        unknown_hosts=_unknown_hosts(connection) if asker.everything else {},
    )


def _unknown_hosts(connection: Connection) -> dict[str, int]:
    """Return the registries that were not asked about unknown images, with the containers of each."""
    # The verdict's field, which is written only if it is not empty; quotes in other fields are escaped.
    foreign = (fleet_images.c.state == "unknown") & fleet_images.c.verdict.contains('"foreign":"')
    runs = (fleet_runs.c.image == fleet_images.c.number) & fleet_runs.c.ended_at.is_(None)
    containers = func.count().label("containers")
    query = (
        select(fleet_images.c.host, containers)
        .join_from(fleet_images, fleet_runs, runs)
        .where(foreign)
        .group_by(fleet_images.c.host)
        .order_by(containers.desc(), fleet_images.c.host)
        .limit(_MOST_HOSTS)
    )
    return {row.host: int(row.containers) for row in connection.execute(query)}


def _places(
    connection: Connection, asker: Asker, numbers: Select[Any] | None, now: int
) -> tuple[int, int, int]:
    """Return how many containers run in silent sources, how many places there are, and silent ones."""
    silent = source_silent(now).label("silent")
    if asker.everything or numbers is None:
        query = select(fleet_sources.c.place, fleet_sources.c.running.label("containers"), silent)
        query = query.select_from(fleet_sources)
    else:
        counted = (
            select(fleet_runs.c.source, func.count().label("containers"))
            .where(fleet_runs.c.ended_at.is_(None), fleet_runs.c.image.in_(numbers))
            .group_by(fleet_runs.c.source)
            .subquery()
        )
        query = select(fleet_sources.c.place, counted.c.containers, silent)
        query = query.join_from(counted, fleet_sources, fleet_sources.c.number == counted.c.source)
    sources = query.outerjoin(fleet_agents, fleet_agents.c.number == fleet_sources.c.agent).subquery()
    totals = select(
        func.coalesce(func.sum(case((sources.c.silent, sources.c.containers), else_=0)), 0),
        func.count(sources.c.place.distinct()),
        func.count(case((sources.c.silent, sources.c.place)).distinct()),
    )
    row = connection.execute(totals).one()
    return int(row[0]), int(row[1]), int(row[2])


def _agents(connection: Connection, asker: Asker, now: int) -> tuple[int, int]:
    if not asker.everything:
        return 0, 0
    query = select(func.count(), func.count(case((agent_silent(now), 1)))).select_from(fleet_agents)
    row = connection.execute(query).one()
    return int(row[0]), int(row[1])
