"""What the verbs print: tables for people, JSON for programs, and nothing hostile raw.

The tables are plain columns as docker's are. They are written here, without rich, because rich
takes half of what ``digestry images`` may take to start (docs/adr/0003-plain-tables.md).
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

_GAP: Final = "   "


def printable(text: str) -> str:
    """``text`` with every control and formatting character escaped: names come from strangers,
    and a terminal obeys escape sequences."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() and unicodedata.category(character) != "Cf"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def say(text: str = "") -> None:
    """Prints a line for the caller on standard output."""
    click.echo(text)


def note(text: str) -> None:
    """Prints a line beside the result (progress, remarks) on standard error."""
    click.echo(text, err=True)


def complain(message: str, hint: str = "") -> None:
    """Prints an error, and what to do about it, on standard error."""
    click.echo(f"digestry: {printable(message)}", err=True)
    if hint:
        click.echo(f"  hint: {printable(hint)}", err=True)


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    styles: Sequence[Callable[[str], str] | None] = (),
) -> None:
    """Prints left-aligned columns, as wide as they need to be; ``styles`` colours a column's cells.

    Cells are made printable. Colours go to a terminal only.
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
    colours = sys.stdout.isatty()
    for row in cells:
        say(line(row, paint=colours))


def json_document(value: Any) -> None:
    """Prints ``value`` as indented JSON, with its digests and references as text."""
    import msgspec

    encoded = msgspec.json.encode(value, enc_hook=str)
    say(msgspec.json.format(encoded, indent=2).decode())


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
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.3g}{unit}"
        value /= 1000
    raise AssertionError
