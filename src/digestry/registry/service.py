"""What every request handler works with: the stores, the hot reads, and the threads.

One :class:`Service` for each worker process. The event loop's thread never waits for the disk but
for reads that are a few microseconds; all else runs in ``disk`` threads, and what changes the
catalog runs, one after the other, in the one ``writer`` thread.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from digestry.blobs.disk import DiskBlobs
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.hot import HotReads
from digestry.errors import Conflict, ContentError, NotFound, StorageError, TooLarge
from digestry.model.digest import Digest
from digestry.registry.access.gate import Gate
from digestry.registry.config import RegistryConfig
from digestry.registry.courier import Courier

log: Final = logging.getLogger("digestry.registry")

_DISK_THREADS: Final = 16
_MANIFEST_CACHE: Final = 64 << 20
_SWEEP_INTERVAL: Final = 3600.0
_WATCH_INTERVAL: Final = 1.0

ABSENT: Final = "absent"
"""The folder of the root that has an empty catalog, in a registry with access rules."""

P = ParamSpec("P")
T = TypeVar("T")


class BytesCache:
    """Immutable content by digest, least recently used out first. Capped in bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = 0
        self._items: OrderedDict[str, bytes] = OrderedDict()

    def get(self, digest: str) -> bytes | None:
        content = self._items.get(digest)
        if content is not None:
            self._items.move_to_end(digest)
        return content

    def put(self, digest: str, content: bytes) -> None:
        if digest in self._items or len(content) > self._capacity // 4:
            return
        self._items[digest] = content
        self._held += len(content)
        while self._held > self._capacity:
            _, dropped = self._items.popitem(last=False)
            self._held -= len(dropped)


def damaged(digest: Digest, reason: str) -> StorageError:
    """The catalog and the blob store do not agree."""
    return StorageError(
        f"{digest} is in the catalog, but cannot be served: {reason}",
        hint="push an image that holds it once more: that puts the file back",
    )


class Service:
    """The registry's inside, shared by the handlers of one worker process."""

    def __init__(self, config: RegistryConfig, *, now: clock.Clock = clock.now) -> None:
        self.config = config
        self.now = now
        self.blobs = DiskBlobs(config.root)
        self._lease = int(config.collection.lease * clock.SECOND)
        self.catalog = Catalog(
            config.root,
            now=now,
            lease=self._lease,
            policy=config.tags,
            quotas=config.quotas,
            subscriptions=[webhook.subscription for webhook in config.webhooks],
        )
        self._courier = Courier(config.root, self.catalog.outbox, config.webhooks, now=now)
        self.hot = HotReads(self.catalog.path)
        self.manifests = BytesCache(_MANIFEST_CACHE)
        self.gate = Gate(config.access, config.root, self.catalog.path)
        self._disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="catalog")
        self._sweeper: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._absent: Service | None = None

    @property
    def absent(self) -> Service:
        """The same with an empty catalog: what is asked of it is answered as of what is not there."""
        if self._absent is None:
            self._absent = copy.copy(self)
            self._absent.catalog = Catalog(self.config.root / ABSENT, now=self.now)
            self._absent.hot = HotReads(self._absent.catalog.path)
        return self._absent

    async def disk(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls ``function`` in a thread that may wait for the disk."""
        return await self._call(self._disk, function, *args, **kwargs)

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls ``function``, which changes the catalog, in the writer's thread."""
        return await self._call(self._writer, function, *args, **kwargs)

    async def _call(
        self, executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, lambda: function(*args, **kwargs))

    async def promise(self, name: str, digest: Digest, lease_end: int | None) -> bool:
        """A client is told that this content is here: it will not be collected soon (rule 7).

        False if it went in this moment.
        """
        if lease_end is not None and lease_end >= self.now() + self._lease // 2:
            return True
        return await self.write(self.catalog.renew_lease, name, digest)

    def read(self, digest: Digest, size: int) -> bytes:
        """Content that the catalog says is here, verified. Blocks.

        Raises :class:`StorageError` if it is not, or not whole: the client is not to blame for that.
        """
        try:
            content = self.blobs.read(digest, limit=size)
        except (NotFound, ContentError, TooLarge) as error:
            raise damaged(digest, error.message) from error
        if len(content) != size:
            raise damaged(digest, f"it has {len(content)} bytes, not {size}")
        return content

    def check(self, digest: Digest, size: int) -> None:
        """Raises :class:`StorageError` unless as many bytes are there as the catalog says. Blocks."""
        found = self.blobs.stat(digest)
        if found != size:
            raise damaged(
                digest, "its file is gone" if found is None else f"it has {found} bytes, not {size}"
            )

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins the periodic work; called on the event loop."""
        self.gate.start()
        self._courier.start()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever())
        self._watcher = asyncio.get_running_loop().create_task(self._watch_forever())

    async def stop(self) -> None:
        """Ends the periodic work and waits for what is under way."""
        for task in (self._sweeper, self._watcher):
            if task is not None:
                task.cancel()
        self._courier.stop()
        self._disk.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        for stores in (self, self._absent):
            if stores is not None:
                stores.hot.close()
                stores.catalog.close()
        self.gate.close()

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_INTERVAL)
            try:
                self.gate.refresh()
            except Exception:
                log.exception("looking for changed users and keys failed; trying again")

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.disk(self.sweep_uploads)
            except Exception:
                log.exception("dropping stale uploads failed; trying again in %d s", _SWEEP_INTERVAL)
            await asyncio.sleep(_SWEEP_INTERVAL)

    def sweep_uploads(self) -> int:
        """Drops the uploads that nobody goes on with, and files that no upload owns; how many."""
        dropped = 0
        oldest = self.now() - int(self.config.upload_timeout * clock.SECOND)
        for upload in self.catalog.stale_uploads(oldest):
            try:
                self.blobs.discard(upload.id)
            except Conflict:
                continue  # somebody writes to it right now
            self.catalog.end_upload(upload.id)
            dropped += 1
        known = self.catalog.upload_ids()
        return dropped + len(self.blobs.sweep_ingests(self.config.upload_timeout, keep=known))
