"""``digestry observe report``: what moved in other registries, who of ours runs it, and what is not known."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.output import json_document, json_option, note, printable, say, table
from digestry.cli.registry_options import CONFIG_HELP, ROOT_HELP
from digestry.cli.time_options import time_option
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import length_of_time, number_of
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.model.digest import Digest
    from digestry.model.observations import ObservationReport, RunningPlace, UpstreamMove
    from digestry.registry.config import RegistryConfig

_WEEK: Final = datetime.timedelta(days=7)
_SHORT: Final = 12
_PLACES: Final = 3
_SOMEWHERE: Final = "REGISTRY"
_WORDS: Final = {
    "version-tag-moved": "the tag names one release, which is not expected to move",
    "version-tag-deleted": "the tag names one release, which is not expected to go",
    "kind-changed": "an image, an index or an artifact became another of the three",
    "created-earlier": "the new image says that it is older than the old one",
}
"""Concerns that no other line says more about."""
_ATTACHED: Final = re.compile(r"(sha(?:256|512)-[0-9a-f]{12})[0-9a-f]+", re.ASCII)


@click.command()
@click.argument("registry", required=False, metavar="[REGISTRY]")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help=ROOT_HELP)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help=CONFIG_HELP)
@time_option("--since", last=False, help="From then on: a time as it is printed, a date, 2h.  [default: 7d]")
@json_option
@timeout_option
@click.pass_context
def report(
    ctx: click.Context,
    *,
    registry: str | None,
    root: Path | None,
    config: Path | None,
    since: datetime.datetime | None,
    as_json: bool,
) -> None:
    """Report what moved in the registries that are observed, what is known of it, who of ours runs it, and
    what is not known.

    Ask REGISTRY, a host, or on the registry's own host its --root or --config. A move happened between two
    observations. Of a gap nothing is known: it is never a time in which a tag stood. A move there and back
    between two observations leaves no trace.

    JSON: an object with since, at, repositories, moves (name, repository, tag, event, at, entry, not_before,
    from_digest, to_digest, facts, running_before, running_after), gaps (name, repository, tag, since, until,
    reason), more_moves and more_gaps.

    Exit code 1 if something moved, 3 if nothing is observed or something is not known now; else 0.
    """
    from digestry.cli import exit_codes

    if registry is not None and (root is not None or config is not None):
        raise click.UsageError("Give REGISTRY, or --root or --config.")
    start = datetime.datetime.now(datetime.UTC) - _WEEK if since is None else since
    if registry is None:
        found, address = _local(root, config, start)
    else:
        found, address = _remote(registry, start), registry.removeprefix("https://")
    if as_json:
        from digestry.cli.observe_document import document_of

        json_document(document_of(found))
    else:
        _tell(found, address)
    if found.moves:
        ctx.exit(exit_codes.FINDINGS)
    if not found.repositories or any(gap.until is None for gap in found.gaps):
        ctx.exit(exit_codes.REMOTE)


def _remote(host: str, since: datetime.datetime) -> ObservationReport:
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import check_value, load
    from digestry.client.observed import observation_report

    with open_session(load()) as session:
        connection = session.registry(check_value("registry", host.removeprefix("https://"))).connection
        return observation_report(connection, check_value("registry", host), since)


def _local(root: Path | None, config: Path | None, since: datetime.datetime) -> tuple[ObservationReport, str]:
    from digestry.catalog import clock
    from digestry.cli.registry_options import chosen_registry
    from digestry.registry.observation_report import report as made

    registry = chosen_registry(config, root)
    backend = registry.backend()
    backend.catalog_store.check_schema()  # a directory that is no registry must not become one
    catalog = backend.open_catalog()
    try:
        found = made(catalog, registry, since=clock.from_datetime(since), now=backend.now())
        return found, address_of(registry)
    finally:
        catalog.close()


def address_of(registry: RegistryConfig) -> str:
    """Return how commands on the registry's own host name it; a placeholder if its name is not known here."""
    if registry.tls is not None or not registry.port or not registry.loopback:
        return _SOMEWHERE
    return f"{registry.host}:{registry.port}"


def _tell(found: ObservationReport, address: str) -> None:
    if not found.repositories:
        note("digestry: nothing is observed: say what, with digestry observe add")
        return
    tell_moves(found, address)
    tell_gaps(found)
    tags = sum(one.tags for one in found.repositories)
    since = _time(found.since)
    count = number_of(len(found.repositories), "repository", "repositories")
    moves = number_of(len(found.moves), "move")
    more = " or more" if found.more_moves else ""
    say(f"{count} with {number_of(tags, 'tag')}: {moves}{more} since {since}")
    for one in found.repositories:
        if one.late > 2 * one.interval:
            note(
                printable(
                    f"digestry: {one.name} is {length_of_time(round(one.late))} late: too much is observed"
                )
            )


