"""``digestry journal``: verify and export a registry's journal."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from digestry.cli import exit_codes
from digestry.cli.command_group import Group
from digestry.cli.output import json_document, json_option, note, printable, say
from digestry.cli.registry_options import CONFIG_HELP, ROOT_HELP, chosen_registry, registry_options

if TYPE_CHECKING:
    from digestry.catalog.journal_chain import Verdict
    from digestry.cli import registry_documents as documents
    from digestry.registry.config import RegistryConfig

_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def hashes(_: click.Context, __: click.Parameter, values: Sequence[str]) -> Sequence[str]:
    """Return an option's values, which must be hashes, for click."""
    for value in values:
        if not _HASH.fullmatch(value):
            raise click.BadParameter(f"{value!r} is not a hash: 64 hex digits are required.")
    return values


@click.group(cls=Group)
def journal() -> None:
    """Verify and export a registry's journal."""


@journal.command()
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help=ROOT_HELP)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help=CONFIG_HELP)
@click.option("--file", type=click.File("rb"), help="An exported journal, or - for standard input.")
@click.option(
    "--expect",
    multiple=True,
    metavar="HASH",
    callback=hashes,
    help="A hash that must be in it: an earlier last hash, or an entry's.",
)
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    *,
    config: Path | None,
    root: Path | None,
    file: BinaryIO | None,
    expect: tuple[str, ...],
    as_json: bool,
) -> None:
    """Verify the hash chains: that no entry was changed, removed or inserted.

    Exit code 1, with the first wrong entry, if a chain is broken. Somebody who can rewrite the whole
    journal can make valid chains: note the last hash, which covers all entries, elsewhere now and then,
    and --expect it. The hash of a single entry can be expected too.

    JSON: an object with entries, first, last_hash, anchor, broken (null, or sequence and reason) and
    absent, the expected hashes that are not there. last_hash and anchor are null for a part of a journal
    that does not contain them.
    """
    from digestry.catalog import journal_export
    from digestry.errors import ContentError, NotFound

    if file is not None and (root is not None or config is not None):
        raise click.UsageError("Give either --file, or --root or --config.")
    if file is not None:
        # Standard input has a number for a name, or one in brackets.
        name = "standard input" if file.name in (0, "<stdin>", "-") else file.name
        try:
            verdict = journal_export.verify_lines(file, expect)
        except ContentError as error:
            raise ContentError(f"in {name}: {error.message}", hint=error.hint) from error
        if not verdict.entries and verdict.broken is None:
            raise NotFound(
                f"{name} has no entries, so that there is nothing to verify",
                hint="an export that failed leaves such a file, too: digestry journal export --root DIR",
            )
    else:
        verdict = chosen_registry(config, root).backend().catalog_store.verify_journal(expect)
    if as_json:
        json_document(_document(verdict))
    else:
        _tell(verdict)
    if verdict.broken is not None or verdict.absent:
        ctx.exit(exit_codes.FINDINGS)


def _document(verdict: Verdict) -> documents.JournalVerification:
    from digestry.cli import registry_documents as documents

    broken = verdict.broken
    return documents.JournalVerification(
        entries=verdict.entries,
        first=verdict.first,
        last_hash=verdict.last_hash or None,
        anchor=verdict.anchor or None,
        broken=None if broken is None else documents.BrokenEntry(broken.sequence, broken.reason),
        absent=verdict.absent,
    )


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _tell(verdict: Verdict) -> None:
    if verdict.broken is not None:
        say(
            printable(
                f"BROKEN at entry {verdict.broken.sequence}: {verdict.broken.reason}."
                f" {_entries(verdict.entries)} before it hold{'s' if verdict.entries == 1 else ''}."
            )
        )
    else:
        last = f", the last hash is {verdict.last_hash}" if verdict.last_hash else ""
        say(f"The chains hold: {_entries(verdict.entries)}{last}")
    for value in verdict.absent:
        say(f"NOT THERE: {value}")
    if verdict.first > 1:
        before = f": the entry before it must have the hash {verdict.anchor}" if verdict.anchor else ""
        note(f"this is a part, from entry {verdict.first} on{before}")


@journal.command()
@registry_options
@click.option(
    "--since-sequence",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Only the entries after the one whose sequence is N.",
)
def export(*, registry: RegistryConfig, since_sequence: int) -> None:
    """Write the journal as lines of JSON, in the order of the registry, oldest entry first.

    Each line is an entry as GET _digestry/journal has it (docs/tags.md); `digestry journal verify
    --file` proves the chains from them alone.
    """
    from digestry.errors import StorageError

    stream = sys.stdout.buffer
    with contextlib.closing(registry.backend().catalog_store.export_journal(since=since_sequence)) as lines:
        for line in lines:
            try:
                stream.write(line)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise StorageError(f"cannot write the output: {error.strerror or error}") from error
