"""``digestry migrate-storage``: move a registry to other stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli.backup import exit_with_findings, note_missing, rate_option
from digestry.cli.output import human_size, json_document, json_option, note, say
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.cli import registry_documents as documents
    from digestry.registry.migration.migrating import MigratedRegistry
    from digestry.registry.migration.stores import MigratingStores

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("migrate-storage")
@click.option(
    "--from",
    "old_file",
    type=_FILE,
    required=True,
    metavar="OLD.toml",
    help="The registry.toml as it is now.",
)
@click.option(
    "--to",
    "new_file",
    type=_FILE,
    metavar="NEW.toml",
    help="The registry.toml from then on: its root and [storage] name other stores, which are empty.",
)
@click.option(
    "--copy-only", is_flag=True, help="Copy content and stop; the registry may take pushes meanwhile."
)
@click.option("--verify", is_flag=True, help="Also verify what an earlier call left in the new store.")
@click.option(
    "--skip-damaged", is_flag=True, help="Leave out blobs that are damaged or missing, and list them."
)
@click.option("--reopen", is_flag=True, help="Undo a move: the old registry accepts pushes again.")
@rate_option
@json_option
@click.pass_context
def migrate_storage(
    ctx: click.Context,
    *,
    old_file: Path,
    new_file: Path | None,
    copy_only: bool,
    verify: bool,
    skip_damaged: bool,
    reopen: bool,
    rate: int | None,
    as_json: bool,
) -> None:
    """Move a registry to other stores: from a disk to S3, from SQLite to PostgreSQL, and back.

    Content is copied first, each byte hashed on its way: --copy-only does that while the registry takes
    pushes. Then stop it, or serve it with read-only = true, and call this without --copy-only: what is new
    is copied, and the signing keys, and then the catalog in one transaction, which proves every chain of
    the journal. From then on the old registry takes no pushes, and the new one can be served.

    After an interruption the next call continues. The new registry cannot be served before the end.
    Both files are read without DIGESTRY_DATABASE and DIGESTRY_BLOBS; S3 keys come from the environment.
    Uploads under way and the quarantine are not moved. Exit code 1 if content was left out.

    JSON: an object with old, new, moved, copied, copied_bytes, present, missing, rows, journal (entries,
    last_hash, broken), and seconds, in which the old registry took no pushes.
    """
    from digestry.registry.migration import migrating
    from digestry.registry.migration.stores import read_stores

    old = read_stores(old_file)
    if reopen:
        found = migrating.reopen(old)
        say(f"Reopened: {old.name}")
        note(f"images that were pushed to {found.other} are not here; stop the registry that serves it")
        return
    if new_file is None:
        raise click.UsageError("--to is required, the configuration with the new stores.")
    new = read_stores(new_file)
    try:
        result = _migrate(old, new, rate, copy_only=copy_only, verify=verify, skip_damaged=skip_damaged)
    except migrating.ContentMissing as error:
        note_missing(error.missing)
        raise
    _note(old, new, result)
    if as_json:
        json_document(_document(result))
    else:
        _tell(result, new_file)
    broken = None if result.journal is None else result.journal.broken
    said = f"entry {broken.sequence}: {broken.reason}" if broken else ""
    exit_with_findings(
        ctx,
        result.missing,
        "",
        f"the journal's chain is broken, as it was before: {said}" if said else "",
    )


def _migrate(
    old: MigratingStores,
    new: MigratingStores,
    rate: int | None,
    *,
    copy_only: bool,
    verify: bool,
    skip_damaged: bool,
) -> MigratedRegistry:
    from digestry.cli.progress import measuring
    from digestry.cli.signals import stopping
    from digestry.registry.backup.copying import Flow
    from digestry.registry.migration.migrating import migrate
    from digestry.registry.permissions import is_shared, umask

    root = new.config.root
    shared = new.config.group_access or (root is not None and is_shared(root))
    with umask(group=shared), measuring("migrate", quiet=False) as amount:
        flow = Flow(rate, amount.moved)
        with stopping(flow.stop):
            return migrate(
                old,
                new,
                copy_only=copy_only,
                verify=verify,
                skip_damaged=skip_damaged,
                flow=flow,
                watcher=amount,
            )


def _note(old: MigratingStores, new: MigratingStores, result: MigratedRegistry) -> None:
    """Write the move to the audit logs of the roots that the two registries have."""
    from digestry.registry.observability.audit_events import note_command

    if not result.moved:
        return
    journal = "" if result.journal is None else result.journal.last_hash
    for root in dict.fromkeys((old.config.root, new.config.root)):
        if root is not None:
            note_command(
                root,
                "digestry migrate-storage",
                "migrate-storage",
                source=result.old,
                target=result.new,
                journal=journal,
            )


def _document(result: MigratedRegistry) -> documents.MigrateStorage:
    from digestry.cli import registry_documents as documents

    moved = result.journal
    journal = None
    if moved is not None:
        broken = None
        if moved.broken is not None:
            broken = documents.BrokenEntry(moved.broken.sequence, moved.broken.reason)
        journal = documents.MovedJournal(moved.entries, moved.last_hash, broken)
    return documents.MigrateStorage(
        old=result.old,
        new=result.new,
        moved=result.moved,
        copied=result.copied,
        copied_bytes=result.copied_bytes,
        present=result.present,
        missing=result.missing,
        rows=result.rows,
        journal=journal,
        seconds=round(result.seconds, 3),
    )


def _tell(result: MigratedRegistry, new_file: Path) -> None:
    say(
        f"Copied: {number_of(result.copied, 'blob')} ({human_size(result.copied_bytes)});"
        f" there already: {result.present}"
    )
    if not result.moved:
        say("Not moved yet: stop the registry or serve it read-only, and call this without --copy-only")
        return
    if result.journal is not None:
        say(
            f"Catalog: {number_of(sum(result.rows.values()), 'row')} in"
            f" {number_of(len(result.rows), 'table')}; the old registry took no pushes for"
            f" {result.seconds:.1f} seconds"
        )
        say(
            f"Journal: {number_of(result.journal.entries, 'entry', 'entries')}, every chain proved; its last"
            f" hash is {result.journal.last_hash}"
        )
    say(f"Moved: from {result.old} to {result.new}")
    say(f"Serve it: digestry serve --config {new_file}")
