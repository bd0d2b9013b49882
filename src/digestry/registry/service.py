"""What every request handler works with: the stores, the read cache, and the threads.

One :class:`Service` for each worker process. The event loop's thread never waits for the disk but
for reads that are a few microseconds; all else runs in ``disk`` threads, and what changes the
catalog runs, one after the other, in the one ``writer`` thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from digestry.backend import open_backend
from digestry.blobs.protocols import GONE, BlobRanges, BytesLost
from digestry.catalog import clock
from digestry.catalog.uploads import Upload
from digestry.errors import (
    Conflict,
    ContentError,
    InvalidConfiguration,
    NotFound,
    StorageError,
    StorageFull,
    TooLarge,
)
from digestry.model.digest import Digest
from digestry.registry.access.gate import Gate
from digestry.registry.access.principal import Principal
from digestry.registry.admission import Admission
from digestry.registry.chunk_size import ChunkSize
from digestry.registry.config import RegistryConfig
from digestry.registry.connections.table import Connections
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.observability import audit_events
from digestry.registry.observability.audit_events import Findings
from digestry.registry.observability.exposition import Scrape
from digestry.registry.observability.health import Health
from digestry.registry.observability.request_observer import Observer
from digestry.registry.observability.upstream_metrics import UpstreamMeter
from digestry.registry.pull_through.mirrors import Mirrors
from digestry.registry.pull_through.upstream import MakeUpstream
from digestry.registry.quarantine import HEALS, Quarantine
from digestry.registry.reserve import A_BIT, Reserve
from digestry.registry.webhook_dispatcher import WebhookDispatcher

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


class ContentDamaged(StorageError):
    """The catalog has content of ``digest``, ``size`` bytes, and the blob store does not, or not whole."""

    def __init__(self, digest: Digest, size: int, problem: str) -> None:
        super().__init__(f"{digest} is in the catalog, but cannot be served: {problem}", hint=HEALS)
        self.digest = digest
        self.size = size


class Service:
    """The registry's inside, shared by the handlers of one worker process."""

    def __init__(
        self,
        config: RegistryConfig,
        *,
        now: clock.Clock = clock.now,
        make_upstream: MakeUpstream | None = None,
    ) -> None:
        self.config = config
        self.now = now
        self.clocks = clock.Clocks(now)
        self.observer = Observer(config)
        self.connections = Connections()
        backend = config.backend(now)
        self.blobs = backend.blobs
        self.coordination = backend.coordination
        self.inline_limit = self.blobs.inline_limit
        """Bytes of content up to which :meth:`read` may be called on the event loop."""
        self.reserve = Reserve(config.root)
        self._lease = int(config.collection.lease * clock.SECOND)
        self.catalog = backend.open_catalog()
        self.health = Health(config, self.catalog)
        self.scrape = Scrape(config, self.catalog, self.observer.measures)
        self._quarantine = Quarantine(
            self.blobs,
            self.coordination,
            self.catalog.damage,
            now=now,
            note=Findings(self.observer.audit, client="read"),
        )
        self._webhook_dispatcher = WebhookDispatcher(
            self.coordination, self.catalog.delivery_queue, config.webhooks, now=now
        )
        self.read_cache = backend.open_reads()
        self.manifest_cache = BytesCache(_MANIFEST_CACHE)
        self.chunk_size = ChunkSize()
        self._stopped = False
        self.parse_lock = asyncio.Lock()
        """Of large manifests: each takes a multiple of its size while it is read."""
        self.admission = Admission(config)
        self.gate = Gate(
            config.access,
            self.coordination.keys,
            backend.open_robot_reads() if config.access.enabled else None,
        )
        self.mirrors: Mirrors | None = None
        if config.mirrors:
            if make_upstream is None:
                raise InvalidConfiguration("there are mirrors, and nothing to ask other registries with")
            self.mirrors = Mirrors(
                config.mirrors, make_upstream, config.root, self.read_cache, self.coordination
            )
            self.observer.watch(UpstreamMeter(self.observer.measures, self.mirrors).read)
        self._disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="catalog")
        # A thread of its own: it waits for pushes to end, which need the disk threads for that.
        self._quarantine_executor = ThreadPoolExecutor(1, thread_name_prefix="quarantine")
        self._sweeper: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._publisher: asyncio.Task[None] | None = None
        self._absent: Service | None = None

    @property
    def absent(self) -> Service:
        """The same with an empty catalog: what is asked of it is answered as of what is not there."""
        if self._absent is None:
            self._absent = copy.copy(self)
            empty = open_backend(self.config.root / ABSENT, now=self.now)
            self._absent.catalog = empty.open_catalog()
            self._absent.read_cache = empty.open_reads()
        return self._absent

    def canonical_repository(self, name: str, principal: Principal) -> str:
        """The repository that ``name`` is of where nobody else is asked: its history and so on."""
        return name if self.mirrors is None else self.mirrors.canonical_repository(name, principal)

    def origin(self, name: str, principal: Principal) -> str:
        """The host of the registry that a repository is mirrored from; empty for one of our own, as far as
        who asks may see those."""
        return "" if self.mirrors is None else self.mirrors.origin(name, principal)

    async def disk(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls ``function`` in a thread that may wait for the disk."""
        return await self._call(self._disk, function, *args, **kwargs)

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls ``function``, which changes the catalog, in the writer's thread."""
        return await self._call(self._writer, function, *args, **kwargs)

    async def remove(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As :meth:`write`, for what gives room back: on a full disk the reserve is for it."""
        try:
            return await self.write(function, *args, **kwargs)
        except StorageFull:
            if not await self.disk(self.reserve.release, A_BIT):
                raise
            try:
                return await self.write(function, *args, **kwargs)
            finally:
                # There may be room again by now: then nobody is refused in between.
                with contextlib.suppress(StorageError):
                    await self.disk(self.reserve.take_back)

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

    async def ensure_lease(self, name: str, digest: Digest, lease_end: int | None) -> bool:
        """A client is told that this content is here: it will not be collected soon (rule 7).

        False if it went in this moment.
        """
        if lease_end is not None and lease_end >= self.now() + self._lease // 2:
            return True
        try:
            return await self.write(self.catalog.renew_lease, name, digest)
        except StorageError as error:
            # A disk that is full must not stop pulls. A push that relies on this is refused, later, if
            # the content does go: its manifest is checked against what is there then.
            log.warning("the lease of %s could not be renewed: %s", digest, error.message)
            return True

    def read(self, digest: Digest, size: int) -> bytes:
        """Content that the catalog says is here, verified. Blocks.

        Raises :class:`ContentDamaged` if it is not, or not whole, and :class:`StorageError`: the client is
        not to blame for either.
        """
        try:
            content = self.blobs.read(digest, limit=size)
        except (NotFound, ContentError, TooLarge, BytesLost) as error:
            raise ContentDamaged(digest, size, error.message) from error
        if len(content) != size:
            raise ContentDamaged(digest, size, f"it has {len(content)} bytes, not {size}")
        return content

    async def open_ranges(self, digest: Digest, size: int) -> BlobRanges:
        """Open content of ``size`` bytes that the catalog says is here, for reading by ranges, not verified.

        Raises as :meth:`read` does.
        """
        try:
            content = await self.blobs.open_ranges(digest, self.disk)
        except NotFound as error:
            raise ContentDamaged(digest, size, GONE) from error
        except (ContentError, BytesLost) as error:
            raise ContentDamaged(digest, size, error.message) from error
        if content.size != size:
            found = content.size
            content.close()
            raise ContentDamaged(digest, size, f"it has {found} bytes, not {size}")
        return content

    async def quarantine_if_damaged(self, error: ContentDamaged) -> bool:
        """Content could not be served: puts it into quarantine. False if it is whole by now."""
        return await self._call(
            self._quarantine_executor, self._quarantine.quarantine_if_damaged, error.digest, error.size
        )

    def quarantine_in_background(self, error: ContentDamaged) -> None:
        """As :meth:`quarantine_if_damaged`, for who does not wait for it."""

        def quarantine_if_damaged() -> None:
            try:
                self._quarantine.quarantine_if_damaged(error.digest, error.size)
            except StorageError as failure:
                log.error("%s; putting it into quarantine failed: %s", error.message, failure.message)

        self._quarantine_executor.submit(quarantine_if_damaged)

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins the periodic work; called on the event loop."""
        self.gate.start()
        self._webhook_dispatcher.start()
        if self.mirrors is not None:
            self.mirrors.start()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever())
        self._watcher = asyncio.get_running_loop().create_task(self._watch_forever())
        self._publisher = asyncio.get_running_loop().create_task(self.observer.publish_forever())

    async def stop(self) -> None:
        """Ends the periodic work and waits for what is under way."""
        for task in (self._sweeper, self._watcher, self._publisher):
            if task is not None:
                task.cancel()
        self._webhook_dispatcher.stop()
        if self.mirrors is not None:
            await asyncio.to_thread(self.mirrors.stop)
        self._stopped = True
        self._disk.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        self._quarantine_executor.shutdown(wait=True)
        for stores in (self, self._absent):
            if stores is not None:
                stores.read_cache.close()
                stores.catalog.close()
        self.gate.close()
        self.observer.close()

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
                if not self.config.read_only:
                    await self.disk(self.sweep_uploads)
            except Exception:
                log.exception("dropping stale uploads failed; trying again")
            await asyncio.sleep(min(_SWEEP_INTERVAL, self.config.upload_timeout / 2))

    def sweep_uploads(self) -> int:
        """Drops the uploads that nobody goes on with, and files that no upload owns; how many."""
        dropped = 0
        if self.clocks.jump() > self.config.upload_timeout / 4:
            self.catalog.age_uploads_from_now()  # they look older than they are
        oldest = self.now() - int(self.config.upload_timeout * clock.SECOND)
        for upload in self.catalog.stale_uploads(oldest):
            try:
                self.blobs.discard(upload.id)
            except Conflict:
                continue  # somebody writes to it right now
            self.catalog.end_upload(upload.id)
            self._note_dropped(upload, "nobody went on with it")
            dropped += 1
        known = self.catalog.upload_ids()
        return dropped + len(self.blobs.sweep_ingests(self.config.upload_timeout, keep=known))

    def drop_replaced(self, upload: Upload) -> None:
        """Removes the file of an upload that has ended to make room for another user's. Blocks."""
        with contextlib.suppress(Conflict, StorageError):  # who writes to it removes it, or the sweep does
            self.blobs.discard(upload.id)
        self._note_dropped(upload, "whoever has most uploads under way makes room for others")

    def _note_dropped(self, upload: Upload, reason: str) -> None:
        entry = audit_events.of_itself(
            "uploads",
            "drop-upload",
            repository=upload.repository,
            upload=upload.id,
            size=upload.offset,
            reason=reason,
        )
        self.observer.note([entry])
