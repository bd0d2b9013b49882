"""The layout of a table in a terminal: columns side by side, and below each other where they do not fit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

_GAP: Final = "   "
_NARROW_GAP: Final = "  "
"""Between columns that else would not fit into the terminal."""
_NO_COLUMN: Final = frozenset({"Mn", "Me"})
_TWO_COLUMNS: Final = frozenset({"W", "F"})
_SHARES: Final = (0.9, 0.75, 0.5)
"""Shares of a column's cells that fit into it, where it is made narrower than its widest cell."""


def width_of(text: str) -> int:
    """Return the columns that a text takes in a terminal: characters of East Asia and emoji take two."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(one) in _NO_COLUMN else 2 if east_asian_width(one) in _TWO_COLUMNS else 1
        for one in text
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))


def lines_of(headings: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> Iterator[str]:
    """Yield the lines of a table, its headings first, for a terminal of ``room`` columns.

    A row that does not fit continues on indented lines. No cell is cut; a text that is longer than a line is
    wrapped between its words.
    """
    cells = [headings, *rows]
    measure = len if "".join(chain.from_iterable(cells)).isascii() else width_of
    widths = [max(measure(row[column]) for row in cells) for column in range(len(headings))]
    wide = sum(widths) + len(_GAP) * (len(widths) - 1) <= room
    if wide:
        if measure is len:
            pattern = _GAP.join(f"{{:<{width}}}" for width in widths)
            for row in cells:
                yield pattern.format(*row).rstrip()
            return
        for row in cells:
            yield _GAP.join(map(_padded, row, widths)).rstrip()
        return
    layout = min(_layouts(headings, rows, widths, room), key=lambda one: one.height(rows))
    for row in cells:
        yield from layout.lines(row)


def _layouts(
    headings: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], room: int
) -> Iterator[_Layout]:
    """Yield layouts, the most regular first: with columns as wide as all their cells, or as most of them."""
    current = list(widths)
    yield _Layout(_groups(current, room), tuple(current), _NARROW_GAP, room)
    sizes = [sorted(width_of(row[column]) for row in rows) for column in range(len(headings))]
    for share in _SHARES:
        for column in sorted(range(len(widths)), key=lambda one: -current[one]):
            if not rows:
                return
            narrower = max(width_of(headings[column]), sizes[column][max(0, round(share * len(rows)) - 1)])
            if narrower < current[column]:
                current[column] = narrower
                yield _Layout(_groups(current, room), tuple(current), _NARROW_GAP, room)


def _groups(widths: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
    """Return the columns that share a line, line by line."""
    groups: list[list[int]] = [[]]
    taken = 0
    for column, width in enumerate(widths):
        if groups[-1] and taken + len(_NARROW_GAP) + width > room:
            groups.append([])
            taken = len(_GAP)  # the indent
        taken += width + (len(_NARROW_GAP) if groups[-1] else 0)
        groups[-1].append(column)
    return tuple(map(tuple, groups))


class _Layout(NamedTuple):
    """The columns that share a line, line by line, and how wide each is."""

    groups: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]
    gap: str
    room: int

    def height(self, rows: Sequence[Sequence[str]]) -> int:
        """Return the number of lines that the rows take."""
        return sum(1 for row in rows for _ in self.lines(row))

    def lines(self, row: Sequence[str]) -> Iterator[str]:
        """Yield the lines of a row. A cell that is wider than its column has the rest of its line."""
        for number, group in enumerate(self.groups):
            indent = _GAP if number else ""
            line, start = indent, len(indent)
            for column in group:
                cell = row[column]
                size = width_of(cell)
                if width_of(line) > start or (line.strip() and start + size > self.room):
                    yield from self._wrapped(line)
                    line = _GAP
                # Where it would not fit below its heading, it begins further to the left.
                fits = start + size <= self.room
                line = (_padded(line, start) if fits else line) + cell + self.gap
                start += self.widths[column] + len(self.gap)
            if line.strip() or not number:
                yield from self._wrapped(line)

    def _wrapped(self, line: str) -> list[str]:
        """Return a line, or those of a text that is alone on it and too long."""
        text = line.rstrip()
        if width_of(text) <= self.room:
            return [text]
        return textwrap.wrap(
            text.lstrip(),
            self.room,
            initial_indent=text[: len(text) - len(text.lstrip())],
            subsequent_indent=_GAP,
            break_on_hyphens=False,
            break_long_words=False,
        )
