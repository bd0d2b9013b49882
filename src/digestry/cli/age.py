"""``digestry age``: let digests through before their minimum age, each with a reason."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.command_group import Group
from digestry.cli.image_names import IMAGE
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import printable, say
from digestry.cli.registry_options import CONFIG_HELP, ROOT_HELP, chosen_registry
from digestry.cli.time_options import time_option
from digestry.cli.timeout_options import timeout_option
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from digestry.catalog.catalog import Catalog
    from digestry.client.repository import Repository
    from digestry.model.age_answers import OverrideEntry
    from digestry.model.reference import Reference
    from digestry.registry.config import RegistryConfig

LISTING: Final = Listing(
    "age list",
    "What is let through before its minimum age, the newest first.",
    (
        Column("number", "number", "For `age revoke`."),
        Column("repository", "text", "The repository."),
        Column("tag", "text", "Under this tag, or null: under any.", nullable=True, nothing="any"),
        Column("digest", "digest", "This digest, or null: any.", nullable=True, nothing="any"),
        Column("until", "time", "When it ends, or null.", nullable=True, nothing="for ever"),
        Column("reason", "text", "Why."),
        Column("actor", "text", "Who allowed it, or null for who may not audit.", nullable=True),
        Column("created_at", "time", "When.", shown=False),
        Column("ended_at", "time", "When it was taken back, or null.", nullable=True, shown=False),
    ),
)


def _where(function: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options that name the registry's files; without them it asks over HTTP."""
    options = (
        click.option("--root", type=click.Path(file_okay=False, path_type=Path), help=ROOT_HELP),
        click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help=CONFIG_HELP),
        timeout_option,
    )
    for option in options:
        function = option(function)
    return function


_reason: Final = click.option("--reason", required=True, metavar="TEXT", help="Why; it goes to the journal.")


@click.group(cls=Group)
def age() -> None:
    """Let digests through before their minimum age, for an urgent fix, and see what is let through.

    Each is recorded in the registry's journal, with its reason. Who may move tags of a repository may do it
    over HTTP; with --root or --config, who may write the registry's files, and names have no host then.
    """


@age.command()
@click.argument("reference", metavar="REPO[:TAG|@DIGEST]", type=IMAGE)
@_reason
@time_option("--until", last=True, help="When it ends: a time, or a date.  [default: for ever]")
@_where
def allow(
    *, reference: str, reason: str, until: datetime.datetime | None, root: Path | None, config: Path | None
) -> None:
    """Let a digest through before its minimum age.

    With a tag: the digest that the tag points to now, and no later one. With a digest: that one, under any
    tag. With the repository alone: everything in it, which needs --until.
    """
    from digestry.model.age_answers import AgeOverrideRequest

    if root is not None or config is not None:
        made = _allow_here(chosen_registry(config, root), reference, reason, until)
    else:
        with _opened(reference) as (remote, wanted):
            digest = "" if wanted.digest is None else str(wanted.digest)
            end = None if until is None else rfc3339(until)
            made = _known(
                remote.allow_young(AgeOverrideRequest(reason, wanted.tag or "", digest, end)), remote
            )
    say(f"Let through: {printable(made.subject)}")
    say(f"Number: {made.number}")
    say("Until: for ever" if made.until is None else f"Until: {rfc3339(made.until)}")


@age.command("list")
@click.argument("reference", metavar="[REPO]", type=IMAGE, required=False)
@click.option("--ended", is_flag=True, help="Also what has ended, or was taken back.")
@_where
@listing_options(LISTING)
def list_(*, reference: str | None, ended: bool, root: Path | None, config: Path | None, view: View) -> None:
    """List what is let through before its minimum age, the newest first.

    JSON: a list of objects with number, repository, tag, digest (null: any), until, reason, actor,
    created_at, ended_at.
    """
    if root is not None or config is not None:
        found = _list_here(chosen_registry(config, root), reference, ended)
    elif reference is None:
        raise click.UsageError("Give a repository, or --root or --config of a registry.")
    else:
        with _opened(reference) as (remote, _):
            listed = remote.age_overrides(ended=ended)
            found = [] if listed is None else list(listed)
            if listed is None:
                _known(None, remote)
    view.show(
        {
            "number": entry.number,
            "repository": entry.repository,
            "tag": entry.tag or None,
            "digest": entry.digest or None,
            "until": None if entry.until is None else rfc3339(entry.until),
            "reason": entry.reason,
            "actor": entry.actor or None,
            "created_at": rfc3339(entry.created),
            "ended_at": None if entry.ended is None else rfc3339(entry.ended),
        }
        for entry in found
    )


