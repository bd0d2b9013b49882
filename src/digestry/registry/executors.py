"""The threads of one worker process, which wait for the disk so that the event loop never does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from digestry.catalog.database import Job, Outcome
from digestry.errors import StorageError, StorageFull
from digestry.registry.batches import Batches
from digestry.registry.disk_reserve import A_BIT, Reserve
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.thread_stack import ThreadStack
from digestry.registry.waiting_call import Line, WaitingCall, answer_all, make

_DISK_THREADS: Final = 16
_TOGETHER: Final = 32
"""The most calls that are committed together."""

P = ParamSpec("P")
T = TypeVar("T")


class Together(Protocol):
    """:meth:`Database.group_commit` of the catalog's database."""

    def __call__(self, jobs: Sequence[Job], *, durable: bool) -> list[Outcome]: ...


class Executors:
    """Threads that may wait for the disk, those that write to the catalog, and one for quarantine.

    Functions that change the catalog run one after the other, and those that wait at the same time are
    committed ``together``; or side by side, if the database has more than one writer.
    """

    def __init__(
        self,
        reserve: Reserve,
        together: Together,
        *,
        writers: int = 1,
        note: Callable[[Sequence[Line]], None] = lambda _: None,
    ) -> None:
        """``writers`` are as :attr:`Database.writers` has them; ``note`` writes audit lines."""
        self.reserve = reserve
        self._stopped = False
        self._together = together
        self._note = note
        self.disk_threads = ThreadStack(_DISK_THREADS, name="disk")
        self._writers = ThreadStack(writers + 1, name="catalog")
        # Writes that run in parallel are not grouped.
        most = _TOGETHER if writers == 1 else 1
        self._writes = Batches(self._write_durably, self._writers, most=most, at_once=writers)
        self._volatile_writes = Batches(self._write_volatile, self._writers)
        # A thread of its own: it waits for pushes to end, which need the disk threads for that.
        self._quarantine = ThreadStack(1, name="quarantine")

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in a thread that may wait for the disk."""
        return await self._call(self.disk_threads, function, *args, **kwargs)

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, which changes the catalog and nothing else. Return when that is on the disk."""
        call = self.waiting_call(functools.partial(function, *args, **kwargs))
        self._writes.add([call])
        return cast("T", await call.future)

    async def write_volatile(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` as :meth:`write` does, if a loss of power may undo what it writes."""
        call = self.waiting_call(functools.partial(function, *args, **kwargs))
        self._volatile_writes.add([call])
        return cast("T", await call.future)

    def write_here(self, calls: Sequence[WaitingCall]) -> None:
        """Make ``calls`` as :meth:`write` does, in this thread if no other writes."""
        self._writes.add(calls, here=True)

    def waiting_call(
        self, function: Callable[[], object], note: Callable[[Any], Sequence[Line]] | None = None
    ) -> WaitingCall:
        """Return a call of ``function`` for the running request; ``note`` makes the audit lines of what it
        returned. Raises :class:`ErrorResponse` 503."""
        self._check_running()
        return WaitingCall(function, note)

    def _write_durably(self, calls: list[WaitingCall]) -> None:
        self._write(calls, durable=True)

    def _write_volatile(self, calls: list[WaitingCall]) -> None:
        self._write(calls, durable=False)

    def _write(self, calls: list[WaitingCall], *, durable: bool) -> None:
        try:
            outcomes = self._together(calls, durable=durable)
            # In this thread: to hand them to another would take longer than to write them.
            lines = [
                line for call, outcome in zip(calls, outcomes, strict=True) for line in call.lines(outcome)
            ]
            if lines:
                self._note(lines)
        except Exception as error:  # noqa: BLE001 - the caller that waits gets it
            outcomes = [Outcome(error=error)] * len(calls)
        answer_all(zip(calls, outcomes, strict=True))

    async def remove(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` as :meth:`write` does. On a full disk it may use the disk reserve."""
        try:
            return await self.write(function, *args, **kwargs)
        except StorageFull:
            if not await self.run(self.reserve.release, A_BIT):
                raise
            try:
                return await self.write(function, *args, **kwargs)
            finally:
                # There may be room again by now: then no request is refused in between.
                with contextlib.suppress(StorageError):
                    await self.run(self.reserve.refill_if_idle)

    async def quarantine(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, which may wait for pushes to end, in the quarantine's thread."""
        return await self._call(self._quarantine, function, *args, **kwargs)

    def quarantine_in_background(self, function: Callable[[], None]) -> None:
        """Call ``function`` as :meth:`quarantine` does, without waiting for it."""
        self._quarantine.submit(function)

    async def _call(
        self, threads: ThreadStack, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        call = self.waiting_call(functools.partial(function, *args, **kwargs))
        threads.submit(functools.partial(make, call))
        return cast("T", await call.future)

    def _check_running(self) -> None:
        if self._stopped:
            raise ErrorResponse(
                503, "UNAVAILABLE", "the registry is being stopped", headers={"Retry-After": "5"}
            )

    def shutdown(self) -> None:
        """Refuse further calls, and wait for those under way. Blocks."""
        self._stopped = True
        for threads in (self.disk_threads, self._writers, self._quarantine):
            threads.shutdown()
