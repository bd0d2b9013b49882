"""``digestry webhook``: list and retry undelivered webhook messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from digestry.cli.command_group import Group
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import say
from digestry.cli.registry_options import registry_options
from digestry.cli.row_template import Row
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from digestry.catalog.catalog import Catalog
    from digestry.registry.config import RegistryConfig

_MOST: Final = 1000


def _name(function: Callable[..., object]) -> Callable[..., object]:
    return click.option("--name", help="Of this webhook only.")(function)


def _open(registry: RegistryConfig) -> Catalog:
    backend = registry.backend()
    backend.catalog_store.check_schema()  # a directory that is no registry must not become one
    return backend.open_catalog()


def _since(row: Row, _: bool) -> str:
    return str(row["dead_at"] or row["queued_at"])


LISTING: Final = Listing(
    "webhook list",
    "The events that webhooks have not taken yet, the oldest first.",
    (
        Column("webhook", "text", "The webhook's name."),
        Column("delivery", "number", "Of the event to this webhook; `webhook retry --delivery` names it."),
        Column("event", "text", "What happened: created, moved, deleted, or what happened in the fleet."),
        Column("sequence", "number", "Of a tag's event in the journal; 0 for one of the fleet.", shown=False),
        Column("state", "text", "waiting, or DEAD if it was given up."),
        Column("queued_at", "time", "When it happened.", heading="SINCE", show=_since),
        Column("attempts", "number", "How often it was sent."),
        Column("problem", "text", "Why it was not taken, or null.", nullable=True),
        Column("due_at", "time", "When it is sent again; null: at once.", nullable=True, shown=False),
        Column("dead_at", "time", "When it was given up, or null.", nullable=True, shown=False),
    ),
)


@click.group(cls=Group)
def webhook() -> None:
    """List what webhooks have not accepted yet, and retry it."""


@webhook.command("list")
@registry_options
@_name
@listing_options(LISTING)
def list_(*, registry: RegistryConfig, name: str | None, view: View) -> None:
    """List the events that webhooks have not accepted yet, oldest first, the first 1000.

    Events whose delivery was given up are DEAD, and stay until they are retried.

    JSON: a list of objects with webhook, delivery, event, sequence, state, queued_at, due_at (RFC 3339; null:
    at once), attempts, dead_at (null unless given up), problem.
    """
    from digestry.catalog import clock

    catalog = _open(registry)
    try:
        found = catalog.delivery_queue.listed(webhook=name, limit=_MOST)
    finally:
        catalog.close()
    view.show(
        {
            "webhook": event.webhook,
            "delivery": event.id,
            "event": event.event,
            "sequence": event.sequence,
            "state": "waiting" if event.dead_at is None else "DEAD",
            "queued_at": rfc3339(clock.to_datetime(event.queued_at)),
            "due_at": rfc3339(clock.to_datetime(event.due_at)) if event.due_at else None,
            "attempts": event.attempts,
            "dead_at": None if event.dead_at is None else rfc3339(clock.to_datetime(event.dead_at)),
            "problem": event.problem,
        }
        for event in found
    )


@webhook.command()
@registry_options
@_name
@click.option("--sequence", type=click.IntRange(min=1), metavar="N", help="This event of a tag only.")
@click.option("--delivery", type=click.IntRange(min=1), metavar="N", help="This row of `webhook list` only.")
def retry(*, registry: RegistryConfig, name: str | None, sequence: int | None, delivery: int | None) -> None:
    """Make undelivered events due at once, DEAD ones too; the server delivers them.

    An event of a tag is named by its number in the journal, which is one for all webhooks; any event, those
    of the fleet too, by the number of its delivery to one webhook. Exit code 4 if nothing that was named
    waits.
    """
    from digestry.catalog import clock
    from digestry.errors import NotFound
    from digestry.registry.observability.audit_events import note_command

    catalog = _open(registry)
    try:
        count = catalog.delivery_queue.revive(
            webhook=name, sequence=sequence, delivery=delivery, now=clock.now()
        )
    finally:
        catalog.close()
    what = {"webhook": name, "sequence": sequence, "delivery": delivery, "events": count}
    note_command(registry.scratch, "digestry webhook retry", "retry-webhook", **what)
    say(f"{count} due now")
    if not count and (sequence, delivery) != (None, None):
        raise NotFound(
            "no undelivered event has that number", hint="`digestry webhook list` shows those that there are"
        )
