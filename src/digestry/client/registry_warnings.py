"""``Warning`` headers: what a registry tells the users of its clients (distribution-spec 1.1, "Warnings")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from digestry.model.text import printable

MOST: Final = 5
"""The different warnings of one registry that a command reports: each response may have another."""

_LONGEST: Final = 4096
"""The bytes of all warnings of one response, by the specification."""
_SHOWN: Final = 400
_WARNING: Final = re.compile(r'\s*(\d{3}) +(\S+) +"((?:[^"\\]|\\.)*+)"([^,]*)(?:,|$)')
_ESCAPED: Final = re.compile(r"\\(.)")


def read_warnings(values: Iterable[str]) -> Iterator[str]:
    """Yield the texts of ``values``, each a ``Warning`` header, escaped for a terminal.

    The specification allows code 299, the agent ``-`` and no date; other ones are about caches (RFC 7234,
    section 5.5), and are passed over, as is what cannot be read.
    """
    left = _LONGEST
    for value in values:
        position = 0
        left -= len(value)
        if left < 0:
            return
        while (match := _WARNING.match(value, position)) is not None and match.end() > position:
            position = match.end()
            code, agent, text, rest = match.groups()
            if code == "299" and agent == "-" and not rest.strip():
                text = _ESCAPED.sub(r"\1", text)
                yield printable(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
