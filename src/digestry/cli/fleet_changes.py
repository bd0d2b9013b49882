"""``digestry fleet since``: list what started and stopped since a time."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.fleet_rows import RUN_COLUMNS, row_of, shown_time
from digestry.cli.fleet_target import limit_option, open_fleet, place_option, registry_option
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import note
from digestry.cli.row_template import Row
from digestry.cli.time_options import moment
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import number_of
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.model.fleet_answers import FleetImage


def _at(row: Row, whole: bool) -> str:
    return shown_time(row["at"], whole)


LISTING: Final = Listing(
    "fleet since",
    "What started and stopped, the oldest first.",
    (
        Column("at", "time", "When (RFC 3339).", show=_at),
        Column("change", "text", "started or stopped."),
        *RUN_COLUMNS,
    ),
)


class _Time(click.ParamType[datetime.datetime]):
    name = "time"

    def convert(
        self, value: str | datetime.datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime.datetime:
        if isinstance(value, datetime.datetime):
            return value
        return moment(value, last=False, now=datetime.datetime.now(datetime.UTC))


@click.command("since")
@click.argument("time", metavar="TIME", type=_Time())
@registry_option
@place_option
@limit_option("changes")
@listing_options(LISTING)
@timeout_option
def since(*, time: datetime.datetime, registry: str | None, place: str, limit: int, view: View) -> None:
    """List which containers started and stopped since TIME, the oldest first.

    TIME is a time such as 2026-11-27T14:32, or 2h or 3d for so long ago.

    JSON: a list of objects with at, change (started or stopped), and the columns of digestry fleet who.

    Exit code 1 if one that started is affected; 3 if none is, but a place is silent or an image is not
    judged; 0 only if all is known.
    """
    from digestry.cli.fleet_unknowns import status

    rows: list[Row] = []
    images: dict[int, FleetImage] = {}
    total = 0
    with open_fleet(registry, place=place) as asked:
        for page in asked.fleet.changes(time, asked.choice):
            total = page.total
            images |= {image.number: image for image in page.images}
            rows += [
                {"at": rfc3339(change.at), "change": change.change}
                | dict(row_of(change.run, images.get(change.run.image)))
                for change in page.changes[: limit - len(rows)]
            ]
            if len(rows) >= limit:
                break
        known = asked.fleet.summary()
        host = asked.host
    view.show(rows, default=("at", "change", "state", "place", "name", "digest"))
    if total > len(rows):
        note(f"digestry: {number_of(total - len(rows), 'more change')}: --limit {total} lists them all")
    affected = any(row["state"] == "affected" and row["change"] == "started" for row in rows)
    raise click.exceptions.Exit(status(known, host, affected=affected))
