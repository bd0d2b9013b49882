"""The content of an image in another registry: fetched, verified, durable, and then visible."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from typing import Final

from digestry.backend import Backend
from digestry.blobs.ingests import ResumableIngest
from digestry.blobs.verify import too_long
from digestry.catalog.catalog import Catalog
from digestry.catalog.quotas import OverQuota
from digestry.coordination.protocol import FencedLock
from digestry.errors import (
    DigestryError,
    ProtocolViolation,
    Refused,
    StorageFull,
    TooLarge,
    Unreachable,
)
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.observer.hosts import Host, Stopped
from digestry.registry.disk_reserve import reserve_of
from digestry.registry.observed_targets import Target

_PART: Final = 512 << 10
_NO_SUCH_RANGE: Final = 416


class Content:
    """Fetches content of observed images into their local repositories. Thread-safe.

    Every method may raise the errors of an upstream, :class:`Conflict` if the lock is lost, and
    :class:`StorageError`.
    """

    def __init__(
        self, catalog: Catalog, backend: Backend, lock: FencedLock, *, manifest_limit: int, blob_limit: int
    ) -> None:
        self._catalog = catalog
        self._backend = backend
        self._lock = lock
        self._manifest_limit = manifest_limit
        self._blob_limit = blob_limit
        self._reserve = reserve_of(backend)

    def manifest(self, host: Host, target: Target, digest: Digest, stop: threading.Event) -> Manifest:
        """Return a manifest, from here or fetched and then stored."""
        stored = self._catalog.manifest(target.local_name, digest)
        if stored is not None and not self._catalog.damage.known(digest):
            with contextlib.suppress(DigestryError):  # the fetched one replaces it
                raw = self._backend.blobs.read(digest, limit=stored.size)
                return Manifest.parse(raw, stored.media_type, algorithm=digest.algorithm)
        host.require_turn(stop)
        with host.mirror.requesting():
            found = host.mirror.upstream.manifest(target.upstream_name, str(digest), self._manifest_limit)
        with self._backend.coordination.guard(found.digest):
            self._backend.blobs.put(found.raw, found.digest)
            self._lock.check()
            self._catalog.pull_through.put(target.local_name, found, origin=host.mirror.origin)
        return found

    def small_blob(
        self, host: Host, target: Target, descriptor: Descriptor, stop: threading.Event, *, limit: int
    ) -> bytes:
        """Return a blob of at most ``limit`` bytes, such as a config, from here or fetched and then stored.
        Raises :class:`TooLarge`."""
        if descriptor.size > limit:
            raise TooLarge(f"{descriptor.digest} has {descriptor.size} bytes; {limit} are read", limit=limit)
        self.blob(host, target, descriptor, stop)
        return self._backend.blobs.read(descriptor.digest, limit=limit)

    def blob(self, host: Host, target: Target, descriptor: Descriptor, stop: threading.Event) -> None:
        """Fetch a blob unless the repository has it, going on where an earlier attempt ended."""
        name, digest, size = target.local_name, descriptor.digest, descriptor.size
        there = self._catalog.blob_size(name, digest) is not None
        if there and self._backend.blobs.stat(digest) is not None and not self._catalog.damage.known(digest):
            return
        if size > self._blob_limit:
            raise TooLarge(
                f"{digest} has {size} bytes; {self._blob_limit} are allowed here", limit=self._blob_limit
            )
        self._reserve.check()  # what is left then is for deletions
        left = self._catalog.bytes_left(name)
        if left is not None and size > left:
            raise OverQuota(f"the quota of repository {name} has no room for {size} bytes")
        key = hashlib.sha256(f"{name}\0{digest}".encode()).hexdigest()[:40]
        ingest = self._backend.blobs.ingest(f"observe-{key}", algorithm=digest.algorithm)
        kept = True
        try:
            if ingest.offset > size:
                kept = False
                raise too_long(digest, size)
            if ingest.offset < size or not size:
                self._fetch(host, target, descriptor, ingest, stop)
            kept = False  # what does not commit is wrong, and is fetched anew
            with self._backend.coordination.guard(digest):
                ingest.commit(digest)
                kept = True
                self._lock.check()
                self._catalog.add_blob(name, digest, size)
        except StorageFull:
            kept = False  # what has come would take the room that pushes need
            raise
        finally:
            if kept:
                ingest.close()
            else:
                ingest.abort()

    def _fetch(
        self,
        host: Host,
        target: Target,
        descriptor: Descriptor,
        ingest: ResumableIngest,
        stop: threading.Event,
    ) -> None:
        digest, size = descriptor.digest, descriptor.size
        host.require_turn(stop)
        try:
            with host.mirror.requesting():
                coming = host.mirror.upstream.blob(target.upstream_name, digest, ingest.offset)
        except Refused as error:
            if error.status == _NO_SUCH_RANGE and ingest.offset:
                raise ProtocolViolation(
                    f"{host.mirror.config.host} has less of {digest} than before"
                ) from error
            raise
        with coming as stream:
            skip = ingest.offset - stream.start
            while part := stream.read(_PART):
                rest = memoryview(part)[skip:]
                skip -= len(part) - len(rest)
                if ingest.offset + len(rest) > size:
                    raise too_long(digest, size)
                ingest.write(rest)
                if stop.is_set():
                    raise Stopped
        if ingest.offset < size:
            raise Unreachable(f"the connection broke after {ingest.offset} of {size} bytes of {digest}")
