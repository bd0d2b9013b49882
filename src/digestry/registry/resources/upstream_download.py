"""The download of one blob from an upstream, shared by all clients in all worker processes.

The bytes go into one file of the blob store's ingest, whose lock picks the one process that fetches them.
Clients of every process are served from that file while it grows, except for its end, which is held back
until the whole was verified, is durable, and is linked. So no client ever gets all of wrong content.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Final

from digestry.blobs.ingests import GrowingContent, ResumableIngest
from digestry.blobs.verify import too_long
from digestry.catalog.quotas import OverQuota
from digestry.errors import (
    Conflict,
    DigestryError,
    NotFound,
    ProtocolViolation,
    Refused,
    RemoteError,
    RemoteNotFound,
    TooLarge,
    Unreachable,
)
from digestry.fsio import read_file, storage_errors
from digestry.model.digest import Digest
from digestry.registry.observability import audit_events
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.mirror import DIRECTORY, UpstreamRepository
from digestry.registry.pull_through.upstream import LEAST_RATE, PATIENCE, BlobStream
from digestry.registry.pull_through.upstream_errors import BackingOff
from digestry.registry.service import Service

log: Final = logging.getLogger("digestry.registry")

HELD_BACK: Final = 64 << 10
"""So many bytes of a blob are sent only when all of it was verified."""
FINISHED_ANYWAY: Final = 256 << 20
"""With at most so many bytes left, a download continues after the last client has left."""
FINISHED_WITHIN: Final = 600.0
"""But only if they will arrive within so many seconds at the rate so far: a slow upstream would keep other
downloads waiting."""

_PART: Final = 512 << 10
_ATTEMPTS: Final = 3
_MOST_ATTEMPTS: Final = 50
_PAUSE: Final = 0.3
_NO_SUCH_RANGE: Final = 416
_POLL: Final = 0.03
_SLOWER: Final = 1.3
_LONGEST_POLL: Final = 0.5
_PROGRESS_BYTES: Final = 256 << 10
_PROGRESS_SECONDS: Final = 0.02


def check_room(service: Service, name: str, digest: Digest, size: int) -> None:
    """Check that repository ``name`` has room for a blob. Raises :class:`TooLarge` or :class:`OverQuota`.
    Blocks."""
    limit = service.config.upload_limit
    if size > limit:
        raise TooLarge(f"{digest} has {size} bytes; {limit} are allowed here", limit=limit)
    left = service.stores.catalog.bytes_left(name)
    if left is not None and size > left:
        raise OverQuota(f"the quota of repository {name} has no room for {size} bytes")


class Abandoned(RemoteError):
    """The download was stopped because all its clients had left."""


class Download:
    """A download for the clients of one worker. Used on the event loop, except :meth:`run`."""

    def __init__(self, service: Service, repository: UpstreamRepository, digest: Digest) -> None:
        self.digest = digest
        self.repository = repository
        self.size: int | None = None
        """Of the whole blob, once it is known."""
        self.arrived = 0
        """So many bytes of it are in ``content``."""
        self.content: GrowingContent | None = None
        """The bytes that have arrived; None as long as they cannot be read."""
        self.linked = False
        """Whether the repository has it: verified and durable."""
        self.error: Exception | None = None
        self.clients = 0
        self._service = service
        self._mirror = repository.mirror
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        key = hashlib.sha256(f"{repository.local_name}\0{digest}".encode()).hexdigest()[:40]
        self._name = f"mirror-{key}"
        self._note = service.config.scratch / DIRECTORY / f"{key}.size"
        self._fresh_note = self._note.with_suffix(".new")
        self._reported = (0, 0.0)
        self._seen = 0

    @property
    def ended(self) -> bool:
        return self.linked or self.error is not None

    @property
    def ready(self) -> int:
        """How many bytes from the beginning may be sent."""
        if self.size is None:
            return 0
        return self.size if self.linked else max(0, min(self.arrived, self.size - HELD_BACK))

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done when any of the above changes."""
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def close(self) -> None:
        """Note that a client has stopped reading."""
        if self.content is not None:
            self.content.close()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _on_loop(self, change: Callable[[], None]) -> None:
        def apply() -> None:
            change()
            self._wake()

        with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody with it
            self._loop.call_soon_threadsafe(apply)

    # -- in a thread ---------------------------------------------------------------------------

    def run(self) -> None:
        """Fetch the blob, or wait for another process that does. Blocks; never raises."""
        try:
            if not (self._is_linked() or self._is_here()):
                self._get()
        except DigestryError as error:
            failure: Exception = error
        except Exception as error:
            log.exception("fetching %s of %s failed", self.digest, self.repository.local_name)
            failure = error
        else:
            self._on_loop(lambda: setattr(self, "linked", True))
            return
        self._on_loop(lambda: setattr(self, "error", failure))

    def _is_linked(self) -> bool:
        return self._service.stores.catalog.blob_size(self.repository.local_name, self.digest) is not None

    def _is_here(self) -> bool:
        """Link content that another repository has, if the upstream has it in this one too."""
        service = self._service
        if service.stores.blobs.stat(self.digest) is None or service.stores.catalog.damage.known(self.digest):
            return False
        try:
            with self._mirror.requesting():
                size = self._mirror.upstream.blob_size(self.repository.upstream_name, self.digest)
        except Refused as error:
            if isinstance(error, RemoteNotFound) or upstream_errors.is_outage(error):
                raise
            return False  # a download may still succeed
        except ProtocolViolation:
            return False
        with service.stores.coordination.guard(self.digest):
            if size is None or service.stores.blobs.stat(self.digest) != size:
                return False
            service.stores.catalog.add_blob(self.repository.local_name, self.digest, size)
        self._note_write("link-blob", size)
        return True

    def _get(self) -> None:
        try:
            ingest = self._service.stores.blobs.ingest(self._name, algorithm=self.digest.algorithm)
        except Conflict:
            found = self._follow()
            if found is None:
                return
            ingest = found
        try:
            if self._is_linked():
                ingest.abort()  # another finished it in this moment
                return
            self._own(ingest)
        finally:
            ingest.close()

    def _follow(self) -> ResumableIngest | None:
        """Follow another process that fetches the blob; return the ingest if this process must take over.

        Raises :class:`Unreachable` if it failed.
        """
        blobs = self._service.stores.blobs
        pause = _POLL
        while not self._mirror.stopping.wait(pause):
            # Many that wait for a slow upstream must not keep the machine busy with looking.
            pause = min(pause * _SLOWER, _LONGEST_POLL)
            try:
                ingest = blobs.ingest(self._name, create=False, algorithm=self.digest.algorithm)
            except Conflict:
                if self._look():
                    pause = _POLL
            except NotFound:
                # Between its rename and its link the other holds the guard: this waits for it.
                with self._service.stores.coordination.guard(self.digest, exclusive=True):
                    if self._is_linked():
                        if self.content is not None and not self.content.is_stored_as(self.digest):
                            raise self._failed_elsewhere() from None
                        return None
                raise self._failed_elsewhere() from None
            else:
                # The clients' bytes may be the beginning of wrong content that was discarded meanwhile.
                if self.content is not None and not self.content.is_arriving():
                    ingest.close()
                    raise self._failed_elsewhere()
                return ingest
        raise Unreachable("this registry is being stopped")

    def _failed_elsewhere(self) -> Unreachable:
        return Unreachable(f"the process that fetched {self.digest} could not")

    def _look(self) -> bool:
        """Read how far the other process is, and return whether it has advanced."""
        if self.content is None:
            try:
                size = int(read_file(self._note))
                self._open(size)
            except (OSError, ValueError, NotFound):
                return False  # it has only begun, or has just ended
        if self.content is None:
            return False
        size, before = self.content.size(), self._seen
        self._seen = size
        self._tell(size)
        return size > before

    def _open(self, size: int) -> None:
        self.content = self._service.stores.blobs.follow(self._name)
        self._on_loop(lambda: setattr(self, "size", size))

    def _tell(self, arrived: int) -> None:
        before, at = self._reported
        now = time.monotonic()
        if arrived - before >= _PROGRESS_BYTES or (arrived > before and now - at >= _PROGRESS_SECONDS):
            self._reported = arrived, now
            self._on_loop(lambda: setattr(self, "arrived", arrived))

    def _own(self, ingest: ResumableIngest) -> None:
        """Fetch the blob, resuming after broken connections, and link it to the repository."""
        kept = False
        try:
            self._service.executors.reserve.check()
            self._fetch(ingest)
            service, size = self._service, ingest.offset
            with service.stores.coordination.guard(self.digest):
                ingest.commit(self.digest)
                service.stores.catalog.add_blob(self.repository.local_name, self.digest, size)
            self._note_write("fetch-blob", size)
        except RemoteError as error:
            # The received bytes may be continued: at the end all of them are verified.
            kept = ingest.offset > 0 and (
                isinstance(error, Abandoned | BackingOff) or upstream_errors.is_outage(error)
            )
            raise
        finally:
            for note in (self._note, self._fresh_note):
                with contextlib.suppress(OSError):  # the next start sweeps them
                    note.unlink(missing_ok=True)
            if not kept:
                ingest.abort()

    def _note_write(self, action: str, size: int) -> None:
        origin, name = self._mirror.origin, self.repository.local_name
        lines = audit_events.of_mirror(origin, name, action=action, digest=self.digest, size=size)
        self._service.observer.note(lines)

    def _fetch(self, ingest: ResumableIngest) -> None:
        size: int | None = None
        failures = 0
        began, first = time.monotonic(), ingest.offset
        patience = self._mirror.config.timeout * PATIENCE * _ATTEMPTS
        for attempt in range(_MOST_ATTEMPTS):
            before = ingest.offset
            try:
                with self._mirror.requesting(insist=attempt > 0):
                    coming = self._mirror.upstream.blob(self.repository.upstream_name, self.digest, before)
                with coming as stream:
                    size = self._whole(ingest, stream, size)
                    self._pump(ingest, stream, size)
            except Refused as error:
                # All of it had come, and only the end of the process was in the way.
                if error.status == _NO_SUCH_RANGE and before and ingest.digest() == self.digest:
                    return
                raise
            except Unreachable as error:
                # An attempt that received bytes does not count: the connection is bad, but not dead.
                failures = 1 if ingest.offset > before else failures + 1
                late = time.monotonic() - began > patience + (ingest.offset - first) / LEAST_RATE
                if failures >= _ATTEMPTS or attempt + 1 == _MOST_ATTEMPTS or late:
                    raise
                log.info("mirror: going on with %s at byte %d: %s", self.digest, ingest.offset, error.message)
                if self._mirror.stopping.wait(_PAUSE * 3 ** (failures - 1)):
                    raise
            else:
                return

    def _whole(self, ingest: ResumableIngest, stream: BlobStream, known: int | None) -> int | None:
        """Return the blob's size, after checking that it may be stored, and publish it to the clients."""
        size = stream.size
        if known is not None and size not in {None, known}:
            raise ProtocolViolation(f"{self.digest} had {known} bytes, and now it has {size}")
        if known is not None or size is None:
            return known
        check_room(self._service, self.repository.local_name, self.digest, size)
        if ingest.offset > size:
            raise too_long(self.digest, size)
        if self.content is None and size > HELD_BACK:
            with storage_errors("write", self._note):
                # For the other processes; if this one is killed, it is worth nothing.
                self._fresh_note.write_text(str(size))
                self._fresh_note.replace(self._note)
            self._open(size)
        return size

    def _pump(self, ingest: ResumableIngest, stream: BlobStream, size: int | None) -> None:
        most = self._service.config.upload_limit if size is None else size
        skip = ingest.offset - stream.start
        before, began = ingest.offset, time.monotonic()
        while part := stream.read(_PART):
            self._mirror.count("fetched_bytes", len(part))
            rest = memoryview(part)[skip:]
            skip -= len(part) - len(rest)
            if ingest.offset + len(rest) > most:
                raise too_long(self.digest, most)
            ingest.write(rest)
            self._tell(ingest.offset)
            if self._mirror.stopping.is_set():
                raise Unreachable("this registry is being stopped")
            if size is not None and not self.clients:
                left, came = size - ingest.offset, max(1, ingest.offset - before)
                if left > FINISHED_ANYWAY or left / came * (time.monotonic() - began) > FINISHED_WITHIN:
                    raise Abandoned("no client waits for it")
        if size is not None and ingest.offset < size:
            raise Unreachable(f"the connection broke after {ingest.offset} of {size} bytes")
