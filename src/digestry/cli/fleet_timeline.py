"""``digestry fleet timeline``: show how many containers ran an image, and when the last one ended."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.fleet_picture import picture
from digestry.cli.fleet_rows import short_time
from digestry.cli.fleet_target import Asked, is_vulnerability, open_fleet, place_option, registry_option
from digestry.cli.output import json_document, json_option, printable, say
from digestry.cli.time_options import time_option
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import few, number_of
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.model.fleet_answers import FleetTimeline

_WIDTH: Final = 60


@click.command("timeline")
@click.argument("target", metavar="CVE|DIGEST|REF|LAYER")
@registry_option
@place_option
@time_option("--since", last=False, help="The beginning of the picture.")
@time_option("--until", last=True, help="The end of the picture.")
@json_option
@timeout_option
def timeline(
    *,
    target: str,
    registry: str | None,
    place: str,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    as_json: bool,
) -> None:
    """Show how many containers ran an image over time, and when the last one ended.

    The end is exact if the agent saw it, between two times if nobody did, and not known while a container
    has no end in a place that is silent. Silence is never an end.

    JSON: one object with target, points (at, containers), exact, running, unknown, total, first, last_end,
    last_end_after, silent (place, since, containers: where the end is not known), sentence and registry.

    Exit code 1 if an affected container runs; 3 if none is known to, but something is not known, as of an
    image whose verdict is unknown; 0 only if all is known.
    """
    from digestry.cli.documents import FleetHistory, HistoryPoint, SilentRuns
    from digestry.cli.fleet_unknowns import status

    with open_fleet(registry, target, place) as asked:
        found = asked.fleet.timeline(asked.choice)
        by_name = is_vulnerability(target)
        dark, affected = _running(asked, found, by_name=by_name)
        known = asked.fleet.summary()
        host = asked.host
    sentence = last_end(found, dark)
    if as_json:
        json_document(
            FleetHistory(
                host,
                target,
                [HistoryPoint(rfc3339(point.at), point.containers) for point in found.points],
                found.exact,
                found.running,
                found.unknown,
                found.total,
                None if found.first is None else rfc3339(found.first),
                None if found.last_end is None else rfc3339(found.last_end),
                None if found.last_end_after is None else rfc3339(found.last_end_after),
                [SilentRuns(name, rfc3339(at), count) for name, (at, count) in sorted(dark.items())],
                sentence,
            )
        )
    else:
        points = [(point.at, point.containers) for point in found.points]
        lines = list(picture(points, _WIDTH, begin=since, end=until or known.at))
        for line in lines:
            say(line)
        if lines:
            say()
        say(printable(sentence))
    uncertain = bool(found.unknown)
    raise click.exceptions.Exit(
        status(known, host, affected=affected, uncertain=uncertain, by_vulnerability=by_name)
    )


def _running(
    asked: Asked, found: FleetTimeline, *, by_name: bool
) -> tuple[dict[str, tuple[datetime.datetime, int]], bool]:
    """Return since when which places with such containers are silent, and how many each has; and whether a
    container that runs is affected."""
    dark: dict[str, tuple[datetime.datetime, int]] = {}
    affected = by_name and found.running > 0
    if not found.running:
        return dark, affected
    for page in asked.fleet.runs(asked.choice):
        bad = {image.number for image in page.images if image.verdict.state == "affected"}
        affected = affected or any(run.image in bad for run in page.runs)
        for run in page.runs:
            if run.silent:
                at, count = dark.get(run.place, (run.last_seen, 0))
                dark[run.place] = min(at, run.last_seen), count + 1
    return dark, affected


def last_end(found: FleetTimeline, dark: dict[str, tuple[datetime.datetime, int]]) -> str:
    """Return a sentence about when the last container ended, or how many run."""
    if not found.total:
        return "No container is known to have run it."
    if found.unknown:
        silent = "silent places" if not dark else _places(dark)
        many = number_of(found.unknown, "container")
        verb = "runs" if found.unknown == 1 else "run"
        known = found.running - found.unknown
        others = (
            f"{number_of(known, 'container')} still {'runs' if known == 1 else 'run'} it; " if known else ""
        )
        return f"When the last one ends is not known: {others}{many} {verb} in {silent}."
    if found.running:
        verb = "runs" if found.running == 1 else "run"
        return f"{number_of(found.running, 'container')} still {verb} it."
    assert found.last_end is not None  # noqa: S101 - the last of several that ended
    if found.last_end_after is not None and found.last_end_after != found.last_end:
        return (
            f"The last container ended between {short_time(found.last_end_after)} and"
            f" {short_time(found.last_end)}."
        )
    return f"The last container is gone at {short_time(found.last_end)}."


def _places(dark: dict[str, tuple[datetime.datetime, int]]) -> str:
    oldest = min(at for at, _ in dark.values())
    verb = "which is" if len(dark) == 1 else "which are"
    return f"{few(sorted(dark), most=3)}, {verb} silent since {short_time(oldest)}"
