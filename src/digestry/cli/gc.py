"""``digestry gc``: remove unused content from a registry."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli.output import json_option, note, printable, say
from digestry.cli.registry_options import ROOT_HELP, chosen_registry
from digestry.model.text import number_of, printable_json

if TYPE_CHECKING:
    from digestry.catalog.removals import Removed, Stayed
    from digestry.registry.garbage_run import CollectionCounts
    from digestry.registry.removal_limit import RemovalShare


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The server's registry.toml: [collection] and [[retention]] say what is kept (docs/collection.md).",
)
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help=ROOT_HELP)
@click.option("--dry-run", is_flag=True, help="Only list what would go, and why.")
@click.option("-q", "--quiet", is_flag=True, help="Do not list what goes; only count it.")
@click.option(
    "--really-remove-most",
    is_flag=True,
    help="Also remove more than half of the manifests or blobs, or of their bytes.",
)
@json_option
def gc(
    *,
    config: Path | None,
    root: Path | None,
    dry_run: bool,
    quiet: bool,
    really_remove_most: bool,
    as_json: bool,
) -> None:
    """Remove unused content: tags by the retention rules, manifests without a tag, and the blobs that
    only those needed.

    A served registry does the same on its own schedule. Clients may push and pull meanwhile. An image
    that has lost its tag, or that an audit has seen running, is kept for 90 days, unless the
    configuration says otherwise.

    Nothing is removed if the catalog belongs to another registry, or is older than the blobs beside it.

    JSON: an object with dry_run, items (kind: tag, manifest, link or blob; repository, name, why, size
    in bytes, and stays, true for what should have gone and could not), and totals.
    """
    from digestry.registry import garbage_collection, served_retention
    from digestry.registry.observability.audit_events import operator
    from digestry.registry.removal_limit import OPTION

    loaded = chosen_registry(config, root)
    backend = loaded.backend()
    if config is None:
        notes = backend.coordination.notes
        served_retention.check_default(notes, loaded.collection.retention)
    most: list[RemovalShare] = []
    if dry_run:
        run = partial(garbage_collection.dry_run, ask=most.append)
    else:
        run = partial(garbage_collection.collect, by=operator("digestry gc"), really=really_remove_most)
    if as_json:
        items = _Items(dry_run=dry_run)
        tally = run(loaded, backend, tell=_ignore if quiet else items.tell)
        items.end(tally)
    else:
        tally = run(loaded, backend, tell=_ignore if quiet else _tell)
        say(_summary(tally, dry_run=dry_run))
    if dry_run:
        note("nothing was removed: this was a dry run")
        for share in most:
            note(f"this is most of the {share.kind}s: without {OPTION} they would stay")


def _ignore(_: Removed | Stayed) -> None:
    """Print nothing."""


def _tell(item: Removed | Stayed) -> None:
    from digestry.catalog.removals import Stayed

    what = f"{item.repository} {item.name}" if item.repository else item.name
    word = "STAYS " if isinstance(item, Stayed) else ""
    say(printable(f"{word}{item.kind:8}  {what}  {item.why}"))


class _Items:
    """A JSON list whose items are printed as they come: there may be millions."""

    def __init__(self, *, dry_run: bool) -> None:
        self._before = f'{{"dry_run": {"true" if dry_run else "false"}, "items": ['

    def tell(self, item: Removed | Stayed) -> None:
        from digestry.catalog.removals import Stayed

        fields = {**asdict(item), "stays": isinstance(item, Stayed)}
        say(f"{self._before}\n  {_json(fields)}", end="")
        self._before = ","

    def end(self, tally: CollectionCounts) -> None:
        """Print the end of the document, or all of it if there was no item."""
        before = "" if self._before == "," else self._before
        say(f'{before}], "totals": {_json(tally)}}}')


def _json(value: object) -> str:
    import msgspec

    return printable_json(msgspec.json.encode(value).decode())


def _summary(tally: CollectionCounts, *, dry_run: bool) -> str:
    parts = [
        number_of(tally.tags, "tag"),
        number_of(tally.manifests, "manifest"),
        number_of(tally.links, "link"),
        f"{number_of(tally.blobs, 'blob')} of {tally.bytes} bytes",
    ]
    stayed = f"; {tally.stayed} stayed that should have gone" if tally.stayed else ""
    return f"{'Would remove' if dry_run else 'Removed'} {', '.join(parts)}{stayed}."
