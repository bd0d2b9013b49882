"""How many rows the agents of one place may cause in an hour: more than any honest host does.

Functions on a transaction, which has locked the agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from digestry.catalog import clock
from digestry.catalog.fleet_schema import fleet_agents
from digestry.errors import Forbidden

MOST_RUNS_AN_HOUR: Final = 1_000_000
"""New runs of one place; a host that starts 2,000 short containers a minute makes 120,000."""
MOST_IMAGES_AN_HOUR: Final = 50_000
"""New images of one place."""
MOST_AGENTS_AN_HOUR: Final = 1000
"""New agents of one place; one that keeps no state is new after each start."""

_HOUR: Final = 3600 * clock.SECOND


@dataclass(frozen=True, slots=True)
class HourUsage:
    """How many rows an agent caused in an hour, which is numbered from 1970."""

    hour: int
    runs: int = 0
    images: int = 0


def usage_after(connection: Connection, agent: Row[Any], *, runs: int, images: int, now: int) -> HourUsage:
    """Return what an agent has caused in this hour with so many new rows.

    Raises :class:`Forbidden` if its place has caused too many.
    """
    hour = now // _HOUR
    before = HourUsage(hour, agent.hour_runs, agent.hour_images) if agent.hour == hour else HourUsage(hour)
    if runs or images:
        same = (fleet_agents.c.place == agent.place) & (fleet_agents.c.hour == hour)
        query = select(func.sum(fleet_agents.c.hour_runs), func.sum(fleet_agents.c.hour_images)).where(same)
        all_runs, all_images = connection.execute(query).one()
        for what, new, known, most in (
            ("containers", runs, all_runs, MOST_RUNS_AN_HOUR),
            ("images", images, all_images, MOST_IMAGES_AN_HOUR),
        ):
            if new and new + int(known or 0) > most:
                raise Forbidden(
                    f"{agent.place} would have reported more than {most} new {what} in this hour",
                    hint="find out what starts so many; the agent sends the report again",
                )
    return HourUsage(hour, before.runs + runs, before.images + images)


def check_new_agent(connection: Connection, place: str, now: int) -> None:
    """Raise :class:`Forbidden` if a place has had too many new agents in this hour."""
    lately = fleet_agents.c.first_at >= now // _HOUR * _HOUR
    query = select(func.count()).select_from(fleet_agents).where(fleet_agents.c.place == place, lately)
    if connection.execute(query).scalar_one() >= MOST_AGENTS_AN_HOUR:
        raise Forbidden(
            f"{place} would have more than {MOST_AGENTS_AN_HOUR} new agents in this hour",
            hint="give the agent a state directory that stays",
        )
