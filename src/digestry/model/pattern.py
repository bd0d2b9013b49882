"""Patterns of names: ``*``, ``**`` and ``?``, for repositories and tags."""

from __future__ import annotations

import functools
import re
from typing import Final

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown

_LONGEST: Final = 512
_ALLOWED: Final = re.compile(r"[A-Za-z0-9._/*?-]+", re.ASCII)
_PARTS: Final = re.compile(r"\*+|\?|[^*?]+")


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
    translated = {"*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(
            translated.get(part, ".*" if part.startswith("*") else re.escape(part))
            for part in _PARTS.findall(pattern)
        )
    )
