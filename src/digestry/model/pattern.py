"""Patterns of names: ``*``, ``**`` and ``?``, for repositories and tags."""

from __future__ import annotations

import functools
import re
from typing import Final

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown

_LONGEST: Final = 512
_ALLOWED: Final = re.compile(r"[A-Za-z0-9._/*?-]+", re.ASCII)
_ACROSS: Final = re.compile(r"\*\*+")


def check_pattern(pattern: str) -> str:
    """Returns ``pattern`` if a name could match it; raises :class:`InvalidConfiguration`."""
    if len(pattern) > _LONGEST or not _ALLOWED.fullmatch(pattern):
        raise InvalidConfiguration(
            f"pattern {shown(pattern)} matches no name",
            hint="a pattern has letters, digits, . _ - and /, and *, ** or ? where anything may be",
        )
    return pattern


def matches(pattern: str, name: str) -> bool:
    """Whether the whole of ``name`` is as ``pattern`` has it.

    ``*`` is any number of characters but ``/``, ``**`` any number of any, ``?`` one but ``/``.
    Case counts.
    """
    return _compiled(pattern).fullmatch(name) is not None


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *rest = _ACROSS.split(pattern)
    text = _group(first, ends=not rest)
    for number, group in enumerate(rest, 1):
        ends = number == len(rest)
        # As early as can be, and for good: a later place leaves less for what follows. So no pattern takes
        # longer than the square of a name's length, whoever chose the name.
        text += f".*?{_group(group, ends=ends)}" if ends else f"(?>.*?{_group(group, ends=ends)})"
    return re.compile(text)


def _group(pattern: str, *, ends: bool) -> str:
    """What has no ``**`` in it, as a regular expression; with ``ends`` it is the end of the name."""
    first, *rest = map(_exactly, pattern.split("*"))
    if not rest:
        return first
    *middle, last = rest
    early = "".join(f"(?>[^/]*?{part})" for part in middle)
    return f"{first}{early}[^/]*{last}" if ends else f"{first}{early}(?>[^/]*?{last})"


def _exactly(part: str) -> str:
    return re.escape(part).replace(r"\?", "[^/]")
