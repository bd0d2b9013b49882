"""A follower that a test runs in a thread, and what it told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from digestry.errors import DigestryError
from digestry.inventory.runs import (
    AllRuns,
    Follower,
    FollowingEnded,
    Run,
    RunChange,
    RunStarted,
    RunStopped,
    Unobserved,
    Wakeup,
)
from tests.agent.scripts import wait_for


@dataclass
class Told:
    """What a follower told, and the position after it."""

    changes: list[RunChange] = field(default_factory=list)
    position: str = ""
    idle: int = 0
    error: DigestryError | None = None
    wakeup: Wakeup = field(default_factory=Wakeup)

    def short(self) -> list[str]:
        return [_short(change) for change in list(self.changes)]

    def runs(self) -> list[Run]:
        return [change.run for change in list(self.changes) if isinstance(change, RunStarted)]

    def wait(self, *expected: str) -> None:
        """Wait until all of ``expected`` was told."""
        wait_for(lambda: set(expected) <= set(self.short()), f"{expected} after {self.short()}")


def _short(change: RunChange) -> str:
    if isinstance(change, RunStarted):
        return f"+{change.run.container}"
    if isinstance(change, RunStopped):
        return f"-{change.container}"
    if isinstance(change, AllRuns):
        return f"={','.join(sorted(run.container for run in change.runs))}"
    assert isinstance(change, Unobserved)
    return "gap"


@contextlib.contextmanager
def following(follower: Follower, position: str = "") -> Iterator[Told]:
    """The follower, until the block ends; it has told all that runs when the block begins."""
    told = Told(position=position)

    def go() -> None:
        try:
            for step in follower.follow(position, told.wakeup):
                told.changes += step.changes
                told.position = step.position
                told.idle += step.idle
        except FollowingEnded:
            pass
        except DigestryError as error:
            told.error = error

    thread = threading.Thread(target=go)
    thread.start()
    try:
        wait_for(lambda: told.idle or told.error, "the first look")
        yield told
    finally:
        told.wakeup.end()
        thread.join(30)
        assert not thread.is_alive()
        told.wakeup.close()
