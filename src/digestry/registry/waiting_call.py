"""Calls that requests wait for while threads make them, one or many at a time."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from digestry.catalog.database import Outcome, attempt

Line: TypeAlias = dict[str, object]
"""A line of the audit log."""


class WaitingCall:
    """A call of ``function`` that a request of the running event loop waits for."""

    __slots__ = ("_context", "_end", "_function", "_note", "future", "loop")

    def __init__(
        self, function: Callable[[], object], note: Callable[[Any], Sequence[Line]] | None = None
    ) -> None:
        """``note`` makes the audit lines of what ``function`` returned."""
        # With the context, so that the lines that a thread logs have the ID of its request.
        self._context = contextvars.copy_context()
        self._function = function
        self._note = note
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self._end: Callable[[], None] | None = None

    def __call__(self) -> object:
        """Make the call. In any thread."""
        return self._context.run(self._function)

    def in_context(self, function: Callable[[], object]) -> object:
        """Call ``function`` for the same request. In any thread."""
        return self._context.run(function)

    def lines(self, outcome: Outcome) -> Sequence[Line]:
        """Return the audit lines of the call, once it succeeded. In any thread."""
        if self._note is None or outcome.error is not None:
            return ()
        return self._note(outcome.value)

    def at_end(self, function: Callable[[], None]) -> None:
        """Call ``function`` before the request continues."""
        self._end = function

    def end(self) -> None:
        """Call the functions of :meth:`at_end`."""
        if self._end is not None:
            self._end()


def make(call: WaitingCall) -> None:
    """Make one call, and let its request go on. In any thread."""
    if not call.future.cancelled():  # the request may have ended before a thread was free
        answer_all([(call, attempt(call))])


def answer_all(calls: Iterable[tuple[WaitingCall, Outcome]]) -> None:
    """Let the requests go on with the outcomes of their calls, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
    for call, outcome in calls:
        call.end()
        by_loop.setdefault(call.loop, []).append((call.future, outcome))
    for loop, outcomes in by_loop.items():
        loop.call_soon_threadsafe(_resolve, outcomes)


def _resolve(outcomes: Iterable[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in outcomes:
        if future.done():
            continue  # the request was cancelled
        if outcome.error is None:
            future.set_result(outcome.value)
        else:
            future.set_exception(outcome.error)
