"""The SQL conditions under which an agent or a source is silent: nobody knows what runs there.

All answers, pages, metrics and webhooks take them from here.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, case, func, or_

from digestry.catalog import clock
from digestry.catalog.fleet_schema import fleet_agents, fleet_sources
from digestry.model.fleet import SHORTEST_INTERVAL, SILENT_AFTER

_PATIENCE: Final = SILENT_AFTER * clock.SECOND


def agent_silent(now: int) -> ColumnElement[bool]:
    """Return whether nothing was received from a row of ``fleet_agents`` for several of its intervals,
    unless it said that it stops."""
    late = fleet_agents.c.last_at + fleet_agents.c.interval * _PATIENCE < now
    return late & fleet_agents.c.stopped_at.is_(None)


def agent_could_report(now: int, heard_since: int) -> ColumnElement[bool]:
    """Return whether reports have been received for several intervals of a row of ``fleet_agents``, since
    ``heard_since``: before that, its silence may be the registry's own."""
    return fleet_agents.c.interval * _PATIENCE < now - heard_since


def agent_state(now: int) -> ColumnElement[str]:
    """Return whether a row of ``fleet_agents`` is ``reporting``, ``silent`` or ``stopped``."""
    stopped = fleet_agents.c.stopped_at.is_not(None)
    return case((stopped, "stopped"), (agent_silent(now), "silent"), else_="reporting")


def source_silent(now: int) -> ColumnElement[bool]:
    """Return whether nobody knows what runs in a row of ``fleet_sources`` now, whose agent is joined with it.

    A source that nothing ran in is not silent after its agent stopped on purpose.
    """
    interval = func.coalesce(fleet_agents.c.interval, SHORTEST_INTERVAL)
    late = fleet_sources.c.confirmed_at + interval * _PATIENCE < now
    return or_(
        fleet_sources.c.problem != "",
        late
        & or_(
            fleet_agents.c.number.is_(None),
            fleet_agents.c.stopped_at.is_(None),
            fleet_sources.c.running > 0,
        ),
    )
