"""``digestry fleet silent``: list what is not known of a fleet, and why."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from digestry.cli import exit_codes
from digestry.cli.fleet_rows import shown_time
from digestry.cli.fleet_target import open_fleet, registry_option
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import note
from digestry.cli.row_template import Row
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import number_of
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.model.fleet_answers import FleetPlaces

CLOCK_SECONDS: Final = 2.0
"""A clock that differs by more is reported: the registry corrects what its agent reports by then."""


def _since(row: Row, whole: bool) -> str:
    return shown_time(row["since"], whole)


LISTING: Final = Listing(
    "fleet silent",
    "Agents and sources that no longer report, times of which nothing is known, and clocks that are off.",
    (
        Column("what", "text", "agent, source, gap, or clock."),
        Column("place", "text", "The host or cluster."),
        Column("since", "time", "Since when; of a gap and a clock: when (RFC 3339).", show=_since),
        Column("about", "text", "What is not known, and why.", longest=60),
        Column("name", "text", "Of the agent or the source.", shown=False),
        Column("containers", "number", "How many ran in a source, as far as is known.", shown=False),
        Column("until", "time", "The end of a gap; null for others.", nullable=True, shown=False),
    ),
)


@click.command("silent")
@registry_option
@listing_options(LISTING)
@timeout_option
def silent(*, registry: str | None, view: View) -> None:
    """List agents and engines that stopped reporting, times of which nothing is known, and clocks that are
    off.

    An agent is silent if nothing came from it for three of its intervals, unless it said that it stops.

    JSON: a list of objects with what (agent, source, gap or clock), place, since, about, name, containers
    and until (the end of a gap).

    Exit code 3 if an agent or a source is silent, or none has ever reported; else 0.
    """
    rows: list[Row] = []
    agents = 0
    with open_fleet(registry) as asked:
        for page in asked.fleet.places():
            agents += len(page.agents)
            rows += _rows(page)
        host = asked.host
    view.show(rows)
    if not agents:
        note(f"digestry: no agent has reported what runs to {host}: nothing is known")
    elif not rows:
        note(f"digestry: {number_of(agents, 'agent')} reported to {host}, and none of them is silent")
    dark = any(row["what"] in {"agent", "source"} for row in rows)
    raise click.exceptions.Exit(exit_codes.REMOTE if dark or not agents else exit_codes.OK)


def _rows(page: FleetPlaces) -> Iterator[Row]:
    for agent in page.agents:
        if agent.silent:
            about = f"should have reported every {number_of(agent.interval, 'second')}"
            yield _row("agent", agent.place, agent.last, about, agent.id)
        if abs(agent.clock_ahead) > CLOCK_SECONDS:
            way = "ahead" if agent.clock_ahead > 0 else "behind"
            about = f"its clock is {abs(agent.clock_ahead):.1f} s {way}; the times are corrected"
            yield _row("clock", agent.place, agent.last, about, agent.id)
    for source in page.sources:
        if source.silent:
            about = f"{source.source}: {number_of(source.running, 'container')} ran when it was last known"
            if source.problem:
                about += f"; {source.problem}"
            yield _row(
                "source", source.place, source.confirmed, about, source.source, containers=source.running
            )
    for gap in page.gaps:
        about = f"{gap.source}: not known until {shown_time(rfc3339(gap.until), False)}: {gap.reason}"
        yield _row("gap", gap.place, gap.from_, about, gap.source, until=rfc3339(gap.until))


def _row(
    what: str,
    place: str,
    since: datetime.datetime,
    about: str,
    name: str,
    *,
    containers: int = 0,
    until: str | None = None,
) -> Row:
    return {
        "what": what,
        "place": place,
        "since": rfc3339(since),
        "about": about,
        "name": name,
        "containers": containers,
        "until": until,
    }
