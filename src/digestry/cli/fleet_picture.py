"""A picture of a number over time, in characters of a terminal."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Final

_ROWS: Final = 6
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"

Point = tuple[datetime.datetime, int]
"""From when on there were how many."""


def picture(
    points: Sequence[Point], width: int, *, begin: datetime.datetime | None = None, end: datetime.datetime
) -> Iterator[str]:
    """Yield the lines of a picture of ``points``, the oldest first, from ``begin`` to ``end``.

    There are none without points.

    A column has the highest number of its time, so that a short rise is seen.
    """
    points = list(_between(points, begin, end))
    if not points:
        return
    begin = points[0][0]
    end = max(end, begin + datetime.timedelta(seconds=1))
    columns = _columns(points, begin, end, width)
    highest = max(columns)
    label = len(str(highest))
    if not highest:
        yield f"{0:>{label}} ┤{' ' * width}"
    for row in range(_ROWS if highest else 0, 0, -1):
        number = f"{highest if row == _ROWS else '':>{label}}"
        yield f"{number} ┤{''.join(_block(count, highest, row) for count in columns)}".rstrip()
    yield f"{0:>{label}} └{'─' * width}"
    left, right = _label(begin), _label(end)
    yield f"{' ' * label}  {left}{right:>{max(width - len(left), len(right) + 1)}}"


def _between(
    points: Sequence[Point], begin: datetime.datetime | None, end: datetime.datetime
) -> Iterator[Point]:
    """Yield the points of a time, the first with the number at its beginning."""
    before = 0
    started = begin is None
    for at, count in points:
        if begin is not None and at <= begin:
            before = count
            continue
        if at > end:
            break
        if not started and begin is not None:
            yield begin, before
            started = True
        yield at, count
    if not started and begin is not None and points:
        yield begin, before


def _columns(
    points: Sequence[Point], begin: datetime.datetime, end: datetime.datetime, width: int
) -> list[int]:
    step = (end - begin) / width
    columns = []
    position = 0
    count = points[0][1]
    for column in range(width):
        until = begin + step * (column + 1)
        most = count
        while position < len(points) and (points[position][0] < until or column == width - 1):
            count = points[position][1]
            most = max(most, count)
            position += 1
        # The last column shows how it is now.
        columns.append(count if column == width - 1 else most)
    return columns


def _block(count: int, highest: int, row: int) -> str:
    eighths = round(count / highest * _ROWS * 8)
    filled = min(max(eighths - (row - 1) * 8, 0), 8)
    if count and row == 1:
        filled = max(filled, 1)
    return _BLOCKS[filled]


def _label(at: datetime.datetime) -> str:
    return at.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%MZ")
