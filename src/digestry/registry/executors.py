"""The threads of one worker process, which wait for the disk so that the event loop never does."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from digestry.errors import StorageError, StorageFull
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.reserve import A_BIT, Reserve

_DISK_THREADS: Final = 16

P = ParamSpec("P")
T = TypeVar("T")


class Executors:
    """Threads that may wait for the disk, one writer, and one for quarantine.

    Functions that change the catalog run one after the other, in the writer's thread.
    """

    def __init__(self, reserve: Reserve) -> None:
        self.reserve = reserve
        self._stopped = False
        self._disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="catalog")
        # A thread of its own: it waits for pushes to end, which need the disk threads for that.
        self._quarantine = ThreadPoolExecutor(1, thread_name_prefix="quarantine")

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in a thread that may wait for the disk."""
        return await self._call(self._disk, function, *args, **kwargs)

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, which changes the catalog, in the writer's thread."""
        return await self._call(self._writer, function, *args, **kwargs)

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
                # There may be room again by now: then nobody is refused in between.
                with contextlib.suppress(StorageError):
                    await self.run(self.reserve.refill_if_idle)

    async def quarantine(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``, which may wait for pushes to end, in the quarantine's thread."""
        return await self._call(self._quarantine, function, *args, **kwargs)

    def quarantine_in_background(self, function: Callable[[], None]) -> None:
        """Call ``function`` as :meth:`quarantine` does, without waiting for it."""
        self._quarantine.submit(function)

    async def _call(
        self, executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self._stopped:
            raise ErrorResponse(
                503, "UNAVAILABLE", "the registry is being stopped", headers={"Retry-After": "5"}
            )
        # With the context: what a thread logs is about the request that it works for.
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            executor, lambda: context.run(function, *args, **kwargs)
        )

    def shutdown(self) -> None:
        """Refuse further calls, and wait for those under way. Blocks."""
        self._stopped = True
        for executor in (self._disk, self._writer, self._quarantine):
            executor.shutdown(wait=True)
