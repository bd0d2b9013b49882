"""What the verbs print: tables for people, JSON for programs, and nothing hostile raw.

The tables are plain columns as docker's are. They are written here, without rich, because rich
takes half of what ``digestry images`` may take to start (docs/adr/0003-plain-tables.md).
"""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from digestry.errors import StorageError

_GAP: Final = "   "


def printable(text: str) -> str:
    """``text`` with every control and formatting character escaped: names come from strangers,
    and a terminal obeys escape sequences."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if _harmless(character) else character.encode("unicode_escape").decode()
        for character in text
    )


def _harmless(character: str) -> bool:
    return character.isprintable() and unicodedata.category(character) != "Cf"


def say(text: str = "") -> None:
    """Prints a line for the caller on standard output.

    Raises :class:`StorageError` if it cannot be written (a full disk), but BrokenPipeError if nobody
    reads it, which :func:`digestry.cli.main.main` knows what to do about.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write the output: {error.strerror or error}") from error


def note(text: str) -> None:
    """Prints a line beside the result (progress, remarks) on standard error, if anybody listens."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def complain(message: str, hint: str = "") -> None:
    """Prints an error, and what to do about it, on standard error."""
    note(f"digestry: {printable(message)}")
    if hint:
        note(f"  hint: {printable(hint)}")


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    styles: Sequence[Callable[[str], str] | None] = (),
) -> None:
    """Prints left-aligned columns, as wide as they need to be; ``styles`` colours a column's cells.

    Cells are made printable. Colours go to a terminal only, and not if ``NO_COLOR`` is set.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max([len(heading), *(len(row[column]) for row in cells)]) for column, heading in enumerate(headings)
    ]

    def line(values: Sequence[str], paint: bool) -> str:
        parts = []
        for column, value in enumerate(values):
            padded = value if column == len(widths) - 1 else value.ljust(widths[column])
            style = styles[column] if paint and column < len(styles) else None
            parts.append(padded if style is None else style(padded))
        return _GAP.join(parts).rstrip()

    say(line(headings, paint=False))
    # There is no sys.stdout if the caller closed it.
    colours = sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for row in cells:
        say(line(row, paint=colours))


def json_document(value: Any) -> None:
    """Prints ``value`` as indented JSON, with its digests and references as text."""
    import msgspec

    encoded = msgspec.json.encode(value, enc_hook=str)
    text = msgspec.json.format(encoded, indent=2).decode()
    # Below U+0020 JSON escapes by itself; outside of strings it is ASCII.
    if not text.isascii() or "\x7f" in text:
        text = "".join(
            character if character == "\n" or _harmless(character) else _json_escape(character)
            for character in text
        )
    say(text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The ``--format`` option that every listing verb has."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="A table for people, or JSON for programs.",
    )(function)


def human_size(size: int) -> str:
    """Bytes as docker prints them: powers of 1000, three figures."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:  # from there on, three figures would round it to 1e+03
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}EB"
