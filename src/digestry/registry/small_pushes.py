"""Pushes of short content: stored and then linked, many at a time.

Bytes first, durably, and then the transaction that makes them visible (rule 4). Pushes that wait at the same
time share one fsync of the directory, and one commit.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from digestry.blobs.protocols import BlobStore
from digestry.catalog.database import Outcome
from digestry.coordination.protocol import Coordination
from digestry.model.digest import Digest
from digestry.registry.batches import Batches, Then
from digestry.registry.executors import Executors
from digestry.registry.waiting_call import Line, WaitingCall, answer_all

T = TypeVar("T")

_SHORT: Final = 64 << 10
"""Longer content is stored by itself, so that what is short does not wait for it."""


@dataclass(frozen=True, slots=True)
class _Push:
    """Some content, the call that makes it visible, and what is asked before it is stored."""

    content: bytes
    digest: Digest
    check: Callable[[], object] | None
    call: WaitingCall


class _Guards:
    """The guards of a batch's digests, held until all of its pushes have ended."""

    def __init__(self, coordination: Coordination) -> None:
        self._coordination = coordination
        self._held = contextlib.ExitStack()
        self._groups: set[str] = set()
        self._lock = threading.Lock()
        self._waiting = 0

    def add(self, digest: Digest) -> None:
        """Hold the guard of ``digest``. Raises :class:`StorageError`."""
        group = self._coordination.guard_group(digest)
        if group not in self._groups:
            self._held.enter_context(self._coordination.guard(digest))
            self._groups.add(group)

    def release_after(self, pushes: int) -> None:
        """Release the guards once :meth:`ended` was called for so many pushes."""
        self._waiting = pushes
        if not pushes:
            self._held.close()

    def ended(self) -> None:
        """Note that a push has ended."""
        with self._lock:
            self._waiting -= 1
            last = self._waiting == 0
        if last:
            self._held.close()


class SmallPushes:
    """The pushes of short content in one worker process."""

    def __init__(self, blobs: BlobStore, coordination: Coordination, executors: Executors) -> None:
        self._blobs = blobs
        self._coordination = coordination
        self._executors = executors
        self._batches = Batches(self._store, executors.disk_threads)

    async def push(
        self,
        content: bytes,
        digest: Digest,
        link: Callable[[], T],
        *,
        check: Callable[[], object] | None = None,
        note: Callable[[Any], Sequence[Line]] | None = None,
    ) -> T:
        """Store ``content``, and then call ``link``, which makes it visible in the catalog.

        ``check`` is called before, in a thread: what it raises refuses the content; and ``note`` after it, in
        a thread, to make the audit lines of what ``link`` returned. Raises what they raise,
        :class:`DigestMismatch` and :class:`StorageError`.
        """
        call = self._executors.waiting_call(link, note)
        push = _Push(content, digest, check, call)
        if len(content) <= _SHORT:
            self._batches.add([push])
        else:
            self._executors.disk_threads.submit(functools.partial(self._store_alone, push))
        return cast("T", await call.future)

    def _store_alone(self, push: _Push) -> None:
        self._store([push])()

    def _store(self, pushes: list[_Push]) -> Then:
        guards = _Guards(self._coordination)
        refused: list[tuple[WaitingCall, Outcome]] = []
        checked: list[_Push] = []
        for push in pushes:
            try:
                if push.check is not None:
                    push.call.in_context(push.check)
                guards.add(push.digest)
            except Exception as error:  # noqa: BLE001 - who waits hears of it
                refused.append((push.call, Outcome(error=error)))
            else:
                checked.append(push)
        stored: list[WaitingCall] = []
        for push, problem in zip(checked, self._put(checked), strict=True):
            if problem is None:
                stored.append(push.call)
                push.call.at_end(guards.ended)
            else:
                refused.append((push.call, Outcome(error=problem)))
        guards.release_after(len(stored))
        answer_all(refused)
        return functools.partial(self._executors.write_here, stored)

    def _put(self, pushes: list[_Push]) -> Sequence[Exception | None]:
        try:
            return self._blobs.put_all([(push.content, push.digest) for push in pushes])
        except Exception as error:  # noqa: BLE001 - who waits hears of it
            return [error] * len(pushes)
