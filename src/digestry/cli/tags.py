"""``digestry tags``: list a repository's tags and their digests."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import click

from digestry.cli import exit_codes
from digestry.cli.image_names import IMAGE
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import note, printable, say
from digestry.cli.time_options import time_option
from digestry.cli.timeout_options import timeout_option
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.client.repository import Repository
    from digestry.model.digest import Digest

_AT_ONCE: Final = 8
_MOST_EVENTS: Final = 10_000

LISTING: Final = Listing(
    "tags",
    "The tags of a repository, in the registry's order.",
    (
        Column("tag", "text", "The tag; null where the list has something that is no tag.", nullable=True),
        Column("digest", "digest", "What it points to; null if that could not be read.", nullable=True),
        Column(
            "updated_at",
            "time",
            "Since when (RFC 3339); null if the registry keeps no journal.",
            nullable=True,
        ),
        Column("media_type", "text", "The digest; null if it was not looked up.", nullable=True, shown=False),
        Column("size", "size", "The bytes of the manifest; null likewise.", nullable=True, shown=False),
        Column(
            "problem", "text", "Why there is no digest; null if there is one.", nullable=True, shown=False
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A tag; with ``tag`` None, an entry of the list that is not a tag. The fields are the JSON's keys."""

    tag: str | None
    digest: Digest | None = None
    updated_at: str | None = None
    media_type: str | None = None
    size: int | None = None
    problem: str | None = None


@click.command()
@click.argument("repository", metavar="REPO[:TAG]", type=IMAGE)
@time_option("--at", last=True, help="As they were then: a time as `log` prints it, a date, 2h, yesterday.")
@click.option("--quiet", "-q", is_flag=True, help="Print the tags only, without looking up their digests.")
@listing_options(LISTING)
@timeout_option
@click.pass_context
def tags(
    ctx: click.Context, *, repository: str, at: datetime.datetime | None, quiet: bool, view: View
) -> None:
    """List a repository's tags, or one of them, with their digests and, where the registry keeps
    a journal, since when they point there.

    Exit code 3, and a message, if a tag could not be read; the others are shown.

    JSON: a list of objects with tag, digest, updated_at (RFC 3339, or null), media_type, size (of the
    manifest), problem (null, or why there is no digest); tag is null for an entry of the list that is not
    a tag, and if the list is incomplete.
    """
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference, NotFound

    settings = load()
    if "@" in repository:
        raise InvalidReference(
            f"{repository} has a digest, not a repository alone",
            hint=f"its tags: digestry whose {repository}",
        )
    reference = settings.reference(repository)
    with open_session(settings) as session:
        remote = session.repository(reference)
        rows = _then(remote, at) if at is not None else _names(remote) if quiet else _now(remote)
    if reference.tag is not None:
        rows = [row for row in rows if row.tag in {None, reference.tag}]
        if not rows:
            raise NotFound(f"{reference} is not there", hint=f"digestry tags {reference.name} lists what is")
    found = [asdict(row) for row in rows]
    if quiet and not view.is_json:
        for shown in view.selected(found):
            say(printable(str(shown["tag"] or "-")))
    else:
        updated = any(row.updated_at for row in rows)
        view.show(found, default=["tag", "digest", *(["updated_at"] if updated else [])])
    problems = [row for row in rows if row.problem]
    for row in problems:
        name = reference.name if row.tag is None else f"{reference.name}:{row.tag}"
        note(printable(f"{name}: {row.problem}"))
    if problems:
        ctx.exit(exit_codes.REMOTE)


def _names(remote: Repository) -> list[_Row]:
    names, odd = _listed(remote)
    return [_Row(name) for name in names] + odd


def _now(remote: Repository) -> list[_Row]:
    from concurrent.futures import ThreadPoolExecutor

    remote.expect(2)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        journal = pool.submit(_updated, remote)
        names, odd = _listed(remote)
        rows = list(pool.map(lambda name: _row(remote, name), names))
        updated, problem = journal.result()
    if problem:
        note(printable(f"digestry: since when is not known: {problem}"))
    return [replace(row, updated_at=updated.get(row.tag or "")) for row in rows] + odd


def _listed(remote: Repository) -> tuple[list[str], list[_Row]]:
    """Return the tags, and a row for each entry of the list that could not be read."""
    from digestry.errors import RemoteError

    odd: list[_Row] = []

    def problem(text: str) -> None:
        odd.append(_Row(None, problem=text))

    names: dict[str, None] = {}
    try:
        for name in remote.tags(problem):
            names.setdefault(name)
    except RemoteError as error:
        if not names and not odd:
            raise
        problem(f"the list of tags came short: {error.message}")
    return list(names), odd


def _updated(remote: Repository) -> tuple[dict[str, str], str]:
    """Return since when tags point where they point, if the registry says it, and why that is not known."""
    from digestry.errors import RemoteError

    updated: dict[str, str] = {}
    try:
        for event in remote.journal(limit=_MOST_EVENTS) or []:
            updated.setdefault(event.tag, rfc3339(event.at))
    except RemoteError as error:
        return updated, error.message
    return updated, ""


def _then(remote: Repository, at: datetime.datetime) -> list[_Row]:
    from digestry.errors import RemoteError

    spans = remote.tags_at(at)
    if spans is None:
        next(remote.tags(), None)  # a repository that is not there says so
        raise RemoteError(
            f"{remote.reference.host} does not know which tags existed at a given time",
            hint="digestry log REPO:TAG shows the history of one tag, if it keeps any",
        )
    return [_Row(span.tag, span.digest, rfc3339(span.since), span.media_type, span.size) for span in spans]


def _row(remote: Repository, name: str) -> _Row:
    from digestry.errors import ContentError, RemoteError

    try:
        found = remote.resolve(name)
        return _Row(name, found.digest, media_type=found.media_type, size=found.size)
    except (RemoteError, ContentError) as error:
        return _Row(name, problem=error.message)
