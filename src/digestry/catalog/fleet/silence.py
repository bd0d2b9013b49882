"""The SQL conditions under which an agent or a source is silent: nobody knows what runs there."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, exists, func, or_

from digestry.catalog import clock
from digestry.catalog.fleet_schema import fleet_agents, fleet_runs, fleet_sources
from digestry.model.fleet import SHORTEST_INTERVAL, SILENT_AFTER

_PATIENCE: Final = SILENT_AFTER * clock.SECOND
_RUNS: Final = fleet_runs.alias("running")


def agent_silent(now: int) -> ColumnElement[bool]:
    """Return whether nothing was received from a row of ``fleet_agents`` for several of its intervals,
    unless it said that it stops."""
    late = fleet_agents.c.last_at + fleet_agents.c.interval * _PATIENCE < now
    return late & fleet_agents.c.stopped_at.is_(None)


def source_silent(now: int) -> ColumnElement[bool]:
    """Return whether nobody knows what runs in a row of ``fleet_sources`` now, whose agent is joined with it.

    A source that nothing ran in is not silent after its agent stopped on purpose.
    """
    interval = func.coalesce(fleet_agents.c.interval, SHORTEST_INTERVAL)
    late = fleet_sources.c.confirmed_at + interval * _PATIENCE < now
    runs = (
        exists()
        .where(_RUNS.c.source == fleet_sources.c.number, _RUNS.c.ended_at.is_(None))
        .correlate(fleet_sources)
    )
    return or_(
        fleet_sources.c.problem != "",
        late & or_(fleet_agents.c.number.is_(None), fleet_agents.c.stopped_at.is_(None), runs),
    )
