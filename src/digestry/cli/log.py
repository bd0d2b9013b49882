"""``digestry log``: list where a tag has pointed, and verify that against the registry's log."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.command_group import CommandWithCommands
from digestry.cli.image_names import IMAGE
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.log_bundle import bundle
from digestry.cli.log_key import begin, key, resume
from digestry.cli.log_verify import verify
from digestry.cli.output import note, printable
from digestry.cli.row_template import Row
from digestry.cli.time_options import time_option
from digestry.cli.timeout_options import timeout_option
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.client.repository import Repository
    from digestry.model.history import TagEvent


def _who(row: Row, _: bool) -> str:
    actor, address = row["actor"], row["address"]
    if row["not_before"] is not None:
        return f"{actor} (since {str(row['not_before'])[:19].replace('T', ' ')})"
    return f"{actor} ({address})" if actor and address else str(actor or "-")


def _reason(row: Row, _: bool) -> str:
    return str(row["reason"] or "-")


def _client(row: Row, whole: bool) -> str:
    """Return the client; engines send a line of products, the first of which is the client."""
    client = str(row["client"] or "")
    return (client if whole else client.partition(" ")[0]) or "-"


LISTING: Final = Listing(
    "log",
    "The moves of a tag, or of all tags of a repository, the newest first.",
    (
        Column("at", "time", "When (RFC 3339).", heading="WHEN"),
        Column("repository", "text", "The name in the registry.", shown=False),
        Column("tag", "text", "The tag."),
        Column("event", "text", "created, moved or deleted; allowed or revoked, of a minimum age."),
        Column("from_digest", "digest", "Where it pointed, or null.", nullable=True, heading="FROM"),
        Column("to_digest", "digest", "Where it came to, or null.", nullable=True, heading="TO"),
        Column("actor", "text", "By whom, or null.", nullable=True, heading="BY", show=_who),
        Column("client", "text", "The client's User-Agent, or null.", nullable=True, show=_client),
        Column("address", "text", "From which address, or null.", nullable=True, shown=False),
        Column("number", "number", "Its number in the repository, or null.", nullable=True, shown=False),
        Column("sequence", "number", "Its number in the registry, or null.", nullable=True, shown=False),
        Column(
            "not_before",
            "time",
            "Of a move in another registry: the observation before, after which it moved; or null.",
            nullable=True,
            shown=False,
        ),
        Column("reason", "text", "Why, of an act that needs a reason; or null.", nullable=True, show=_reason),
        Column("withheld", "flag", "Whether the registry withholds who made the change.", shown=False),
    ),
)


@click.group(cls=CommandWithCommands, no_args_is_help=False)
@click.argument("reference", metavar="REPO[:TAG]", type=IMAGE)
@click.option("--limit", "-n", type=click.IntRange(min=1), metavar="N", help="Show the newest entries only.")
@time_option("--since", last=False, help="From then on: a time as it is printed, a date, 2h, yesterday.")
@time_option("--until", last=True, help="Up to then, the whole second or day included.")
@listing_options(LISTING)
@timeout_option
def log(
    *,
    reference: str,
    limit: int | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    view: View,
) -> None:
    """Show where a tag has pointed, newest first: when, by whom, from what to what, with which client.

    Without TAG, the whole repository's journal. Exit code 3 if the registry keeps no history. A repository
    with the name of one of the commands is written with its registry, with a tag, or after --.

    The whole journal has what was let through before its minimum age, too, with the reason: allowed and
    revoked, with an @ before the tag. These are no moves.

    JSON: a list of objects with at (RFC 3339), repository, tag, event (created, moved, deleted, allowed,
    revoked), from_digest, to_digest, actor, client, address, number, sequence, not_before (of a move that was
    seen in another registry, or made while a clock had been set: it happened between that time and at) and
    reason (of allowed and revoked); an unknown value is null. withheld is
    true if the registry shows the entry's actor, address, client and sequence only to users who may audit
    the repository.
    """
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference, NotFound

    settings = load()
    if "@" in reference:
        raise InvalidReference(
            f"{reference} has a digest, which never moves",
            hint=f"write REPO:TAG, or: digestry whose {reference}",
        )
    wanted = settings.reference(reference)
    with open_session(settings) as session:
        events = _events(session.repository(wanted), wanted.tag, limit, since, until)
    if not events:
        if since is not None or until is not None:
            raise NotFound(f"nothing happened to {wanted} in that time")
        raise NotFound(
            f"the journal of {wanted.host} has nothing about {wanted}", hint="check the name: digestry tags"
        )
    if any(event.withheld for event in events):
        note(
            printable(
                f"digestry: {wanted.host} shows who moved tags only to users who may audit {wanted.name}"
            )
        )
    tags = ("tag",) if wanted.tag is None else ()
    reasons = ("reason",) if any(event.reason for event in events) else ()
    view.show(
        [_plain(event) for event in events],
        default=("at", *tags, "event", "from_digest", "to_digest", "actor", "client", *reasons),
    )


def _events(
    remote: Repository,
    tag: str | None,
    limit: int | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
) -> list[TagEvent]:
    from digestry.client.journal import is_within
    from digestry.errors import RemoteError

    events = remote.journal(tag, limit=limit, since=since, until=until)
    if events is None and tag is not None:
        events = remote.tag_history(tag)
        if events is not None:
            events = [event for event in events if is_within(event, since, until)]
    if events:
        return events if limit is None else events[:limit]
    if events is not None:
        next(remote.tags(), None)  # a repository that is not there, or is not shown, says so
        return []
    # A registry that does not know the repository or tag says the same as one without a journal.
    if tag is None:
        next(remote.tags(), None)
    else:
        remote.resolve(tag)
    raise RemoteError(
        f"{remote.reference.host} keeps no history of its tags",
        hint="only the digest that a tag points to now is known: digestry digest",
    )


def _plain(event: TagEvent) -> Row:
    return {
        "at": rfc3339(event.at),
        "repository": event.repository,
        "tag": event.tag,
        "event": event.event,
        "from_digest": event.from_digest,
        "to_digest": event.to_digest,
        "actor": event.actor or None,
        "client": event.client or None,
        "address": event.address or None,
        "number": event.number,
        "sequence": event.sequence,
        "not_before": None if event.not_before is None else rfc3339(event.not_before),
        "reason": event.reason,
        "withheld": event.withheld,
    }


log.add_command(verify)
log.add_command(bundle)
log.add_command(key)
log.add_command(begin)
log.add_command(resume)
