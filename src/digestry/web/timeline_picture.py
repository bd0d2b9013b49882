"""The picture of a tag's history: bands for what it pointed to, and marks for its moves.

Its width is stretched to that of the page, so that it has no text: a page puts the times below it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from digestry.catalog.tag_timeline import MOST_MARKS, TagMark, TagPeriod
from digestry.web import time_axis
from digestry.web.time_axis import WIDTH

_TALLEST: Final = 100.0
_SHORTEST: Final = 8.0
_NARROWEST: Final = 4.0
"""Of a band that matters however short it was."""

Look = Literal["now", "runs", "past", "other"]
"""How a band looks: what the tag points to now; what it pointed to before and still runs; and two looks for
other digests, by turns, so that a move between them is seen."""


@dataclass(frozen=True, slots=True)
class Band:
    """A time in which a tag pointed to one digest; ``since`` and ``until`` are microseconds since 1970."""

    x: float
    width: float
    look: Look
    digest: str
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Bar:
    """The number of moves in one part of the period; ``height`` is a share of 100."""

    x: float
    width: float
    height: float
    moves: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A tag's history. ``gaps`` is whether the tag was deleted in between, or is. ``ticks`` are the positions
    of its moves, or else ``bars`` count them, each those in ``part`` microseconds. ``labels`` are times at
    equal distances, the first at the left end and the last at the right one."""

    bands: tuple[Band, ...]
    gaps: bool
    ticks: tuple[float, ...]
    bars: tuple[Bar, ...]
    part: int
    labels: tuple[int, ...]


def draw(period: TagPeriod, *, current: str | None, running: Collection[str]) -> Picture:
    """Return the picture of a period. ``current`` is what the tag points to now, and ``running`` are digests
    that still run somewhere."""

    def position(at: int) -> float:
        return round(time_axis.position(at, period.since, period.until), 2)

    bands = []
    for since, until, digest, turn in _stretches(period):
        if digest is not None:
            look: Look = "other" if turn % 2 else "past"
            if digest == current:
                look = "now"
            elif digest in running:
                look = "runs"
            x = position(since)
            width = max(position(until) - x, _NARROWEST if look in {"now", "runs"} else 0.0)
            bands.append(Band(x, round(width, 2), look, digest, since, until))
    bands.sort(key=lambda band: band.look in {"now", "runs"})  # what is widened lies above its neighbours
    moves = [mark for mark in period.marks if mark.moves]
    return Picture(
        tuple(bands),
        any(mark.digest is None for mark in period.marks),
        tuple(position(mark.at) for mark in moves) if period.exact else (),
        () if period.exact else _bars(period, moves),
        period.part,
        time_axis.labels(period.since, max(period.until, period.since + 1)),
    )


def _stretches(period: TagPeriod) -> list[tuple[int, int, str | None, int]]:
    """Return the times of the same digest one after the other, and how often it changed before each."""
    found: list[tuple[int, int, str | None, int]] = []
    ends = [*period.marks, TagMark(period.until, None, 0)]
    for mark, after in pairwise(ends):
        if found and found[-1][2] == mark.digest and not period.exact:
            since, _, digest, turn = found[-1]
            found[-1] = (since, after.at, digest, turn)
        else:
            found.append((mark.at, after.at, mark.digest, len(found)))
    return found


def _bars(period: TagPeriod, moves: list[TagMark]) -> tuple[Bar, ...]:
    counted: dict[int, int] = defaultdict(int)
    for mark in moves:
        counted[(mark.at - period.since) // period.part] += mark.moves
    most = max(counted.values(), default=1)
    width = WIDTH / MOST_MARKS
    # Of the root: one move beside a thousand is still to be seen.
    return tuple(
        Bar(
            round(part * width, 2),
            round(width * 0.8, 2),
            round(max(_SHORTEST, _TALLEST * (number / most) ** 0.5), 1),
            number,
        )
        for part, number in sorted(counted.items())
    )
