"""Glob patterns for the names of repositories and tags: ``*``, ``**`` and ``?``."""

from __future__ import annotations

import functools
import re
from typing import Final

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown

_LONGEST: Final = 512
_ALLOWED: Final = re.compile(r"[A-Za-z0-9._/*?-]+", re.ASCII)
_TOKENS: Final = re.compile(r"\*\*(?:\**)|\*|[^*]")
_FIRST_WILD: Final = re.compile(r"[*?]")
_WILD: Final = frozenset("*?")


def check_pattern(pattern: str) -> str:
    """Return ``pattern`` if a name can match it. Raises :class:`InvalidConfiguration`."""
    if len(pattern) > _LONGEST or not _ALLOWED.fullmatch(pattern):
        raise InvalidConfiguration(
            f"pattern {shown(pattern)} matches no name",
            hint="a pattern has letters, digits, . _ - and /, and *, ** or ? where anything may be",
        )
    return pattern


def beginning(pattern: str) -> str:
    """Return the common prefix of all names that ``pattern`` matches."""
    return _FIRST_WILD.split(pattern, maxsplit=1)[0]


def matches(pattern: str, name: str) -> bool:
    """Return whether ``pattern`` matches all of ``name``.

    ``*`` is any number of characters but ``/``, ``**`` any number of any, ``?`` one but ``/``.
    Case counts.
    """
    return _compiled(pattern).matches(name)


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> _Pattern:
    return _Pattern(pattern)


class _Pattern:
    """A pattern as a state machine, which reads any name once.

    Bit ``i`` of its state is set if the first ``i`` tokens match all characters read so far.
    """

    __slots__ = ("_across", "_end", "_literals", "_one", "_skip", "_start", "_text", "_within")

    def __init__(self, pattern: str) -> None:
        tokens = [token[:2] for token in _TOKENS.findall(pattern)]
        self._text = None if _WILD.intersection(pattern) else pattern
        bits = dict.fromkeys(tokens, 0)
        for number, token in enumerate(tokens):
            bits[token] |= 1 << number
        self._across = bits.pop("**", 0)
        self._within = bits.pop("*", 0) | self._across  # each of which matches any text without a slash
        self._one = bits.pop("?", 0)
        self._literals = bits
        self._skip = self._within
        self._start = self._skipped(1)
        self._end = 1 << len(tokens)

    def matches(self, name: str) -> bool:
        if self._text is not None:
            return name == self._text
        state, literals, one, within, skip = self._start, self._literals, self._one, self._within, self._skip
        for character in name:
            if character == "/":
                taken, stay = state & literals.get("/", 0), state & self._across
            else:
                taken, stay = state & (literals.get(character, 0) | one), state & within
            state = taken << 1 | stay
            state |= (state & skip) << 1  # two of those that may be nothing never follow each other
            if not state:
                return False
        return bool(state & self._end)

    def _skipped(self, state: int) -> int:
        return state | (state & self._skip) << 1
