"""The axis of time below a picture, whose width is stretched to that of the page."""

from __future__ import annotations

from typing import Final

WIDTH: Final = 1000.0
"""The width that all positions in a picture are of."""
_LABELS: Final = 5


def position(at: int, since: int, until: int) -> float:
    """Return where a time is between the left end ``since`` and the right one ``until``."""
    return (at - since) / max(1, until - since) * WIDTH


def labels(since: int, until: int) -> tuple[int, ...]:
    """Return times at equal distances, the first at the left end and the last at the right one."""
    return tuple(since + (until - since) * n // (_LABELS - 1) for n in range(_LABELS))
