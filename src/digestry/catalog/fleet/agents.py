"""The rows of agents and of the sources that they look at.

Functions on a transaction. A report locks its agent's row first, then images, then its sources in the order
of their names; so two reports at once never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Row, bindparam, func, select, update

from digestry.catalog import dialect
from digestry.catalog.fleet import intake_limits
from digestry.catalog.fleet.intake_limits import HourUsage
from digestry.catalog.fleet_schema import fleet_agents, fleet_sources
from digestry.catalog.frequent_statements import frequent
from digestry.catalog.schema import robot_tokens
from digestry.catalog.transactions import TransactionUndone
from digestry.errors import Forbidden
from digestry.model.fleet import FleetReport

MOST_SOURCES: Final = 256
"""The most sources in one place."""
ROBOT_PREFIX: Final = "robot$"

# Of every report, and so built once.
_AGENT: Final = frequent(
    select(fleet_agents).where(fleet_agents.c.id == bindparam("agent")).with_for_update()
)
_HEARD: Final = frequent(
    update(fleet_agents)
    .where(fleet_agents.c.number == bindparam("agent"))
    .values(
        actor=bindparam("actor_now"),
        version=bindparam("version_now"),
        interval=bindparam("interval_now"),
        last_at=bindparam("now"),
        sequence=bindparam("received"),
        clock_offset=bindparam("ahead"),
        stopped_at=bindparam("stopped"),
        hour=bindparam("in_hour"),
        hour_runs=bindparam("runs_in_hour"),
        hour_images=bindparam("images_in_hour"),
        silent_at=None,
    )
)
_SOURCE: Final = frequent(
    select(fleet_sources)
    .where(fleet_sources.c.place == bindparam("at_place"), fleet_sources.c.source == bindparam("name"))
    .with_for_update()
)
_CONFIRMED: Final = frequent(
    update(fleet_sources)
    .where(fleet_sources.c.number == bindparam("source_number"))
    .values(
        agent=bindparam("by_agent"),
        confirmed_at=bindparam("confirmed"),
        running=fleet_sources.c.running + bindparam("opened", type_=BigInteger),
        snapshot_at=bindparam("snapshot"),
        problem=bindparam("trouble"),
        problem_at=bindparam("trouble_at"),
    )
)


def lock_agent(connection: Connection, report: FleetReport, *, actor: str, now: int) -> tuple[Row[Any], bool]:
    """Return an agent's row, locked, and whether it is new.

    Raises :class:`Forbidden` if the agent is another user's, or another place's.
    """
    row = connection.execute(_AGENT, {"agent": report.agent}).first()
    new = row is None
    if row is None:
        intake_limits.check_new_agent(connection, report.place, now)
        values = {
            "id": report.agent,
            "place": report.place,
            "actor": actor,
            "version": report.version,
            "interval": report.interval,
            "first_at": now,
            "last_at": now,
            "sequence": 0,
            "clock_offset": 0,
            "hour": 0,
            "hour_runs": 0,
            "hour_images": 0,
        }
        connection.execute(dialect.of(connection).upserts.fleet_agent, values)
        row = connection.execute(_AGENT, {"agent": report.agent}).first()
    if row is None:
        raise TransactionUndone("an agent was removed while its report was recorded")
    if row.place != report.place:
        raise Forbidden(
            f"agent {report.agent} reports for {row.place}, not for {report.place}",
            hint="give an agent of another place another state directory",
        )
    if row.actor != actor and _usable(connection, row.actor, now):
        raise Forbidden(
            f"agent {report.agent} belongs to another user",
            hint="give each agent a state directory of its own",
        )
    return row, new


def _usable(connection: Connection, actor: str, now: int) -> bool:
    """Return whether an agent's user can still log in: else another one may take over."""
    if not actor.startswith(ROBOT_PREFIX):
        return actor != "anonymous"  # the registry had no users then
    token = robot_tokens.c.name == actor.removeprefix(ROBOT_PREFIX)
    ends = robot_tokens.c.expires_at
    usable = robot_tokens.c.revoked_at.is_(None) & (ends.is_(None) | (ends > now))
    return connection.execute(select(robot_tokens.c.name).where(token, usable)).first() is not None


def update_agent(
    connection: Connection,
    number: int,
    report: FleetReport,
    *,
    actor: str,
    sequence: int,
    ahead: int,
    usage: HourUsage,
    now: int,
) -> None:
    """Record that an agent was heard, and up to which number its entries are recorded."""
    values = {
        "agent": number,
        "actor_now": actor,
        "version_now": report.version,
        "interval_now": report.interval,
        "now": now,
        "received": sequence,
        "ahead": ahead,
        "stopped": now if report.stopping else None,
        "in_hour": usage.hour,
        "runs_in_hour": usage.runs,
        "images_in_hour": usage.images,
    }
    connection.execute(_HEARD, values)


def lock_sources(
    connection: Connection, place: str, names: Collection[str], *, agent: int, now: int
) -> dict[str, Row[Any]]:
    """Return the rows of a place's sources by their names, locked; they are made if they are not there.

    Raises :class:`Forbidden` if the place would have too many.
    """
    found = _locked(connection, place, names)
    missing = sorted(set(names) - found.keys())
    if missing:
        there = connection.execute(
            select(func.count()).select_from(fleet_sources).where(fleet_sources.c.place == place)
        ).scalar_one()
        if there + len(missing) > MOST_SOURCES:
            raise Forbidden(f"{place} would have more than {MOST_SOURCES} sources")
        rows = [
            {
                "place": place,
                "source": name,
                "agent": agent,
                "first_at": now,
                "confirmed_at": 0,
                "running": 0,
                "problem": "",
            }
            for name in missing
        ]
        connection.execute(dialect.of(connection).upserts.fleet_source, rows)
        found = _locked(connection, place, names)
    return found


def _locked(connection: Connection, place: str, names: Collection[str]) -> dict[str, Row[Any]]:
    found = {}
    for name in sorted(names):
        row = connection.execute(_SOURCE, {"at_place": place, "name": name}).first()
        if row is not None:
            found[name] = row
    return found


def update_source(
    connection: Connection,
    number: int,
    *,
    agent: int,
    confirmed_at: int,
    opened: int,
    snapshot_at: int | None,
    problem: str,
    problem_at: int | None,
) -> None:
    """Record what a report says about a source, of which ``opened`` runs more than before have no end."""
    values = {
        "source_number": number,
        "by_agent": agent,
        "confirmed": confirmed_at,
        "opened": opened,
        "snapshot": snapshot_at,
        "trouble": problem,
        "trouble_at": problem_at,
    }
    connection.execute(_CONFIRMED, values)
