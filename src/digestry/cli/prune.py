"""``digestry prune``: remove unused content from the local store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.confirmation import confirmed
from digestry.cli.output import human_size, json_document, json_option, note, printable, say
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.images.pruning import Prunable


@click.command()
@click.option("--keep-untagged", is_flag=True, help="Keep images that have a digest and no tag.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def prune(*, keep_untagged: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove unused content from the local store, after asking.

    It removes images that no tag points to, content that no name needs, and the parts of interrupted
    downloads. Registries are not changed.

    JSON: an object with names, digests, size (bytes that are, or would be, free), partial_downloads (their
    number), removed (false with --dry-run).
    """
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.images import pruning

    store = open_store(load())
    found = pruning.prunable(store, keep_untagged=keep_untagged)
    if not dry_run and found:
        if not yes and not confirmed(_question(found)):
            return
        found = pruning.prune(store, keep_untagged=keep_untagged)
    if as_json:
        from digestry.cli import documents

        json_document(
            documents.Prune(
                names=found.names,
                digests=found.digests,
                size=found.freed,
                partial_downloads=len(found.partial),
                removed=not dry_run,
            )
        )
        return
    word = "Would remove" if dry_run else "Removed"
    for name in found.names:
        say(printable(f"{word}: {name}"))
    for digest in found.digests:
        say(f"{word}: {digest}")
    if found.partial:
        say(f"{word}: {number_of(len(found.partial), 'partial download')}")
    if not found:
        note("nothing to remove")
    else:
        note(f"{human_size(found.freed)} {'would be' if dry_run else 'are'} free again")


def _question(found: Prunable) -> str:
    parts = (
        f"{number_of(len(found.names), 'image')} without a tag",
        f"{number_of(len(found.digests), 'blob')} ({human_size(found.freed)})",
        number_of(len(found.partial), "partial download"),
    )
    return f"Remove {parts[0]}, {parts[1]} and {parts[2]}?"
