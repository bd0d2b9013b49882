"""Counts of the fleet for the metrics, which one process makes for all nodes."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from digestry.catalog import dialect
from digestry.catalog.database import Database
from digestry.catalog.fleet.silence import agent_state, source_silent
from digestry.catalog.fleet_schema import fleet_agents, fleet_images, fleet_runs, fleet_sources
from digestry.catalog.job_states import Fence, JobState
from digestry.catalog.transactions import retried
from digestry.model.json_types import prepared

NAME: Final = "fleet_counts"
"""The name of the row of ``jobs`` with the counts."""


class Counts(msgspec.Struct, frozen=True):
    """What runs, by the audit's state of its image; agents by whether they report. Times are microseconds
    since 1970. ``oldest_affected`` is when the oldest affected container started, ``oldest_unjudged`` when
    the oldest image without a verdict was first reported."""

    containers: dict[str, int]
    images: dict[str, int]
    agents: dict[str, int]
    silent_containers: int
    oldest_affected: int | None = None
    oldest_unjudged: int | None = None


class FleetCounts:
    """The counts of the fleet. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, now: int) -> Counts:
        """Count what runs at ``now``. A second for a million containers: not for each scrape."""
        with self._database.read() as connection:
            containers, oldest = _containers(connection)
            unjudged = select(func.min(fleet_images.c.first_at)).where(fleet_images.c.state == "unjudged")
            return Counts(
                containers,
                _by_state(connection),
                _agents(connection, now),
                _silent_containers(connection, now),
                oldest,
                connection.execute(unjudged).scalar(),
            )

    @retried
    def store(self, counts: Counts, now: int, fence: Fence | None = None) -> None:
        """Leave the counts of the time ``now`` to all nodes. Raises :class:`Conflict` if the ``fence`` of the
        process is no longer held."""
        row = {
            "name": NAME,
            "started_at": now,
            "finished_at": now,
            "state": msgspec.json.encode(counts).decode(),
        }
        with self._database.write(durable=False) as connection:
            if fence is not None:
                fence.require_held(connection)
            connection.execute(dialect.of(connection).upserts.job, row)


def of_job(job: JobState) -> Counts | None:
    """Return the counts of a row of ``jobs``; None if they are of a version that counts something else."""
    try:
        return msgspec.convert(job.state, prepared(Counts))
    except msgspec.ValidationError:
        return None


def _containers(connection: Connection) -> tuple[dict[str, int], int | None]:
    running = (
        select(
            fleet_runs.c.image,
            func.count().label("containers"),
            func.min(fleet_runs.c.started_at).label("oldest"),
        )
        .where(fleet_runs.c.ended_at.is_(None))
        .group_by(fleet_runs.c.image)
        .subquery()
    )
    query = (
        select(fleet_images.c.state, func.sum(running.c.containers), func.min(running.c.oldest))
        .join_from(running, fleet_images, fleet_images.c.number == running.c.image)
        .group_by(fleet_images.c.state)
    )
    rows: list[Any] = list(connection.execute(query))
    oldest = {state: at for state, _, at in rows}
    return {state: int(count) for state, count, _ in rows}, oldest.get("affected")


def _by_state(connection: Connection) -> dict[str, int]:
    query = select(fleet_images.c.state, func.count().label("images")).group_by(fleet_images.c.state)
    return {row.state: row.images for row in connection.execute(query)}


def _agents(connection: Connection, now: int) -> dict[str, int]:
    inner = select(agent_state(now).label("state")).select_from(fleet_agents).subquery()
    query = select(inner.c.state, func.count().label("agents")).group_by(inner.c.state)
    return {row.state: row.agents for row in connection.execute(query)}


def _silent_containers(connection: Connection, now: int) -> int:
    query = (
        select(func.coalesce(func.sum(fleet_sources.c.running), 0))
        .outerjoin_from(fleet_sources, fleet_agents, fleet_agents.c.number == fleet_sources.c.agent)
        .where(source_silent(now))
    )
    return int(connection.execute(query).scalar_one())
