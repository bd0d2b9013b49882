"""``digestry log key``, ``begin`` and ``resume``: the keys and the name of a registry's transparency log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from digestry.cli.command_group import Group
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import note, say
from digestry.cli.registry_options import registry_options
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from digestry.backend import Backend
    from digestry.catalog.catalog import Catalog
    from digestry.catalog.transparency.keys import StoredKey
    from digestry.registry.config import RegistryConfig


LISTING: Final = Listing(
    "log key list",
    "The public keys of a registry's transparency log, and of the registry as a witness, the newest first.",
    (
        Column("name", "text", "The log's or the witness's name."),
        Column("key_id", "text", "The beginning of the key's hash, as signatures have it."),
        Column("use", "text", "log, or witness."),
        Column("created_at", "time", "Since when it signs.", heading="CREATED"),
        Column(
            "retired_at",
            "time",
            "Until when it signs, or signed; null: no end is set.",
            nullable=True,
            heading="RETIRED",
        ),
        Column("state", "text", "signs, or retired."),
        Column("key", "text", "The key as NAME+ID+BASE64, for who verifies.", shown=False),
    ),
)


@click.group(cls=Group)
def key() -> None:
    """List, show and replace the keys that sign a registry's transparency log.

    Run it on the registry's host, as a user who may write its files.
    """


@key.command("list")
@registry_options
@listing_options(LISTING)
def list_(*, registry: RegistryConfig, view: View) -> None:
    """List the keys of the log, and of the registry as a witness of others.

    JSON: a list of objects with name, key_id, use, created_at, retired_at (RFC 3339; null: none), state, key.
    """
    backend, catalog = _open(registry)
    try:
        now = backend.now()
        rows = [_row(stored, use, now) for stored, use in _keys(registry, catalog)]
    finally:
        catalog.close()
    view.show(rows)


@key.command()
@registry_options
@click.option("--witness", is_flag=True, help="The key with which the registry is a witness of other logs.")
def show(*, registry: RegistryConfig, witness: bool) -> None:
    """Print the key that signs the log, as NAME+ID+BASE64, and no more.

    Clients and witnesses are given it (docs/transparency.md). While a replaced key still signs, only the new
    one is printed.
    """
    from digestry.errors import NotFound

    backend, catalog = _open(registry)
    try:
        name = registry.transparency.witness_name
        if witness and name is not None and not registry.read_only:
            say(str(catalog.witnessing.key(name, now=backend.now())))
            return
        now = backend.now()
        wanted = "witness" if witness else "log"
        for stored, use in _keys(registry, catalog):
            if use == wanted and stored.signs(now):
                say(str(stored.signer.verifier))
                return
    finally:
        catalog.close()
    if witness:
        raise NotFound(
            "this registry is no witness", hint="write witness-name in [transparency] of its configuration"
        )
    raise NotFound("the log of this registry was not begun yet", hint="serve the registry once")


@key.command()
@registry_options
@click.option("--witness", is_flag=True, help="The key with which the registry is a witness of other logs.")
def rotate(*, registry: RegistryConfig, witness: bool) -> None:
    """Replace the key that signs the log, and print the new one.

    For the time of key-overlap in [transparency], both sign, so that who knows only the old one sees that
    both are of one log. A witness's old key signs no more at once.
    """
    from digestry.catalog.clock import SECOND
    from digestry.errors import InvalidConfiguration
    from digestry.registry.observability.audit_events import note_command

    config = registry.transparency
    if witness and config.witness_name is None:
        raise InvalidConfiguration(
            "this registry is no witness", hint="write witness-name in [transparency] of its configuration"
        )
    backend, catalog = _open(registry)
    try:
        made = catalog.log_signer.rotate(
            witness=config.witness_name if witness else None,
            now=backend.now(),
            overlap=int(config.key_overlap * SECOND),
        )
    finally:
        catalog.close()
    text = str(made.verifier)
    note_command(registry.scratch, "digestry log key rotate", "rotate-log-key", name=made.name, key=text)
    say(text)
    if witness:
        note("give this key to the logs that this registry cosigns")
    else:
        note("the next checkpoint has the signatures of both keys; give the new one to clients and witnesses")


@click.command()
@registry_options
@click.option("--reason", required=True, help="Why the log has another name; it is kept.")
@click.argument("name", metavar="NAME")
def begin(*, registry: RegistryConfig, name: str, reason: str) -> None:
    """Begin a log of another NAME, such as registry.example.com/log-2, with the entries that there are.

    For a registry whose newest entries are lost: its catalog is older than the log that it signed, and signs
    nothing more under that name. Clients and witnesses have to be given the new name and key, and are told
    by that. The old checkpoints stay evidence of what was lost.
    """
    from digestry.registry.observability.audit_events import note_command
    from digestry.translog.notes import check_name

    check_name(name)
    backend, catalog = _open(registry)
    try:
        catalog.log_signer.begin_again(name, now=backend.now(), reason=reason)
        catalog.log_suspension.resume(now=backend.now())
        keys = catalog.log.keys()
    finally:
        catalog.close()
    note_command(registry.scratch, "digestry log begin", "begin-log", name=name, reason=reason)
    if keys is not None:
        say(str(keys.keys[0].signer.verifier))
    note("the server signs it within a quarter of a minute; give the key to clients and witnesses")


@click.command()
@registry_options
@click.option(
    "--reason", required=True, help="Why it is known that nothing more was signed, for the audit log."
)
def resume(*, registry: RegistryConfig, reason: str) -> None:
    """Sign the log on under its name, after its catalog was restored or taken back.

    Only if nothing was signed after that state: no push was taken after the backup, or by the registry that
    was moved away. Otherwise there would be two histories of one name, and everybody who saw the newer one
    raises an alarm, rightly: `digestry log begin` gives the log another name.
    """
    from digestry.errors import Conflict
    from digestry.registry.observability.audit_events import note_command

    backend, catalog = _open(registry)
    try:
        why, newest = catalog.log_suspension.reason(), catalog.log.checkpoint()
        if not why or newest is None:
            raise Conflict(
                "the log of this registry is not suspended", hint="its log says why it is not signed"
            )
        catalog.log_suspension.resume(now=backend.now())
    finally:
        catalog.close()
    found = newest.checkpoint
    note_command(
        registry.scratch,
        "digestry log resume",
        "resume-log",
        name=found.origin,
        size=found.size,
        reason=reason,
    )
    note(f"the log {found.origin} is signed on after its {found.size} entries: {why}")


def _open(registry: RegistryConfig) -> tuple[Backend, Catalog]:
    backend = registry.backend()
    backend.catalog_store.check_schema()  # a directory that is no registry must not become one
    return backend, backend.open_catalog()


def _keys(registry: RegistryConfig, catalog: Catalog) -> Iterator[tuple[StoredKey, str]]:
    found = catalog.log.keys()
    for stored in () if found is None else found.keys:
        yield stored, "log"
    name = registry.transparency.witness_name
    if name is not None:
        for stored in catalog.log_signer.witness_keys(name):
            yield stored, "witness"


def _row(stored: StoredKey, use: str, now: int) -> dict[str, object]:
    from digestry.catalog import clock

    verifier = stored.signer.verifier
    return {
        "name": verifier.name,
        "key_id": f"{verifier.key_id:08x}",
        "use": use,
        "created_at": rfc3339(clock.to_datetime(stored.created_at)),
        "retired_at": None if stored.retired_at is None else rfc3339(clock.to_datetime(stored.retired_at)),
        "state": "signs" if stored.signs(now) else "retired",
        "key": str(verifier),
    }