def tell_moves(found: ObservationReport, address: str) -> None:
    """Print the moves of a report, the newest first. ``address`` is how commands name the registry."""
    for move in found.moves:
        say(printable(f"{move.name}:{_short_tag(move.tag)} {_what(move)}"))
        if move.event == "moved":
            say(f"  to {_digest(move.to_digest)}")
        say(f"  {_when(move)}")
        for line in _facts(move):
            say(printable(f"  {line}"))
        for what, places in (("the old one", move.running_before), ("the new one", move.running_after)):
            if places:
                say(printable(f"  {_places(places)} run {what}"))
        if move.event == "moved" and move.facts is not None and move.facts.concerns:
            image = f"{address}/{move.repository}"
            old, new = _digest(move.from_digest), _digest(move.to_digest)
            say(printable(f"  compare: digestry diff {image}@{old} {image}@{new}"))
    if any(move.facts is not None and move.facts.concerns for move in found.moves):
        say("")
        say("! marks what an ordinary rebuild does not do. Before the new image is pulled,")
        say("compare it with the old one, and ask who publishes it (docs/observe.md).")
    if found.moves:
        say("")


def tell_gaps(found: ObservationReport) -> None:
    """Print the gaps of a report, those of many tags together."""
    together = Counter(
        (gap.name, _minute(gap.since), None if gap.until is None else _minute(gap.until), gap.reason)
        for gap in found.gaps
    )
    single = {(gap.name, _minute(gap.since)): gap for gap in found.gaps}
    rows = []
    for (name, since, until, reason), count in together.items():
        tag = _short_tag(single[name, since].tag) or "(list of tags)"
        which = tag if count == 1 else number_of(count, "tag")
        rows.append([name, which, since, until or "now", reason or "no observation came in time"])
    if rows:
        table(["NOTHING KNOWN OF", "TAG", "SINCE", "UNTIL", "WHY"], rows)
        if found.more_gaps:
            note("digestry: and others")


def _what(move: UpstreamMove) -> str:
    if move.event == "deleted":
        return f"was deleted; it was {_digest(move.from_digest)}"
    if move.event == "created":
        return f"is new: {_digest(move.to_digest)}"
    return f"moved from {_digest(move.from_digest)}"


def _when(move: UpstreamMove) -> str:
    if move.not_before is None:
        return f"seen at {_time(move.at)}; when it happened is not known"
    return f"between {_time(move.not_before)} and {_time(move.at)}"


def _facts(move: UpstreamMove) -> list[str]:
    facts = move.facts
    if facts is None:
        return ["its images were not looked at yet"]
    lines = []
    if facts.concerns:
        lines.append(f"! {', '.join(facts.concerns)}")
    lines += [_WORDS[concern] for concern in facts.concerns if concern in _WORDS]
    if facts.pointed_until is not None:
        lines.append(f"it pointed there before, until {_time(facts.pointed_until)}")
    if facts.platforms_lost:
        lines.append(f"platforms lost: {', '.join(facts.platforms_lost)}")
    if facts.platforms_gained:
        lines.append(f"platforms gained: {', '.join(facts.platforms_gained)}")
    if facts.attachments_lost:
        lines.append(f"no longer attached: {', '.join(facts.attachments_lost)}")
    if move.event == "moved":
        base = f"{facts.shared_layers} of {number_of(facts.layers, 'layer')} shared"
        lines.append(f"author {facts.author}, base {facts.base} ({base})")
    if facts.created_after:
        before = f"{facts.created_before} -> " if facts.created_before else ""
        lines.append(f"created, as the publisher wrote: {before}{facts.created_after}")
    return lines + [f"not known: {text}" for text in facts.unknown]


def _places(places: tuple[RunningPlace, ...]) -> str:
    count = sum(one.containers for one in places)
    names = ", ".join(one.place for one in places[:_PLACES])
    more = f" and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
    return f"{number_of(count, 'container')} at {names}{more}"


def _short_tag(tag: str) -> str:
    """Return a tag; of one that is about a digest, with the digest's first digits alone."""
    return _ATTACHED.sub(r"\1…", tag)


def _digest(digest: Digest | None) -> str:
    return "-" if digest is None else f"{digest.algorithm}:{digest.encoded[:_SHORT]}"


def _time(at: datetime.datetime) -> str:
    return rfc3339(at)[:19].replace("T", " ") + "Z"


def _minute(at: datetime.datetime) -> str:
    return rfc3339(at)[:19].replace("T", " ")
