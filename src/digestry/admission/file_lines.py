"""The lines of the keys of a TOML or YAML file, for messages about them."""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""The keys, and the positions in lists, from the top of a document to a value."""
Lines: TypeAlias = dict[Path, int]

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY: Final = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")


def toml_lines(text: str) -> Lines:
    """Return the lines of the tables and keys of TOML that can be parsed. Keys in inline tables have none."""
    lines: Lines = {}
    counts: dict[Path, int] = {}
    current: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            names = [part.strip().strip("\"'") for part in header[2].split(".")]
            path: Path = ()
            for position, name in enumerate(names):
                path = (*path, name)
                last = position == len(names) - 1
                if last and header[1] == "[[":
                    counts[path] = counts.get(path, -1) + 1
                if path in counts:
                    path = (*path, counts[path])
            current = path
            lines.setdefault(path, number)
            continue
        key = _KEY.match(line)
        if key is not None:
            names = [part.strip().strip("\"'") for part in key[1].split(".")]
            lines.setdefault((*current, *names), number)
    return lines


def yaml_lines(node: Any) -> Lines:
    """Return the lines of everything in a composed YAML document. Any: the library's nodes have no types."""
    lines: Lines = {}
    _collect(node, (), lines, set())
    return lines


def _collect(node: Any, path: Path, lines: Lines, seen: set[int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:
        return  # an alias
    seen.add(id(node))
    if node.id == "mapping":
        for key, value in node.value:
            name = str(key.value)
            lines.setdefault((*path, name), key.start_mark.line + 1)
            _collect(value, (*path, name), lines, seen)
    elif node.id == "sequence":
        for position, item in enumerate(node.value):
            _collect(item, (*path, position), lines, seen)


def line_of(lines: Lines, path: Path) -> int:
    """Return the line of ``path``, or of what it is in; 0 if none is known."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return lines.get((), 0)
