"""The picture of the rooms and their imports: ``python -m tests.docs.picture >docs/architecture.svg``."""

from __future__ import annotations

import tomllib
from xml.sax.saxutils import escape

import grimp

from tests.docs.pages import HOUSE

_ROW, _BOX_WIDTH, _BOX_HEIGHT, _GAP, _MARGIN = 88, 150, 40, 40, 24


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
    width = max(len(row) for row in rows) * (_BOX_WIDTH + _GAP) + 2 * _MARGIN
    height = len(rows) * _ROW + 2 * _MARGIN
    places: dict[str, tuple[int, int]] = {}
    for line, row in enumerate(rows):
        taken = len(row) * (_BOX_WIDTH + _GAP) - _GAP
        for number, room in enumerate(row):
            left = (width - taken) // 2 + number * (_BOX_WIDTH + _GAP)
            places[room] = left, _MARGIN + line * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        '  aria-label="The rooms of digestry; an arrow leads from a room to one that it imports">',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"',
        '  orient="auto"><path d="M0 0 8 4 0 8z" fill="#4a5568"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<g stroke="#4a5568" stroke-width="1.3" marker-end="url(#end)">',
    ]
    for room, other in arrows(imports(list(places))):
        (left, top), (other_left, other_top) = places[room], places[other]
        parts.append(
            f'<line x1="{left + _BOX_WIDTH // 2}" y1="{top + _BOX_HEIGHT}"'
            f' x2="{other_left + _BOX_WIDTH // 2}" y2="{other_top}"/>'
        )
    parts.append("</g>")
    parts.append('<g font-family="sans-serif" font-size="16" text-anchor="middle">')
    for room, (left, top) in places.items():
        parts.append(
            f'<rect x="{left}" y="{top}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" fill="#edf2f7"'
            f' stroke="#2d3748"/><text x="{left + _BOX_WIDTH // 2}" y="{top + 26}" fill="#1a202c">'
            f"{escape(room)}</text>"
        )
    parts.append("</g></svg>")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(picture(), end="")
