"""The picture of the rooms and their imports: ``python -m tests.docs.picture >docs/architecture.svg``."""

from __future__ import annotations

import tomllib
from xml.sax.saxutils import escape

import grimp

from tests.docs.pages import HOUSE

_ROW, _BOX_WIDTH, _BOX_HEIGHT, _GAP, _MARGIN = 88, 130, 40, 32, 24
_GROUND = {"errors", "version", "fsio", "dns"}
"""Rooms of one module, which so many others import that their arrows would hide the rest."""
_COLUMNS = {
    "cli": 1.0,
    "registry": 0.0, "audit": 2.0, "upstream": 3.0,
    "images": 1.0, "inventory": 2.0, "advisories": 3.3,
    "backend": 0.0, "client": 2.0,
    "coordination": 0.0, "catalog": 1.0,
    "blobs": 0.5, "translog": 2.0,
    "model": 1.5,
}  # fmt: skip
"""Where each room stands in its row, so that no arrow runs behind a box."""


def layers() -> list[list[str]]:
    """Return the rows of rooms of the import contract, the top first."""
    contracts = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows: list[str] = contracts[0]["layers"]
    return [[part.strip().removeprefix("digestry.") for part in row.split("|")] for row in rows]


def imports(rooms: list[str]) -> dict[str, set[str]]:
    """Return for each room the rooms that it imports directly, as the code is."""
    graph = grimp.build_graph("digestry", cache_dir=None)
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for room in rooms:
        for module in {f"digestry.{room}", *graph.find_descendants(f"digestry.{room}")}:
            for imported in graph.find_modules_directly_imported_by(module):
                other = imported.split(".")[1] if "." in imported else ""
                if other in found and other != room:
                    found[room].add(other)
    return found


def arrows(direct: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports but for those that follow: ``a`` to ``c`` beside ``a`` to ``b`` to ``c``."""

    def reachable(room: str) -> set[str]:
        found: set[str] = set()
        waiting = list(direct[room])
        while waiting:
            other = waiting.pop()
            if other not in found:
                found.add(other)
                waiting += direct[other]
        return found

    below = {room: reachable(room) for room in direct}
    return [
        (room, other)
        for room, others in direct.items()
        for other in sorted(others)
        if not any(other in below[between] for between in others if between != other)
    ]


def picture() -> str:
    """Return all of docs/architecture.svg."""
    rows = layers()
    rooms = [room for row in rows for room in row]
    columns = {room: _COLUMNS.get(room, float(number)) for row in rows for number, room in enumerate(row)}
    shown = [[room for room in row if room not in _GROUND] for row in rows]
    shown = [row for row in shown if row]
    step = _BOX_WIDTH + _GAP
    width = round(max(columns[room] for row in shown for room in row) * step) + _BOX_WIDTH + 2 * _MARGIN
    height = len(shown) * _ROW + _BOX_HEIGHT + 2 * _MARGIN
    places = {
        room: (_MARGIN + round(columns[room] * step), _MARGIN + line * _ROW)
        for line, row in enumerate(shown)
        for room in row
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        '  aria-label="The rooms of digestry; an arrow leads from a room to one that it imports">',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"',
        '  orient="auto"><path d="M0 0 8 4 0 8z" fill="#4a5568"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<g stroke="#4a5568" stroke-width="1.3" marker-end="url(#end)">',
    ]
    direct = {room: others - _GROUND for room, others in imports(rooms).items() if room in places}
    drawn = arrows(direct)
    for room, other in drawn:
        begin = _end(places, room, [to for of, to in drawn if of == room], other)
        end = _end(places, other, [of for of, to in drawn if to == other], room)
        top, other_top = places[room][1] + _BOX_HEIGHT, places[other][1]
        parts.append(f'<line x1="{begin}" y1="{top}" x2="{end}" y2="{other_top}"/>')
    parts.append("</g>")
    parts.append('<g font-family="sans-serif" font-size="16" text-anchor="middle">')
    for room, (left, top) in places.items():
        parts.append(_box(left, top, _BOX_WIDTH, escape(room)))
    ground = [room for room in rooms if room in _GROUND]
    text = f"any room may import {', '.join(ground[:-1])} and {ground[-1]}"
    parts.append(_box(_MARGIN, height - _MARGIN - _BOX_HEIGHT, width - 2 * _MARGIN, escape(text)))
    parts.append("</g></svg>")
    return "\n".join(parts) + "\n"


def _end(places: dict[str, tuple[int, int]], room: str, others: list[str], other: str) -> int:
    """Return where the arrow between ``room`` and ``other`` ends at the box of ``room``: a place for each."""
    position = sorted(others, key=lambda each: places[each][0]).index(other)
    return places[room][0] + round(_BOX_WIDTH * (position + 1) / (len(others) + 1))


def _box(left: int, top: int, width: int, text: str) -> str:
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="{_BOX_HEIGHT}" rx="6" fill="#edf2f7"'
        f' stroke="#2d3748"/><text x="{left + width // 2}" y="{top + 26}" fill="#1a202c">{text}</text>'
    )


if __name__ == "__main__":
    print(picture(), end="")
