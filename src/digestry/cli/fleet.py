"""``digestry fleet``: show what agents reported: who runs an image, since when, and until when."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.command_group import Group
from digestry.cli.fleet_changes import since
from digestry.cli.fleet_rows import RUN_COLUMNS, row_of, short_time
from digestry.cli.fleet_silent import silent
from digestry.cli.fleet_summary import summary
from digestry.cli.fleet_target import (
    is_vulnerability,
    limit_option,
    open_fleet,
    place_option,
    registry_option,
)
from digestry.cli.fleet_timeline import timeline
from digestry.cli.listing import Listing, View, listing_options
from digestry.cli.output import note
from digestry.cli.time_options import time_option
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.cli.row_template import Row
    from digestry.model.fleet_answers import FleetImage

LISTING: Final = Listing(
    "fleet who",
    "Containers that run, or ran, an image: those that run first, then the latest.",
    RUN_COLUMNS,
)


@click.group(cls=Group)
def fleet() -> None:
    """Show what agents reported to a registry: who runs an image, since when, and until when.

    digestry agent reports what runs on a host or in a cluster. The registry keeps every container from its
    start to its end, and judges the images. A place that no longer reports is silent: what runs there is not
    known, and is never taken to have ended.
    """


for _command in (since, silent, summary, timeline):
    fleet.add_command(_command)


@fleet.command("who")
@click.argument("target", metavar="DIGEST|REF|LAYER|CVE")
@registry_option
@time_option("--at", last=True, help="Those that ran then.")
@click.option("--ever", is_flag=True, help="All that ever ran it.")
@place_option
@limit_option("containers")
@listing_options(LISTING)
@timeout_option
def who(
    *,
    target: str,
    registry: str | None,
    at: datetime.datetime | None,
    ever: bool,
    place: str,
    limit: int,
    view: View,
) -> None:
    """List the containers that run an image, or an image with a layer, or one that a vulnerability affects.

    A tag means the image that it points to now, with --ever all that it ever pointed to. UNTIL is "runs", or
    when it ended, or "silent": its place no longer reports, and nobody knows whether it still runs.

    JSON: a list of objects with state, place, name, digest, since, until (null while it is not known to have
    ended), layer, reference, vulnerabilities, fixed, base, until_after, last_seen, silent and more; digestry
    schema fleet who describes them.

    Exit code 1 if one of them is affected; 3 if none is, but a place is silent, an image is not judged, or a
    vulnerability may be in an image of which nothing is known; 0 only if all is known.
    """
    if at is not None and ever:
        raise click.UsageError("--at and --ever are two different times")
    from digestry.cli.fleet_unknowns import status

    rows: list[Row] = []
    images: dict[int, FleetImage] = {}
    total = 0
    with open_fleet(registry, target, place) as asked:
        for page in asked.fleet.runs(asked.choice, at=at, ever=ever):
            total = page.total
            images |= {image.number: image for image in page.images}
            rows += [row_of(run, images.get(run.image)) for run in page.runs[: limit - len(rows)]]
            if len(rows) >= limit:
                break
        known = asked.fleet.summary()
        host = asked.host
    shown = ["state", "place", "name", "digest", "since", "until"]
    if any(row["layer"] is not None for row in rows):
        shown.append("layer")
    view.show(rows, default=shown)
    if total > len(rows):
        note(f"digestry: {number_of(total - len(rows), 'more container')}: --limit {total} lists them all")
    if not rows:
        when = "" if at is None else f" at {short_time(at)}"
        verb = "is known to have run" if ever or at is not None else "is known to run"
        note(f"digestry: no container {verb} {target}{when}")
    affected = any(row["state"] == "affected" for row in rows)
    uncertain = any(row["silent"] or row["state"] in {"unknown", "unjudged"} for row in rows)
    named = is_vulnerability(target)
    raise click.exceptions.Exit(
        status(known, host, affected=affected, uncertain=uncertain, by_vulnerability=named)
    )
