"""Pictures of how many containers ran over time: by state, and of one vulnerability until none is left.

Their width is stretched to that of the page, as that of a tag's timeline is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from digestry.catalog import clock
from digestry.catalog.fleet.state_history import StateCount
from digestry.model.fleet_answers import FleetTimeline
from digestry.model.text import number_of
from digestry.web import time_axis
from digestry.web.time_axis import WIDTH

TALLEST: Final = 100.0
_LOWEST: Final = 2.0
"""Of a share of the containers that is not zero."""
_NARROWEST: Final = 0.5
"""Of a block in a timeline: containers that ran for a minute of a year are seen, too."""

Group = Literal["affected", "unknown", "unassessed", "fine"]
GROUPS: Final[Mapping[Group, tuple[str, ...]]] = {
    "affected": ("affected",),
    "unknown": ("unknown", "unjudged"),
    "unassessed": ("not_assessed",),
    "fine": ("fixed", "not_affected"),
}
"""The audit's states, as a picture has them: from the bottom to the top."""
WORDS: Final[Mapping[Group, str]] = {
    "affected": "affected",
    "unknown": "not known",
    "unassessed": "not assessed",
    "fine": "fixed or not affected",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A number of containers in a time, from ``y`` on downwards; ``title`` says it."""

    x: float
    y: float
    width: float
    height: float
    look: str
    title: str


@dataclass(frozen=True, slots=True)
class FleetPicture:
    """The blocks, the most containers at a time, and times at equal distances."""

    blocks: tuple[Block, ...]
    most: int
    labels: tuple[int, ...]


def groups_of(containers: Mapping[str, int]) -> dict[Group, int]:
    """Return the containers of each group, those of none included."""
    return {group: sum(containers.get(state, 0) for state in states) for group, states in GROUPS.items()}


def draw_states(history: Sequence[StateCount], *, since: int) -> FleetPicture:
    """Return the picture of the containers of every state, one column for each step."""
    columns = [groups_of(count.containers) for count in history]
    most = max((sum(column.values()) for column in columns), default=0)
    width = WIDTH / max(1, len(columns))
    blocks = []
    for step, (count, column) in enumerate(zip(history, columns, strict=True)):
        top = TALLEST
        for group, number in column.items():
            if number:
                height = max(_LOWEST, number / most * TALLEST)
                top -= height
                title = f"{number_of(number, 'container')} {WORDS[group]}, {_minute(count.at)}"
                blocks.append(
                    Block(
                        round(step * width, 2), round(top, 2), round(width, 2), round(height, 2), group, title
                    )
                )
    until = history[-1].at if history else since
    return FleetPicture(tuple(blocks), most, time_axis.labels(since, until))


def draw_timeline(timeline: FleetTimeline, *, now: int) -> FleetPicture:
    """Return the picture of the containers of a vulnerability, from the first one on."""
    points = [(clock.from_datetime(point.at), point.containers) for point in timeline.points]
    if not points:
        return FleetPicture((), 0, ())
    since, until = points[0][0], max(now, points[-1][0] + 1)
    most = max(number for _, number in points)
    blocks = []
    for (at, number), (after, _) in pairwise([*points, (until, 0)]):
        if number:
            x, end = (time_axis.position(time, since, until) for time in (at, after))
            height = max(_LOWEST, number / most * TALLEST)
            title = f"{number_of(number, 'container')} from {_minute(at)} to {_minute(after)}"
            blocks.append(
                Block(
                    round(x, 2),
                    round(TALLEST - height, 2),
                    round(max(_NARROWEST, end - x), 2),
                    round(height, 2),
                    "affected",
                    title,
                )
            )
    return FleetPicture(tuple(blocks), most, time_axis.labels(since, until))


def _minute(at: int) -> str:
    return f"{clock.to_datetime(at):%Y-%m-%d %H:%M}"
