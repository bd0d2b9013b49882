"""The layout of the table: columns that are shortened until a row fits into the width, and coloured lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from digestry.audit.reports.grouping import By
from digestry.audit.reports.words import ELLIPSIS, NOT_FROM_TAG, UNTAGGED_WORD, WORDS
from digestry.model.text import columns, printable

WIDTH: Final = 100
"""Columns that a line takes where there is no terminal to fit into."""
HEADINGS: Final = ("STATE", "CONTAINER", "HOST", "REFERENCE", "RUNS", "TAG")
CONTAINER, HOST, REFERENCE, RUNS, TAG = range(1, 6)
"""Positions in a row."""

Style: TypeAlias = Literal["", "bad", "alarm", "doubt", "good", "title"]
Text: TypeAlias = tuple[tuple[str, Style], ...]
"""One line, in parts that may each have a colour."""
Row: TypeAlias = list[str]

_GAP: Final = "   "
_COMFORTABLE: Final = 22
_NARROWEST: Final = 4
_TIME_OF_DAY: Final = re.compile(r"(?<=\d{4}-\d\d-\d\d)T[0-9:.]+Z")
_SHORT: Final = re.compile(r"[0-9a-f]{12}")
STYLES: Final[dict[str, Style]] = {
    WORDS["affected"]: "bad",
    WORDS["unknown"]: "doubt",
    WORDS["fixed"]: "good",
    WORDS["not_affected"]: "good",
    UNTAGGED_WORD: "alarm",
    NOT_FROM_TAG: "alarm",
}
"""The colours of the words for states."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How the table is to options. ``width`` is in columns; ``by`` groups, which None does only where
    there are many containers; ``every`` gives each container a row of its own; ``whole`` shortens
    nothing."""

    width: int = WIDTH
    by: By | None = None
    every: bool = False
    whole: bool = False


def plain(line: Text) -> str:
    """Return a line without its colours."""
    return "".join(text for text, _ in line)


def uncoloured(text: str) -> Text:
    """Return ``text``, made printable, as a line without colours."""
    return ((printable(text), ""),)


def lay_out(parts: Sequence[Row | str], options: TableOptions, *, hide_host: bool) -> Iterator[Text]:
    """Yield the headings and the rows, to fit into the width; a string is a line between rows."""
    rows = [part for part in parts if not isinstance(part, str)]
    shown = list(range(len(HEADINGS)))
    if not options.whole and not hide_host and len({row[HOST] for row in rows}) == 1:
        shown.remove(HOST)
    widths = _widths(rows, shown, options)
    heads = [_shortened(HEADINGS[at], widths[at]) for at in shown]
    yield _line(heads, [widths[at] for at in shown], paint=False)
    for part in parts:
        if isinstance(part, str):
            yield ((_shortened(printable(part), options.width), "title"),) if part else ()
        else:
            cells = [_shortened(part[at], widths[at], end=at == REFERENCE) for at in shown]
            yield _line(cells, [widths[at] for at in shown], paint=True)


def _widths(rows: Sequence[Row], shown: Sequence[int], options: TableOptions) -> dict[int, int]:
    """Return the width of each column, after cutting the cells of ``rows``, the least important first, until
    a line fits."""
    widths = {at: _needed(rows, at) for at in shown}

    def fits() -> bool:
        return options.whole or sum(widths.values()) + len(_GAP) * (len(widths) - 1) <= options.width

    def cut(at: int, shorten: Callable[[str], str]) -> None:
        for row in rows:
            row[at] = shorten(row[at])
        widths[at] = _needed(rows, at)

    def squeeze(least: int, *columns: int) -> None:
        giving = [at for at in columns if at in widths]
        while not fits():
            widest = max(giving, key=lambda at: widths[at])
            if widths[widest] <= least:
                return
            widths[widest] -= 1

    hosts = _without_hosts(rows)
    steps: tuple[Callable[[], None], ...] = (
        lambda: cut(REFERENCE, lambda name: hosts.get(name, name)),
        lambda: cut(RUNS, lambda digest: digest[:7] if _SHORT.fullmatch(digest) else digest),
        lambda: cut(TAG, lambda tag: tag.partition(" to ")[0]),
        lambda: squeeze(_COMFORTABLE, CONTAINER, HOST, REFERENCE),
        # A time is shortened to its day. The findings below have it in full.
        lambda: cut(TAG, lambda tag: _TIME_OF_DAY.sub("", tag)),
        lambda: cut(TAG, lambda tag: tag.partition(" ")[0] if tag.startswith("moved") else tag),
        lambda: squeeze(_NARROWEST, CONTAINER, HOST, REFERENCE, TAG),
    )
    for step in steps:
        if fits():
            break
        step()
    return widths


def _needed(rows: Sequence[Row], at: int) -> int:
    return max([len(HEADINGS[at]), *(columns(row[at]) for row in rows)])


def _without_hosts(rows: Sequence[Row]) -> dict[str, str]:
    """Return each name without its registry's host; empty if two names would options the same."""
    short: dict[str, str] = {}
    for row in rows:
        name = row[REFERENCE]
        host, slash, rest = name.partition("/")
        looks_like_host = slash and ("." in host or ":" in host or host == "localhost")
        short[name] = rest if looks_like_host else name
    return short if len(set(short.values())) == len(short) else {}


def _line(cells: Sequence[str], widths: Sequence[int], *, paint: bool) -> Text:
    parts: list[tuple[str, Style]] = []
    last = len(cells) - 1
    for position, cell in enumerate(cells):
        style = STYLES.get(cell, "") if paint else "title"
        parts.append((cell, style if cell else ""))
        if position < last:
            parts.append((" " * (widths[position] - columns(cell)) + _GAP, ""))
    return tuple(parts)


def _shortened(text: str, width: int, *, end: bool = False) -> str:
    """Return ``text`` in ``width`` columns: a reference keeps its end, with the tag; others their start."""
    if columns(text) <= width:
        return text
    kept = text
    while kept and columns(kept) > width - 1:
        kept = kept[1:] if end else kept[:-1]
    return ELLIPSIS + kept if end else kept + ELLIPSIS
