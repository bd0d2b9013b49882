"""The hash chains of a journal: a walk over the entries that proves them, and its verdict.

Each repository has a chain of its own, numbered from 1. A registry that is older than schema 0009 has one
chain of all repositories before these: its last hash is what the first entry of each of them follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from digestry.catalog.journal_hashes import (
    GENESIS,
    HASHED,
    HASHED_BEFORE,
    hash_of,
    hashed_fields,
    registry_hash,
)

_AT: Final = HASHED.index("at")
_AT_BEFORE: Final = HASHED_BEFORE.index("at")
_REPOSITORY_BEFORE: Final = HASHED_BEFORE.index("repository")
_MOST_HEADS: Final = 100_000
"""Some 30 MB."""

_CUT_IN: Final = "it does not follow the entry before it"
_CHANGED: Final = "its fields do not match its hash"
_TOO_EARLY: Final = "its time is not after that of the entry before it"


@dataclass(frozen=True, slots=True)
class BrokenEntry:
    """The first entry that does not hold, by its position in the registry, and why."""

    sequence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a chain: how many entries are valid, up to the one ``broken``, and the hash over all of
    them.

    ``first`` is the position of the first entry, ``anchor`` the hash before it. ``absent`` are the expected
    hashes that are missing. For a part of a journal that begins after the registry's chain, ``last_hash`` and
    ``anchor`` are not known, and empty.
    """

    entries: int
    last_hash: str
    broken: BrokenEntry | None = None
    absent: tuple[str, ...] = ()
    first: int = 1
    anchor: str = GENESIS


class Head(NamedTuple):
    """The end of a repository's chain: the entry's number (0 or less before schema 0009), hash and time."""

    number: int
    hash: str
    at: int


FindHead = Callable[[str, int], Head | None]
"""Return the entry of a repository before the one with this number, if the walk has passed it."""


@dataclass(slots=True)
class ChainWalk:
    """The chains so far. Fed entry by entry, in the registry's order, it knows what the next one must be.

    ``position`` is the next entry's. ``registry_hash`` is the hash over all before it, ``before`` the hash
    before the ``first`` one, and ``anchor`` the hash that the first entry of a repository follows; each is
    empty where a part of a journal does not contain it. With ``find_head``, the walk forgets the ends of
    chains when there are too many, and looks one up again when it needs it.
    """

    wanted: set[str] = field(default_factory=set)
    find_head: FindHead | None = None
    position: int = 1
    first: int = 1
    entries: int = 0
    registry_hash: str = GENESIS
    before: str = GENESIS
    anchor: str = GENESIS
    _heads: dict[str, Head] = field(default_factory=dict)
    _forgot: bool = False
    _numbered: bool = False
    _last_at: int = 0

    def begin_part(self, sequence: int, before: str) -> None:
        """Begin at an entry that is not the first one. ``before`` is the hash before it, empty after the
        registry's chain."""
        self.position = self.first = sequence
        self.registry_hash = self.anchor = self.before = before
        self.wanted.discard(before)

    def verdict(self, broken: BrokenEntry | None) -> Verdict:
        """Return the verdict, with the first entry that is ``broken``."""
        absent = tuple(sorted(self.wanted))
        return Verdict(self.entries, self.registry_hash, broken, absent, self.first, self.before)

    def step_before(self, fields: tuple[Any, ...], stated: Any) -> str:
        """Return why this entry of the registry's chain does not fit; empty if it does. ``fields`` are those
        of ``HASHED_BEFORE``."""
        if fields[0] != self.position:
            return f"entry {self.position} is missing: {fields[0]} comes next"
        if self._numbered or fields[-1] != self.anchor:
            return _CUT_IN
        if stated != hash_of(fields):
            return _CHANGED
        at = fields[_AT_BEFORE]
        if not isinstance(at, int) or at <= self._last_at:
            return _TOO_EARLY
        self._last_at = at
        self.anchor = self.registry_hash = stated
        self._pass(fields[_REPOSITORY_BEFORE], Head(0, stated, at))
        self.position += 1
        return ""

    def step(self, sequence: Any, fields: tuple[Any, ...], further: tuple[Any, ...], stated: Any) -> str:
        """Return why this entry of a repository's chain does not fit; empty if it does. ``fields`` are those
        of ``HASHED``, ``further`` those of ``HASHED_IF_GIVEN``."""
        if sequence != self.position:
            return f"entry {self.position} is missing: {sequence} comes next"
        reason = self.step_unsequenced(fields, further, stated)
        if reason:
            return reason
        if self.registry_hash:
            self.registry_hash = registry_hash(self.registry_hash, stated)
            self.wanted.discard(self.registry_hash)
        self.position += 1
        return ""

    def step_unsequenced(self, fields: tuple[Any, ...], further: tuple[Any, ...], stated: Any) -> str:
        """Return, as :meth:`step`, why an entry does not fit that has no position yet."""
        self._numbered = True
        repository, number = fields[0], fields[1]
        if not isinstance(repository, str) or not isinstance(number, int):
            return _CHANGED
        last = self._heads.get(repository)
        if last is None:
            last = self._head_before(repository, number, fields[-1])
        if number != last.number + 1:
            return f"entry {last.number + 1} of {repository} is missing: {number} comes next"
        if number == 1 and not self.anchor:
            self.anchor = fields[-1]
        if fields[-1] != (self.anchor if number == 1 else last.hash):
            return _CUT_IN
        if stated != hash_of(hashed_fields(fields, further)):
            return _CHANGED
        at = fields[_AT]
        if not isinstance(at, int) or at <= last.at:
            return _TOO_EARLY
        self._pass(repository, Head(number, stated, at))
        return ""

    def _head_before(self, repository: str, number: int, previous: str) -> Head:
        """Return the end of a chain that is not in memory; in a part of a journal, the one that the entry
        states."""
        found = None
        if self._forgot and self.find_head is not None:
            found = self.find_head(repository, number)
        elif self.first > 1:
            found = Head(number - 1, previous, 0)
        return Head(0, "", 0) if found is None else found

    def _pass(self, repository: str, head: Head) -> None:
        if self.find_head is not None and len(self._heads) >= _MOST_HEADS and repository not in self._heads:
            self._heads.clear()
            self._forgot = True
        self._heads[repository] = head
        self.entries += 1
        self.wanted.discard(head.hash)
