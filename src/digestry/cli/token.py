"""``digestry token``: robot tokens, and the keys that sign access tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.command_group import Group
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import note, say
from digestry.cli.registry_options import registry_options
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.catalog.robot_tokens import RobotTokens
    from digestry.registry.config import RegistryConfig


LISTING: Final = Listing(
    "token list",
    "The tokens of a registry, without their secrets.",
    (
        Column("user", "text", "The name to log in with."),
        Column("created_at", "time", "When it was made.", heading="CREATED"),
        Column(
            "expires_at", "time", "When it ends, or null.", nullable=True, heading="EXPIRES", nothing="never"
        ),
        Column("state", "text", "valid, expired or revoked."),
        Column("place", "text", "Where an agent's token reports from, or null.", nullable=True, nothing=""),
    ),
)


@click.group(cls=Group)
def token() -> None:
    """Make, list and revoke the tokens that programs log in with.

    Run it on the registry's host, as a user who may write its files. The rules of registry.toml say
    what a token may do; its user there is robot$NAME.
    """


@token.command("create")
@registry_options
@click.option(
    "--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it can be used."
)
@click.option(
    "--agent",
    "place",
    metavar="PLACE",
    help="For the agent of PLACE, a host or cluster: the token reports what runs there, and in PLACE/…, and"
    " does nothing else, whatever the rules say.",
)
@click.argument("name")
def create(registry: RegistryConfig, days: int, place: str | None, name: str) -> None:
    """Make a token named NAME, and print its secret, which is shown only once and not stored.

    Log in with it: digestry login -u 'robot$NAME' --password-stdin HOST
    An agent reads it from a file: digestry agent --token-file FILE
    """
    from digestry.catalog import clock
    from digestry.errors import InvalidConfiguration
    from digestry.model.fleet import check_place
    from digestry.registry.access.identity import ROBOT_PREFIX, check_robot

    try:
        check_robot(name.removeprefix(ROBOT_PREFIX))
        if place is not None:
            check_place(place)
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from error
    robots = _robots(registry)
    try:
        ends = datetime.now(UTC) + timedelta(days=days)
        secret = robots.create(
            name.removeprefix(ROBOT_PREFIX), expires_at=clock.from_datetime(ends), place=place
        )
    finally:
        robots.close()
    what = {} if place is None else {"place": place}
    _audit(registry, "create-token", name, ends=rfc3339(ends), **what)
    about = "" if place is None else f", the agent of {place}"
    note(f"user {ROBOT_PREFIX}{name.removeprefix(ROBOT_PREFIX)}{about}, until {rfc3339(ends)}")
    say(secret)


@token.command("list")
@registry_options
@listing_options(LISTING)
def show(registry: RegistryConfig, view: View) -> None:
    """List the tokens, without their secrets.

    JSON: a list of objects with user, created_at and expires_at (RFC 3339; expires_at is null for a token
    that does not expire), state (valid, expired, revoked), and place (an agent's, or null).
    """
    from digestry.catalog import clock
    from digestry.registry.access.identity import ROBOT_PREFIX

    robots = _robots(registry)
    try:
        found = robots.all()
    finally:
        robots.close()
    now = clock.now()

    def state(revoked: bool, holds: bool) -> str:
        return "valid" if holds else "revoked" if revoked else "expired"

    rows = [
        {
            "user": ROBOT_PREFIX + entry.name,
            "created_at": clock.to_rfc3339(entry.created_at),
            "expires_at": None if entry.expires_at is None else clock.to_rfc3339(entry.expires_at),
            "state": state(entry.revoked_at is not None, entry.holds(now)),
            "place": entry.place,
        }
        for entry in found
    ]
    view.show(rows)


@token.command("revoke")
@registry_options
@click.argument("name")
def revoke(registry: RegistryConfig, name: str) -> None:
    """End the token named NAME. A running registry refuses it within seconds."""
    from digestry.registry.access.identity import ROBOT_PREFIX

    robots = _robots(registry)
    try:
        robots.revoke(name.removeprefix(ROBOT_PREFIX))
    finally:
        robots.close()
    _audit(registry, "revoke-token", name)


@token.command("rotate-key")
@registry_options
@click.option(
    "--retire",
    is_flag=True,
    help="Remove the other keys: users who are logged in with a token have to log in again.",
)
def rotate_key(registry: RegistryConfig, retire: bool) -> None:
    """Make a new key for the registry to sign its tokens with; print the key's id.

    A running registry signs with it within seconds. Tokens that older keys signed are valid until they
    expire, unless the keys are retired.
    """
    from digestry.registry.access.keys import KeyRing
    from digestry.registry.observability.audit_events import note_command
    from digestry.registry.root import check_user

    _robots(registry).close()
    backend = registry.backend()
    check_user(backend)  # a process that cannot read the key cannot sign
    key = KeyRing(backend.coordination.keys).rotate(retire=retire)
    note_command(registry.scratch, "digestry token rotate-key", "rotate-key", key=key, retired=retire or None)
    say(key)


def _audit(registry: RegistryConfig, action: str, name: str, **what: str) -> None:
    from digestry.registry.access.identity import ROBOT_PREFIX
    from digestry.registry.observability.audit_events import note_command

    robot = ROBOT_PREFIX + name.removeprefix(ROBOT_PREFIX)
    note_command(registry.scratch, f"digestry token {action.partition('-')[0]}", action, robot=robot, **what)


def _robots(registry: RegistryConfig) -> RobotTokens:
    """Return the tokens of a registry's root, after migrating its catalog. Raises :class:`NotFound`."""
    from digestry.coordination.protocol import Job
    from digestry.errors import Conflict, NotFound
    from digestry.registry.root import check_catalog, check_content, check_root

    backend = registry.backend()
    try:
        backend.catalog_store.require()
    except NotFound as error:
        raise NotFound(
            f"there is no registry in {backend.location}", hint="digestry serve makes it one"
        ) from error
    catalog = backend.open_catalog()
    try:
        check_root(registry.scratch)
        check_content(backend)
        check_catalog(backend)
        try:
            with backend.coordination.only_one(Job.SERVE):
                catalog.migrate()
        except Conflict:
            pass  # it is served, and so it is up to date
    finally:
        catalog.close()
    return backend.open_robot_tokens()
