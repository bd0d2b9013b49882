"""The last answers of one worker process about ages, for a second each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from digestry.catalog import clock
from digestry.catalog.age_policy import AgePolicy
from digestry.catalog.tag_ages import DigestState, TagState

_FRESH: Final = 1.0
"""So many seconds an answer is used again, if the tag has not moved meanwhile. So a move there and back, an
override and an age that is reached show after a second, on every node."""
_LASTING: Final = 60.0
"""So many seconds the answer is used again that a digest may be served, if that cannot change."""
_MOST: Final = 20_000

T = TypeVar("T")
Told = tuple[str, list[tuple[bytes, bytes]]]
"""An answer as a sentence, and as headers."""


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    value: T
    key: str
    ends: float


class AgeCache:
    """The last answers of one worker process about ages."""

    def __init__(self) -> None:
        self._tags: dict[tuple[str, str], _Kept[TagState]] = {}
        self.observed: set[tuple[str, str]] = set()
        """Tags of mirrors that are known to be observed."""
        self._told: dict[tuple[str, str], tuple[TagState, Told]] = {}
        self._noted: dict[tuple[str, ...], float] = {}
        self._gates: dict[str, bool] = {}
        self._digests: dict[tuple[str, str], _Kept[DigestState]] = {}

    def gates(self, policy: AgePolicy, name: str) -> bool:
        """Return whether any tag of a repository may have a minimum age, by the rules in force."""
        found = self._gates.get(name)
        if found is None:
            if len(self._gates) >= _MOST:
                self._gates.clear()
            found = self._gates[name] = policy.gates(name)
        return found

    def tag(self, name: str, tag: str, current: str) -> TagState | None:
        kept = self._tags.get((name, tag))
        if kept is None or kept.key != current or time.monotonic() >= kept.ends:
            return None
        return kept.value

    def keep_tag(self, name: str, tag: str, current: str, state: TagState, now: int) -> None:
        """Keep the answer of the time ``now``, until another one was promised at the latest."""
        if len(self._tags) >= _MOST:
            self._tags.clear()
        ready = state.aged.ready_at
        seconds = _FRESH if ready is None else min(_FRESH, max(0.0, (ready - now) / clock.SECOND))
        self._tags[name, tag] = _Kept(state, current, time.monotonic() + seconds)

    def told(self, name: str, tag: str, state: TagState, tell: Callable[[], Told]) -> Told:
        """Return what ``tell`` makes of an answer about a tag, made once for each answer."""
        kept = self._told.get((name, tag))
        if kept is None or kept[0] is not state:
            if len(self._told) >= _MOST:
                self._told.clear()
            kept = self._told[name, tag] = state, tell()
        return kept[1]

    def is_news(self, *what: str) -> bool:
        """Return whether the audit log has no line about that of the last minute."""
        now = time.monotonic()
        if now < self._noted.get(what, 0.0):
            return False
        if len(self._noted) >= _MOST:
            self._noted.clear()
        self._noted[what] = now + _LASTING
        return True

    def digest(self, name: str, digest: str) -> DigestState | None:
        kept = self._digests.get((name, digest))
        return None if kept is None or time.monotonic() >= kept.ends else kept.value

    def keep_digest(self, name: str, digest: str, state: DigestState) -> None:
        if len(self._digests) >= _MOST:
            self._digests.clear()
        seconds = _LASTING if state.allowed and state.lasting else _FRESH
        self._digests[name, digest] = _Kept(state, "", time.monotonic() + seconds)
