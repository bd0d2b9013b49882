"""The age of the digests of a tag, and which of them a minimum age lets through (docs/min-age.md).

This is pure: it reads a tag's moves, what was observed of it elsewhere, and the present. Times are
microseconds since 1970, UTC; lengths of time are microseconds. A digest is text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Refusal = Literal["absent", "unobserved", "young", "clock"]
"""Why no digest is let through: ``absent``: the tag is not there; ``unobserved``: nobody saw where it points;
``young``: none stood for so long; ``clock``: none did, and the history has times that are still to come."""

CLOCK_SKEW: Final = 60_000_000
"""By so much the clocks of a registry's nodes may differ. A time that is further ahead of the present shows
that a clock was set."""


@dataclass(frozen=True, slots=True)
class TagMove:
    """A move of a tag, as the journal has it: to ``digest``, or None if the tag was deleted.

    ``not_before`` is what the clock said, if the journal had to date the entry later, after the one before.
    """

    at: int
    digest: str | None
    not_before: int | None = None


@dataclass(frozen=True, slots=True)
class ObservedSpan:
    """A span of observations of a tag of another registry: all of them, from ``first_at`` to ``last_at``,
    found ``digest``; None if they failed or found no such tag."""

    digest: str | None
    first_at: int
    last_at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A digest and the ``periods`` for which it is known that the tag pointed to it, oldest first; each is
    its first and its last moment."""

    digest: str
    periods: tuple[tuple[int, int], ...] = ()

    @property
    def age(self) -> int:
        """The sum of the periods."""
        return sum(last - first for first, last in self.periods)

    @property
    def since(self) -> int | None:
        """When it was first known to stand."""
        return self.periods[0][0] if self.periods else None

    @property
    def until(self) -> int | None:
        """When it was last known to stand."""
        return self.periods[-1][1] if self.periods else None


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What is known of a tag: the digests that it had with their periods, the newest first, and the
    ``current`` one; None if the tag is not there. With ``ahead``, some times are still to come. ``observed``:
    an age grows with observations, and not by itself."""

    current: str | None
    standings: tuple[Standing, ...]
    ahead: bool = False
    observed: bool = False

    def standing(self, digest: str) -> Standing:
        """Return for how long ``digest`` stood; without a period if that is not known."""
        return next((one for one in self.standings if one.digest == digest), Standing(digest))


@dataclass(frozen=True, slots=True)
class AgedTag:
    """The answer: which digest a tag resolves to under a minimum age, and why.

    ``chosen`` is None where there is a ``refusal``. ``newer`` are the digests that came after it, the newest
    first: all of them with a refusal. ``let_through`` is the reason why ``chosen`` is served although it has
    not stood for so long; empty if it has; ``advisory`` the digest of the advisory that says so, if one does.
    ``ready_at`` is when the current digest will have stood for long
    enough if nothing happens to it; None if the tag is absent, or if that has no use.
    """

    least: int
    chosen: Standing | None
    newer: tuple[Standing, ...] = ()
    refusal: Refusal | None = None
    let_through: str = ""
    advisory: str = ""
    ready_at: int | None = None


def from_moves(moves: Sequence[TagMove], now: int) -> TagRecord:
    """Return what a tag's own journal says, whose entries are given oldest first.

    A digest stood from its entry to the next one, or until now. A move whose time is still to come was made
    while the clock was ahead: from when on the tag had moved is not known, so that the digest before it did
    not stand for any known time. The same holds for a move that is dated after what the clock said at a later
    one. A digest that left at an entry with ``not_before`` stood until then at the most.
    """
    periods: dict[str, list[tuple[int, int]]] = {}
    order: dict[str, None] = {}
    ahead = False
    misdated = _misdated(moves)
    for number, move in enumerate(moves):
        following = moves[number + 1] if number + 1 < len(moves) else None
        if move.at > now + CLOCK_SKEW:
            ahead = True
        if move.digest is None:
            continue
        _arrive(order, move.digest)
        known = periods.setdefault(move.digest, [])
        last = now if following is None else following.at
        if last > now + CLOCK_SKEW or (following is not None and misdated[number + 1]):
            continue
        if following is not None and following.not_before is not None:
            last = min(last, following.not_before)
        if min(last, now) >= move.at:
            known.append((move.at, min(last, now)))
    current = moves[-1].digest if moves else None
    return TagRecord(current, _standings(order, periods), ahead)


def _misdated(moves: Sequence[TagMove]) -> list[bool]:
    """Return which moves have a time that was still to come when a later one was made."""
    found = [False] * len(moves)
    earliest: int | None = None
    for number in range(len(moves) - 1, -1, -1):
        move = moves[number]
        found[number] = earliest is not None and move.at > earliest + CLOCK_SKEW
        if move.not_before is not None:
            earliest = move.not_before if earliest is None else min(earliest, move.not_before)
    return found


def from_observations(
    current: str | None, moves: Iterable[TagMove], spans: Sequence[ObservedSpan], now: int
) -> TagRecord:
    """Return what was observed of a tag of another registry. ``current`` is where the tag points here, and
    ``moves`` are those of the journal, oldest first; they tell which digests there were, but not for how
    long. ``spans`` are in the order in which they were observed.

    Only the spans count, and of these what is not after the present. Periods of one digest that overlap,
    because a clock was set back, count once.
    """
    periods: dict[str, list[tuple[int, int]]] = {}
    order: dict[str, None] = {}
    ahead = False
    for move in moves:
        if move.digest is not None:
            _arrive(order, move.digest)
    for span in spans:
        if span.last_at > now + CLOCK_SKEW:
            ahead = True
        if span.digest is None:
            continue
        _arrive(order, span.digest)
        last = min(span.last_at, now)
        if last >= span.first_at:
            periods.setdefault(span.digest, []).append((span.first_at, last))
    if current is not None:
        _arrive(order, current)
    return TagRecord(current, _standings(order, periods), ahead, observed=True)


def decide(
    record: TagRecord,
    least: int,
    now: int,
    *,
    let_through: Callable[[Standing], str] = lambda _: "",
) -> AgedTag:
    """Return the newest digest that has stood for ``least``, or a refusal.

    ``let_through`` returns why a digest is served although it is too young, or an empty text.
    """
    if record.current is None:
        return AgedTag(least, None, record.standings, refusal="absent")
    ready = _ready_at(record, least, now)
    for number, standing in enumerate(record.standings):
        newer = record.standings[:number]
        if standing.age >= least:
            return AgedTag(least, standing, newer, ready_at=ready if newer else None)
        if reason := let_through(standing):
            return AgedTag(least, standing, newer, let_through=reason)
    if record.ahead:
        refusal: Refusal = "clock"
    elif record.observed and not any(standing.periods for standing in record.standings):
        refusal = "unobserved"
    else:
        refusal = "young"
    return AgedTag(least, None, record.standings, refusal=refusal, ready_at=ready)


def _ready_at(record: TagRecord, least: int, now: int) -> int | None:
    if record.current is None:
        return None
    standing = record.standing(record.current)
    missing = max(0, least - standing.age)
    if record.observed and standing.until is not None:
        # Its age has not grown since, and does with the next observation.
        return max(now, standing.until + missing)
    return now + missing


def _arrive(order: dict[str, None], digest: str) -> None:
    """Make ``digest`` the last one of ``order``: the newest."""
    order.pop(digest, None)
    order[digest] = None


def _standings(order: dict[str, None], periods: Mapping[str, list[tuple[int, int]]]) -> tuple[Standing, ...]:
    return tuple(Standing(digest, _union(periods.get(digest, ()))) for digest in reversed(order))


def _union(periods: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the moments of all ``periods`` as periods that do not overlap, oldest first."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(periods):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return tuple(found)