@age.command()
@click.argument("reference", metavar="REPO", type=IMAGE)
@click.argument("number", type=click.IntRange(min=1))
@_reason
@_where
def revoke(*, reference: str, number: int, reason: str, root: Path | None, config: Path | None) -> None:
    """Take back what was let through: NUMBER, as `age list` shows it."""
    if root is not None or config is not None:
        ended = _revoke_here(chosen_registry(config, root), reference, number, reason)
    else:
        with _opened(reference) as (remote, _):
            ended = _known(remote.revoke_young(number, reason), remote)
    say(f"No longer let through: {printable(ended.subject)}")


# -- over HTTP ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(reference: str) -> Iterator[tuple[Repository, Reference]]:
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load

    settings = load()
    wanted = settings.reference(reference)
    with open_session(settings) as session:
        yield session.repository(wanted), wanted


def _known(found: OverrideEntry | None, remote: Repository) -> OverrideEntry:
    from digestry.errors import RemoteError

    if found is None:
        raise RemoteError(
            f"{remote.reference.host} has no minimum ages, and so nothing to let through",
            hint="only a registry of digestry has (docs/min-age.md)",
        )
    return found


# -- in the registry's own files -----------------------------------------------------------------


def _split(text: str) -> tuple[str, str, str]:
    """Read ``REPO[:TAG][@DIGEST]`` without a host."""
    from digestry.model.digest import Digest
    from digestry.model.reference import check_repository, check_tag

    rest, _, digest = text.partition("@")
    name, _, tag = rest.partition(":")
    check_repository(name)
    if tag:
        check_tag(tag)
    return name, tag, str(Digest.parse(digest)) if digest else ""


def _allow_here(
    registry: RegistryConfig, reference: str, reason: str, until: datetime.datetime | None
) -> OverrideEntry:
    from digestry.catalog import clock
    from digestry.catalog.journal import Origin
    from digestry.model.digest import Digest
    from digestry.registry.observability.audit_events import note_command, operator
    from digestry.registry.resources.ages import entry_of

    name, tag, digest = _split(reference)
    with _catalog(registry) as catalog:
        made, event = catalog.age_overrides.allow(
            name,
            tag=tag,
            digest=Digest.parse(digest) if digest else None,
            ends_at=None if until is None else clock.from_datetime(until),
            origin=Origin(operator("")["user"], client="digestry age allow", reason=reason),
        )
    what = {"repository": name, "tag": made.tag, "digest": made.digest, "reason": reason}
    note_command(registry.scratch, "digestry age allow", "allow-young", number=event.number, **what)
    return entry_of(made, audits=True)


def _list_here(registry: RegistryConfig, reference: str | None, ended: bool) -> list[OverrideEntry]:
    from digestry.registry.resources.ages import entry_of

    name = None if reference is None else _split(reference)[0]
    with _catalog(registry) as catalog:
        return [entry_of(row, audits=True) for row in catalog.age_overrides.of(name, ended=ended)]


def _revoke_here(registry: RegistryConfig, reference: str, number: int, reason: str) -> OverrideEntry:
    from digestry.catalog.journal import Origin
    from digestry.registry.observability.audit_events import note_command, operator
    from digestry.registry.resources.ages import entry_of

    name, _, _ = _split(reference)
    with _catalog(registry) as catalog:
        origin = Origin(operator("")["user"], client="digestry age revoke", reason=reason)
        ended, event = catalog.age_overrides.revoke(name, number, origin=origin)
    what = {"repository": name, "tag": ended.tag, "digest": ended.digest, "reason": reason}
    note_command(registry.scratch, "digestry age revoke", "revoke-young", number=event.number, **what)
    return entry_of(ended, audits=True)


@contextlib.contextmanager
def _catalog(registry: RegistryConfig) -> Iterator[Catalog]:
    backend = registry.backend()
    backend.catalog_store.check_schema()  # a directory that is no registry must not become one
    catalog = backend.open_catalog()
    try:
        yield catalog
    finally:
        catalog.close()
