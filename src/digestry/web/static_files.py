"""The style sheet, the script and the icon, at addresses that change with their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

PATH: Final = "/static/"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file, and the address at which this content of it is for ever."""

    address: str
    content: bytes
    media_type: str


def read_all() -> Mapping[str, StaticFile]:
    """Return all static files by their names."""
    found = {}
    for entry in resources.files("digestry.web").joinpath("static").iterdir():
        stem, dot, kind = entry.name.rpartition(".")
        if dot + kind in _TYPES:
            content = entry.read_bytes()
            mark = hashlib.sha256(content).hexdigest()[:16]
            found[entry.name] = StaticFile(f"{PATH}{stem}.{mark}.{kind}", content, _TYPES[dot + kind])
    return found
