"""The output of commands: tables for people, JSON for programs, with untrusted text escaped.

The tables are plain columns as docker's are. They are written here, without rich, because rich
takes half of what ``digestry images`` may take to start (docs/adr/0003-plain-tables.md).
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.errors import StorageError
from digestry.model.text import printable, printable_json

if TYPE_CHECKING:
    from digestry.model.digest import Digest

__all__ = [
    "complain",
    "digest_cell",
    "human_size",
    "json_document",
    "json_option",
    "note",
    "printable",
    "refuse_terminal",
    "say",
    "table",
    "write_bytes",
    "write_json",
    "write_pieces",
]

_CHUNK: Final = 1 << 16


def say(text: str = "", *, end: str = "\n") -> None:
    """Print a line for the caller on standard output.

    Raises :class:`StorageError` if it cannot be written (a full disk), but BrokenPipeError if nobody
    reads it, which :func:`digestry.cli.main.main` knows what to do about.
    """
    try:
        click.echo(text + end, nl=False)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write the output: {error.strerror or error}") from error


def write_pieces(pieces: Iterable[str], path: Path | None) -> None:
    """Write text of any length, as it comes, to ``path``, or for None to standard output.

    A file has the old bytes or all of the new ones, durably; one that is no file but a pipe or a
    device is just written to. Raises :class:`StorageError`.
    """
    if path is None:
        for chunk in _chunks(pieces):
            say(chunk, end="")
        return
    from digestry.fsio import replacing, storage_errors

    if path.exists() and not path.is_file():
        with storage_errors("write", path), path.open("wb") as file:
            for chunk in _chunks(pieces):
                file.write(chunk.encode(errors="backslashreplace"))
        return
    with replacing(path.resolve()) as file:
        for chunk in _chunks(pieces):
            file.write(chunk.encode(errors="backslashreplace"))


def write_bytes(chunks: Iterable[bytes], path: Path | None) -> None:
    """Write bytes, as they come, to ``path``, durably and whole, or for None to standard output.

    Raises :class:`StorageError`, and what ``chunks`` raises; a file has its old bytes then.
    """
    if path is not None:
        from digestry.fsio import replacing, storage_errors

        if path.exists() and not path.is_file():
            with storage_errors("write", path), path.open("wb") as device:
                device.writelines(chunks)
            return
        with replacing(path.resolve()) as file:
            for chunk in chunks:
                with storage_errors("write", path):
                    file.write(chunk)
        return
    for chunk in chunks:
        try:
            click.echo(chunk, nl=False)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write the output: {error.strerror or error}") from error


def write_json(raw: bytes, path: Path | None) -> None:
    """Write JSON that others made, as :func:`write_bytes` does: its exact bytes.

    A terminal gets it with unsafe characters escaped; its values stay the same.
    """
    if path is None and _is_terminal():
        raw = printable_json(raw.decode(errors="backslashreplace").replace("\r", " ")).encode()
    write_bytes([raw], path)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def refuse_terminal(path: Path | None) -> None:
    """Raise :class:`click.UsageError` if bytes that are no text would go to a terminal."""
    if path is None and _is_terminal():
        raise click.UsageError("The output is no text: write it to a file with --output, or to a pipe.")


def _chunks(pieces: Iterable[str]) -> Iterator[str]:
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield "".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting)


def note(text: str) -> None:
    """Print a line beside the result (progress, remarks) on standard error, if anybody listens."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def complain(message: str, hint: str = "") -> None:
    """Print an error, and what to do about it, on standard error."""
    note(f"digestry: {printable(message)}")
    if hint:
        note(f"  hint: {printable(hint)}")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print left-aligned columns, as wide as they need to be, with cells made printable.

    In a terminal, what does not fit beside the rest on a line goes on the next one, indented. Elsewhere a row
    is a line.
    """
    from digestry.cli.table_layout import lines_of  # few commands print tables

    # Most tables have nothing to escape, which is found out faster for all of their cells at once.
    text = "".join(itertools.chain.from_iterable(rows))
    cells = rows if printable(text) is text else [[printable(cell) for cell in row] for row in rows]
    # There is no sys.stdout if the caller closed it.
    room = _terminal_columns() if _is_terminal() else sys.maxsize
    # Thousands of lines are written together: each write is a call of the system.
    write_pieces((f"{line}\n" for line in lines_of(headings, cells, room)), None)


def _terminal_columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def json_document(value: object) -> None:
    """Print ``value`` as indented JSON, with its digests and references as text."""
    say(json_text(value))


def json_text(value: object) -> str:
    """Return ``value`` as indented JSON, with its digests and references as text."""
    import msgspec

    encoded = msgspec.json.encode(value, enc_hook=str)
    return printable_json(msgspec.json.format(encoded, indent=2).decode())


def json_option(function: Callable[..., object]) -> Callable[..., object]:
    """Add ``--format`` to a command that is no listing; it gets ``as_json``."""

    def is_json(_: click.Context, __: click.Parameter, value: str) -> bool:
        return value == "json"

    return click.option(
        "--format",
        "as_json",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        callback=is_json,
        help="Text for people, or JSON for programs.",
    )(function)


def human_size(size: int) -> str:
    """Return a number of bytes as docker prints it: powers of 1000, three figures."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:  # from there on, three figures would round it to 1e+03
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}EB"


def digest_cell(digest: Digest | None, no_trunc: bool) -> str:
    """Return a digest as tables print it: cut to what ``images`` prints of an ID, unless ``no_trunc``."""
    if digest is None:
        return "-"
    return str(digest) if no_trunc else f"{digest.algorithm}:{digest.short}"
