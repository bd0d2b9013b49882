"""Runs of containers, and the changes that a follower of a source reports."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import select
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias

from digestry.inventory.observation import ImageFacts

LATE: Final = datetime.timedelta(seconds=1)
"""What a busy machine's engine did so lately may not be told yet, though nothing waits to be read."""


@dataclass(frozen=True, slots=True)
class Run:
    """A container since one of its starts.

    ``instance`` tells this start from the container's others: it is the same for every observer.
    """

    container: str
    instance: str
    started_at: datetime.datetime
    image: ImageFacts
    name: str = ""
    namespace: str = ""
    node: str = ""
    workload: str = ""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A container started."""

    run: Run


@dataclass(frozen=True, slots=True)
class RunStopped:
    """A container stopped at ``at``, or between ``after`` and ``at`` if nobody saw it.

    An empty ``instance`` is whichever start of it is known to run.
    """

    container: str
    at: datetime.datetime
    instance: str = ""
    after: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class AllRuns:
    """All that runs at ``at``: every other run that started before has ended."""

    at: datetime.datetime
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Unobserved:
    """A time of which the source cannot say what started and stopped."""

    since: datetime.datetime
    until: datetime.datetime
    reason: str


RunChange: TypeAlias = RunStarted | RunStopped | AllRuns | Unobserved


@dataclass(frozen=True, slots=True)
class Step:
    """Changes of a source, in their order.

    ``position`` is where :meth:`Follower.follow` goes on after them. ``idle``: everything until now was
    reported, and the follower waits. ``problem`` is why it does not see all; while there is one, what runs is
    not confirmed.
    """

    changes: tuple[RunChange, ...] = ()
    position: str = ""
    idle: bool = False
    problem: str = ""


class FollowingEnded(Exception):
    """The follower was told to end."""


class Follower(Protocol):
    """A source that reports what starts and stops."""

    @property
    def name(self) -> str:
        """The source as the command line names it."""
        ...

    def follow(self, position: str, wakeup: Wakeup) -> Iterator[Step]:
        """Yield the changes since ``position``, which is empty at the very first, and all that runs.

        Raises :class:`~digestry.errors.DigestryError` when the source cannot be followed any more, and
        :class:`FollowingEnded` when ``wakeup`` says so.
        """
        ...


class Wakeup:
    """Interrupts a follower that waits: to end it, or to have all that runs reported again. Thread-safe."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._ended = False
        self._requested = False
        self._left: datetime.datetime | None = None

    def end(self) -> None:
        """End the follower: its next wait raises :class:`FollowingEnded`."""
        with self._lock:
            self._ended = True
        self._wake()

    def request_all_runs(self) -> None:
        """Have all that runs reported again soon."""
        with self._lock:
            self._requested = True
        self._wake()

    def known_until(self) -> datetime.datetime:
        """Return the present if the follower waits now, else when it last ceased to."""
        return self._left or moment()

    def take_request(self) -> bool:
        """Return whether all runs were requested since the last call. Raises :class:`FollowingEnded`."""
        with self._lock:
            if self._ended:
                raise FollowingEnded
            requested, self._requested = self._requested, False
        return requested

    def wait(self, seconds: float | None, descriptor: int | None = None) -> bool:
        """Wait until ``descriptor`` can be read, a request came, or ``seconds`` passed.

        Returns whether the descriptor can be read. Raises :class:`FollowingEnded`.
        """
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
        self._left = None
        found = dict(poll.poll(None if seconds is None else max(0, math.ceil(seconds * 1000))))
        self._left = moment()
        if found.pop(self._reader, None) is not None:
            os.read(self._reader, 4096)
        with self._lock:
            if self._ended:
                self._wake()  # for the next wait, too
                raise FollowingEnded
        return bool(found)

    def close(self) -> None:
        """Close it, once no follower uses it."""
        os.close(self._reader)
        os.close(self._writer)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full, and wakes
            os.write(self._writer, b"x")


def moment() -> datetime.datetime:
    """Return the present, in UTC, to the microsecond."""
    return datetime.datetime.now(datetime.UTC)


def by_own_clock(change: RunChange, ahead: float) -> RunChange:
    """Return a change with the times of its containers by this machine's clock; those of ``change`` are by a
    clock that is ``ahead`` by so many seconds. When a list was made, is by this machine's clock already."""
    by = datetime.timedelta(seconds=-ahead)
    if isinstance(change, RunStarted):
        return RunStarted(_moved(change.run, by))
    if isinstance(change, RunStopped):
        after = None if change.after is None else change.after + by
        return replace(change, at=change.at + by, after=after)
    if isinstance(change, AllRuns):
        return replace(change, runs=tuple(_moved(run, by) for run in change.runs))
    return replace(change, since=change.since + by, until=change.until + by)


def _moved(run: Run, by: datetime.timedelta) -> Run:
    return replace(run, started_at=run.started_at + by)


def of_nanoseconds(count: int) -> datetime.datetime:
    """Return the time ``count`` nanoseconds after 1970; the nearest that can be written for absurd ones."""
    try:
        return _EPOCH + datetime.timedelta(microseconds=count // 1000)
    except OverflowError:
        return _EPOCH


def nanoseconds_of(time: datetime.datetime) -> int:
    """Return the nanoseconds from 1970 until a time."""
    return (time - _EPOCH) // datetime.timedelta(microseconds=1) * 1000


_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
