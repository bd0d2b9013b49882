"""Escape untrusted text for terminals, logs and build servers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

# Few texts have them: they are compiled at the first.
_LOGGED: Final = r"(?i:##(?=vso\[|\[))"
_COMMAND: Final = r"::(?=[A-Za-z][^:]*::)"
_UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def printable(text: str) -> str:
    """Return ``text`` with every control and formatting character escaped; itself if it has none.

    A backslash is inserted into commands of Azure Pipelines (``##vso[``, ``##[``) and GitHub Actions
    (``::command::``).
    """
    if "##" in text or "::" in text:
        text = re.sub(_COMMAND, r"\\\g<0>", re.sub(_LOGGED, r"#\\#", text))
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if harmless(character) else character.encode("unicode_escape").decode()
        for character in text
    )


def harmless(character: str) -> bool:
    """Return whether one character is shown as itself and changes nothing around it."""
    return character.isprintable() and unicodedata.category(character) != "Cf"


def printable_json(text: str) -> str:
    """Return JSON text with unsafe characters escaped; its values stay the same."""
    if "##" in text:
        text = re.sub(_LOGGED, r"\\u0023#", text)
    # JSON escapes characters below U+0020; outside of strings it is ASCII.
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        character if character == "\n" or harmless(character) else _json_escape(character)
        for character in text
    )


def columns(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes: East Asian characters take two, accents none."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(character) in {"Mn", "Me"}
        else 2
        if unicodedata.east_asian_width(character) in {"W", "F"}
        else 1
        for character in text
    )


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``. Did you mean …?`` with the nearest of the known words, to end a sentence; empty for none."""
    import difflib  # noqa: PLC0415 - of use to few calls

    close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.6)
    return f". Did you mean {' or '.join(close)}?" if close else ""


def length_of_time(seconds: float) -> str:
    """Return a duration as a whole number of the largest possible unit, such as ``36 hours``."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds and seconds % size == 0), _UNITS[-1])
    return f"{seconds / size:.10g} {unit}{'' if seconds == size else 's'}"


def number_of(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 field`` or ``3 fields``; ``plural`` is for a noun that does not only take an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def with_article(noun: str) -> str:
    """Return ``a Deployment`` or ``an Application``, by the noun's first letter."""
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"


def few(names: Iterable[str], *, most: int = 5) -> str:
    """Return the first ``most`` different names in one line, and how many more there are."""
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
