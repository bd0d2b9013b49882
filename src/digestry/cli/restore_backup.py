"""``digestry restore-backup``: make a registry from a backup."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli.backup import exit_with_findings, rate_option
from digestry.cli.file_modes import keep_private
from digestry.cli.journal import hashes
from digestry.cli.output import human_size, json_document, json_option, note, say
from digestry.cli.registry_options import registry_on_disk
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.cli import registry_documents as documents
    from digestry.registry.backup.restoring import RestoredBackup


@click.command("restore-backup")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The directory to make a registry in: empty, or one that does not exist yet.",
)
@click.option(
    "--expect",
    multiple=True,
    metavar="HASH",
    callback=hashes,
    help="A hash that must be in its journal: an earlier last hash, or an entry's.",
)
@click.option(
    "--skip-damaged", is_flag=True, help="Leave out blobs that are damaged in the backup, and list them."
)
@rate_option
@json_option
@click.pass_context
def restore_backup(
    ctx: click.Context,
    *,
    source: Path,
    root: Path,
    expect: tuple[str, ...],
    skip_damaged: bool,
    rate: int | None,
    as_json: bool,
) -> None:
    """Make a registry from a backup: a directory, an archive, or - for standard input.

    All of it is verified: each blob's hash, the catalog, the journal's chain. If anything is wrong, or
    the backup is incomplete, nothing is left behind. The directory cannot be served before it is
    complete. Exit code 1 if the registry was made and content is missing from it.

    Somebody who can write the backup could have written another valid one: note the journal's last hash,
    which `digestry backup` prints, in another place, and --expect it.

    JSON: an object with backup (what backup.json says), root, blobs, bytes, and missing.
    """
    from digestry.cli.progress import measuring
    from digestry.cli.signals import stopping
    from digestry.errors import Conflict, NotFound
    from digestry.fsio import storage_errors
    from digestry.registry.backup import restoring
    from digestry.registry.backup.copying import Flow
    from digestry.registry.observability.audit_events import note_command

    keep_private(root)
    registry = registry_on_disk(None, root)
    if registry.storage.stores.blobs is not None:
        raise Conflict(
            "a backup is restored to a directory, and DIGESTRY_BLOBS names an S3 store",
            hint="restore it without DIGESTRY_BLOBS; digestry migrate-storage moves the content to a store",
        )
    backend = registry.backend()
    with measuring("restore", quiet=False) as amount:
        flow = Flow(rate, amount.moved)
        from_archive = functools.partial(
            restoring.from_archive,
            backend=backend,
            root=root,
            expect=expect,
            skip_damaged=skip_damaged,
            flow=flow,
            watcher=amount,
        )
        with stopping(flow.stop):
            if source == Path("-"):
                restored = from_archive(sys.stdin.buffer.read)
            elif source.is_dir():
                restored = restoring.from_directory(
                    source, backend, root, expect=expect, skip_damaged=skip_damaged, flow=flow, watcher=amount
                )
            elif not source.exists():
                raise NotFound(f"there is no backup {source}")
            else:
                with storage_errors("open", source):
                    file = source.open("rb")
                with file:
                    restored = from_archive(file.read)
    what = {"source": str(source.absolute()), "blobs": restored.blobs, "missing": len(restored.missing)}
    last_hash = restored.description.journal.last_hash
    note_command(root, "digestry restore-backup", "restore-backup", journal=last_hash, **what)
    if as_json:
        json_document(_document(restored, root))
    else:
        _tell(restored, root)
    broken = restored.description.journal.broken
    exit_with_findings(
        ctx,
        restored.missing,
        f"{len(restored.missing)} blobs are not there; pushing an image that holds one puts it back",
        f"the journal's chain was broken when the backup was taken: {broken}" if broken else "",
    )


def _document(restored: RestoredBackup, root: Path) -> documents.RestoreBackup:
    from digestry.cli import registry_documents as documents

    return documents.RestoreBackup(
        backup=restored.description,
        root=str(root),
        blobs=restored.blobs,
        bytes=restored.bytes,
        missing=restored.missing,
    )


def _tell(restored: RestoredBackup, root: Path) -> None:
    description = restored.description
    say(
        f"Restored: {restored.blobs} blobs ({human_size(restored.bytes)}) and "
        f"{description.journal.entries} journal entries, as of {rfc3339(description.taken_at)}"
    )
    if description.journal.broken is None:
        say(f"Journal: the chains hold, and the last hash is {description.journal.last_hash}")
    if restored.log_suspended:
        note(
            "the signed log is suspended: if tags were moved after the backup, that was signed, and is lost;"
            " digestry log begin then gives the log another name. If none were, digestry log resume signs on"
            " (docs/transparency.md)"
        )
    say(f"Serve it: digestry serve --root {root}, with the registry.toml that it had")
