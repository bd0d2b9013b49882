"""``digestry backup``: copy a registry, served or not, to a directory or an archive."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.cli import exit_codes
from digestry.cli.file_modes import keep_private
from digestry.cli.output import complain, human_size, json_document, json_option, note, printable, say
from digestry.cli.registry_options import ROOT_HELP, STORE_HELP, registry_on_disk
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.blobs.ingests import Chunk
    from digestry.cli import registry_documents as documents
    from digestry.registry.backup.description import Missing
    from digestry.registry.backup.taking import TakenBackup

_COMPRESSED: Final = re.compile(r"\.(tar\.[a-z0-9]+|tgz|txz|tzst)$", re.IGNORECASE)
_HOLDERS: Final = 5
_SLOWEST: Final = 1 << 10


def rate_option(function: Callable[..., object]) -> Callable[..., object]:
    """Return the value of ``--rate`` in bytes a second, or None."""
    return click.option(
        "--rate", metavar="SIZE", callback=_rate, help='The most to read per second, such as "100 MiB".'
    )(function)


def _rate(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    from digestry.registry import toml

    if value is None:
        return None
    try:
        found = toml.size(int(value) if re.fullmatch("[0-9]{1,15}", value) else value, toml.Where(Path()))
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    if found < _SLOWEST:
        raise click.BadParameter(f"{_SLOWEST} bytes a second or more are required.")
    return found


@click.command()
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help=ROOT_HELP)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help=STORE_HELP)
@click.option("--verify", is_flag=True, help="Also verify what an earlier backup left in DEST.")
@click.option("--keep", is_flag=True, help="Leave content in DEST that the registry no longer has.")
@click.option(
    "--temporary",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIR",
    help="A directory for the copy of the catalog while an archive is written.  [default: the root]",
)
@rate_option
@json_option
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path, allow_dash=True))
@click.pass_context
def backup(
    ctx: click.Context,
    *,
    root: Path | None,
    config: Path | None,
    destination: Path,
    verify: bool,
    keep: bool,
    temporary: Path | None,
    rate: int | None,
    as_json: bool,
) -> None:
    """Copy a registry, served or not, to a directory or an archive.

    DEST is a directory, which is made, or updated if it has an earlier backup of the registry; or
    an archive, NAME.tar, or - for standard output. `digestry restore-backup` makes a
    registry of it, with the same digests, tags and journal. Every byte that is copied is hashed.
    Exit code 1 if content is damaged or missing: the rest is backed up, and the missing content is listed.

    Content in an S3 store is copied, too: name the store by --config or DIGESTRY_BLOBS. A catalog in a
    database is backed up by the database's own tools (docs/scale.md).

    Keep it as safe as the registry: it contains the keys that sign tokens. It does not contain
    registry.toml and the files that it names, nor uploads under way.

    JSON: an object with backup (what backup.json says), copied, copied_bytes, kept, removed, and
    left_out, what else is in the root, with the reason.
    """
    from digestry.cli.progress import measuring
    from digestry.cli.signals import stopping
    from digestry.registry.backup import taking
    from digestry.registry.backup.copying import Flow

    archive = destination == Path("-") or destination.suffix == ".tar"
    if archive and (verify or keep):
        raise click.UsageError("--verify and --keep are for a directory.")
    if temporary is not None and not archive:
        raise click.UsageError("--temporary is for an archive.")
    if _COMPRESSED.search(destination.name):
        raise click.UsageError(
            "Archives are not compressed: write - and pipe it through a program that does."
        )
    keep_private(destination)
    registry = registry_on_disk(config, root)
    backend, directory = registry.backend(), registry.scratch
    with measuring("backup", quiet=False) as amount:
        flow = Flow(rate, amount.moved)
        with stopping(flow.stop):
            if archive:
                with _output(destination) as write:
                    taken = taking.to_archive(
                        backend, directory, write, temporary=temporary, flow=flow, watcher=amount
                    )
            else:
                taken = taking.to_directory(
                    backend, directory, destination, verify=verify, keep=keep, flow=flow, watcher=amount
                )
    # Standard output may be the archive.
    tell = note if destination == Path("-") else say
    if as_json and tell is say:
        json_document(_document(taken))
    else:
        _tell(taken, tell)
    missing, broken = taken.description.missing, taken.description.journal.broken
    exit_with_findings(
        ctx,
        missing,
        f"{len(missing)} blobs are not in the backup; the rest of it is complete",
        f"the journal's chain is broken: {broken}" if broken else "",
        hint="digestry journal verify shows more",
    )


@contextlib.contextmanager
def _output(destination: Path) -> Iterator[Callable[[Chunk], object]]:
    """Yield a writer of an archive's bytes. A file has them, durably, at the end of the block."""
    from digestry.errors import StorageError
    from digestry.fsio import replacing

    if destination != Path("-"):
        _sweep(destination)
        with replacing(destination, mode=0o600) as file:
            yield file.write
        return
    if sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal: redirect it, or name a file.")
    sys.stdout.flush()
    stream = sys.stdout.buffer

    def write(chunk: Chunk) -> None:
        try:
            stream.write(chunk)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write the archive: {error.strerror or error}") from error

    yield write
    try:
        stream.flush()
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            os.fsync(stream.fileno())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write the archive: {error.strerror or error}") from error


def _sweep(destination: Path) -> None:
    # A backup that was killed left its file under a name of fsio.replacing.
    ours = re.compile(re.escape(f".{destination.name}.") + "[0-9a-f]{16}")
    with contextlib.suppress(OSError):
        for path in destination.parent.iterdir():
            if ours.fullmatch(path.name):
                path.unlink()


def _document(taken: TakenBackup) -> documents.Backup:
    from digestry.cli import registry_documents as documents

    return documents.Backup(
        backup=taken.description,
        copied=taken.copied,
        copied_bytes=taken.copied_bytes,
        kept=taken.kept,
        removed=taken.removed,
        left_out=[documents.LeftOut(name, reason) for name, reason in taken.left_out],
    )


def _tell(taken: TakenBackup, tell: Callable[[str], None]) -> None:
    description = taken.description
    tell(
        f"Backed up: {description.blobs} blobs ({human_size(description.size)}) and"
        f" {description.journal.entries} journal entries, as of {rfc3339(description.taken_at)}"
    )
    tell(
        f"Copied: {taken.copied} blobs ({human_size(taken.copied_bytes)}); there already: {taken.kept};"
        f" removed: {taken.removed}"
    )
    tell(f"Journal: its last hash is {description.journal.last_hash}")
    tell("Not in it: registry.toml and the files that it names (users, certificates, secrets)")
    for name, reason in taken.left_out:
        tell(printable(f"Not in it: {name} ({reason})"))


def exit_with_findings(
    ctx: click.Context, missing: list[Missing], remark: str, broken: str, *, hint: str = ""
) -> None:
    """List the missing content, and exit with code 1 if there is any, or if the journal is ``broken``.

    ``remark`` is a sentence about the missing content; it and ``broken`` are printed if they are not empty.
    """
    note_missing(missing)
    if missing and remark:
        note(remark)
    if broken:
        complain(broken, hint)
    if missing or broken:
        ctx.exit(exit_codes.FINDINGS)


def note_missing(missing: list[Missing]) -> None:
    """Print the missing content, with the reasons and its holders."""
    for content in missing:
        holders = ", ".join(content.held_by[:_HOLDERS])
        more = len(content.held_by) - _HOLDERS
        held_by = f"; held by {holders}{f' and {more} more' if more > 0 else ''}" if holders else ""
        note(printable(f"MISSING {content.digest} ({human_size(content.size)}): {content.problem}{held_by}"))
