"""Stores in the memory of one process, which the servers and commands that tests start use from theirs.

Each call has a connection of its own, over a unix socket. What a call opens, such as content on its way in,
is used over that connection and ends with it: so nothing stays locked when a process is killed.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final, Self

from digestry.blobs.bounded_read import SMALL
from digestry.blobs.ingests import Chunk
from digestry.blobs.protocols import (
    BlobRanges,
    BlobStore,
    InThread,
    QuarantinedBlob,
    StoreMark,
    Throttle,
    Verification,
)
from digestry.blobs.put_each import put_each
from digestry.errors import DigestryError, StorageError
from digestry.model.digest import Digest
from tests.blobs.memory import MemoryBlobs

_OPEN: Final = frozenset({"begin", "ingest", "follow", "snapshot"})
"""Calls that open something, which is used until the connection ends."""
_MAKE: Final = frozenset({"prepare", "set_mark", "put", "begin", "ingest"})
"""Calls that make a store where there is none."""
_ID: Final = "blobs/.memory"
"""The file of a registry's directory that says which store is its: it goes where the directory goes."""


class MemoryServer:
    """The stores, by directory. ``address`` is a path that does not exist yet."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._stores: dict[str, MemoryBlobs] = {}
        self._lock = threading.Lock()
        self._listener = Listener(address, "AF_UNIX", backlog=128)
        threading.Thread(target=self._accept, name="memory stores", daemon=True).start()

    def close(self) -> None:
        """Take no more calls."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        opened: Any = None
        with connection, contextlib.suppress(EOFError, OSError):
            try:
                root = connection.recv()
                while True:
                    name, arguments, options = connection.recv()
                    try:
                        on = self._store(root, make=name in _MAKE) if opened is None else opened
                        value = getattr(on, name)
                        value = value(*arguments, **options) if callable(value) else value
                        if opened is None and name in _OPEN:
                            opened, value = value, None
                        if isinstance(value, Iterator):
                            value = list(value)
                        answer = (True, value)
                    except Exception as error:  # noqa: BLE001 - raised again by the caller
                        answer = (False, (type(error), error.args, error.__dict__))
                    connection.send((answer, getattr(opened, "offset", None)))
            finally:
                if opened is not None:
                    with contextlib.suppress(Exception):
                        opened.__exit__(None, None, None) if hasattr(opened, "__exit__") else opened.close()

    def _store(self, root: str, *, make: bool) -> MemoryBlobs:
        """The store of a directory; one that was copied with another's gets a copy of that."""
        path = Path(root, _ID)
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            try:
                known = path.read_text()
            except OSError:
                known = ""
            if known == root and root in self._stores:
                return self._stores[root]
            found = self._stores[known].copy() if known in self._stores else MemoryBlobs()
            with contextlib.suppress(OSError):  # it is nowhere yet: an empty store will do
                path.write_text(root)
                self._stores[root] = found
            return found


class _Call:
    """A connection, and what it has opened."""

    def __init__(self, address: str, root: str) -> None:
        try:
            self._connection = Client(address, "AF_UNIX")
            self._connection.send(root)
        except OSError as error:
            raise StorageError(f"the stores in memory are not there: {error}") from error
        self.offset: int | None = None

    def __call__(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            self._connection.send((name, arguments, options))
            (good, value), self.offset = self._connection.recv()
        except (OSError, EOFError) as error:
            raise StorageError(f"{name}: it was committed or closed already") from error
        if good:
            return value
        kind, arguments, rest = value
        raised = kind.__new__(kind, *arguments)
        raised.__dict__.update(rest)
        raise raised

    def close(self) -> None:
        self._connection.close()


class RemoteBlobs:
    """The :class:`~digestry.blobs.protocols.BlobStore` of the directory ``root``, in a server's memory."""

    inline_limit = 0
    is_listed_in_catalog = False
    location = "memory"
    mark_location = "memory"

    def __init__(self, address: str, root: Path) -> None:
        self._address = address
        self._root = root.absolute()

    def _open(self) -> _Call:
        return _Call(self._address, str(self._root))

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        call = self._open()
        try:
            return call(name, *arguments, **options)
        finally:
            call.close()

    def prepare(self) -> None:
        self._call("prepare")

    def instance(self) -> object:
        return self._call("instance")

    def mark(self) -> StoreMark | None:
        found: StoreMark | None = self._call("mark")
        return found

    def set_mark(self, mark: StoreMark) -> None:
        self._call("set_mark", mark)

    def stat(self, digest: Digest) -> int | None:
        found: int | None = self._call("stat", digest)
        return found

    def revision(self, digest: Digest) -> Hashable | None:
        found: Hashable | None = self._call("revision", digest)
        return found

    def stored_at(self, digest: Digest) -> float | None:
        found: float | None = self._call("stored_at", digest)
        return found

    def local_path(self, digest: Digest) -> None:
        pass

    def redirect(self, digest: Digest) -> str | None:
        return None

    def _content(self, digest: Digest) -> bytes:
        found: bytes = self._call("content", digest)
        return found

    def open(self, digest: Digest) -> io.BufferedReader:
        raw: Any = io.BytesIO(self._content(digest))
        return io.BufferedReader(raw)

    async def open_ranges(
        self, digest: Digest, in_thread: InThread, first: int = 0, last: int | None = None
    ) -> BlobRanges:
        return await in_thread(RemoteRanges, self, digest, in_thread)

    def read(self, digest: Digest, *, limit: int = SMALL) -> bytes:
        found: bytes = self._call("read", digest, limit=limit)
        return found

    def verify(
        self, digest: Digest, size: int | None, throttle: Throttle, *, uncached: bool = False
    ) -> Verification:
        size_here = self.stat(digest) or 0
        for start in range(0, size_here, throttle.chunk):
            throttle.take(min(throttle.chunk, size_here - start))
        found: Verification = self._call("verify", digest, size, _NO_THROTTLE, uncached=uncached)
        return found

    def digests(self) -> Iterator[Digest]:
        return iter(self._call("digests"))

    def damage(self, digest: Digest, content: bytes) -> None:
        self._call("damage", digest, content)

    def begin(self, digest: Digest | None = None, size: int | None = None) -> RemoteIngest:
        return RemoteIngest(self._opened("begin", digest, size), keep=False)

    def _opened(self, name: str, *arguments: Any, **options: Any) -> _Call:
        call = self._open()
        try:
            call(name, *arguments, **options)
        except BaseException:
            call.close()
            raise
        return call

    def put(self, content: bytes, digest: Digest | None = None) -> Digest:
        found: Digest = self._call("put", content, digest)
        return found

    def put_all(self, contents: Sequence[tuple[bytes, Digest]]) -> list[DigestryError | None]:
        return put_each(self, contents)

    def delete(self, digest: Digest, *, durable: bool = True) -> bool:
        return bool(self._call("delete", digest, durable=durable))

    def ingest(self, name: str, *, create: bool = True, algorithm: str = "sha256") -> RemoteIngest:
        return RemoteIngest(self._opened("ingest", name, create=create, algorithm=algorithm), keep=True)

    def follow(self, name: str) -> RemoteGrowing:
        return RemoteGrowing(self._opened("follow", name))

    def ingests(self) -> Iterator[str]:
        return iter(self._call("ingests"))

    def discard(self, name: str) -> bool:
        return bool(self._call("discard", name))

    def sweep_ingests(self, older_than: float, *, keep: Collection[str] = ()) -> list[str]:
        return list(self._call("sweep_ingests", older_than, keep=list(keep)))

    def quarantine(self, digest: Digest, at: int) -> QuarantinedBlob:
        found: QuarantinedBlob = self._call("quarantine", digest, at)
        return found

    def quarantined(self, digest: Digest | None = None) -> Iterator[QuarantinedBlob]:
        return iter(self._call("quarantined", digest))

    def delete_quarantined(self, blob: QuarantinedBlob) -> None:
        self._call("delete_quarantined", blob)


class _NoThrottle:
    chunk = 1 << 20

    def take(self, count: int) -> None:
        pass


_NO_THROTTLE: Final = _NoThrottle()


class RemoteRanges:
    """Some content of the server's, each range of which is read in a thread, as from a store that blocks."""

    def __init__(self, blobs: RemoteBlobs, digest: Digest, in_thread: InThread) -> None:
        self._call = blobs._opened("snapshot", digest)
        self._in_thread = in_thread
        self.size = int(self._call("size"))

    async def read(self, position: int, count: int) -> bytes:
        found: bytes = await self._in_thread(self._call, "read", position, count)
        return found

    async def file_with(self, position: int, count: int) -> None:
        pass

    def close(self) -> None:
        self._call.close()


class RemoteGrowing:
    """Content on its way in, to be read."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._lock = threading.Lock()

    def _ask(self, name: str, *arguments: Any) -> Any:
        with self._lock:
            return self._call(name, *arguments)

    def size(self) -> int:
        return int(self._ask("size"))

    def read(self, position: int, count: int) -> bytes:
        found: bytes = self._ask("read", position, count)
        return found

    def is_arriving(self) -> bool:
        return bool(self._ask("is_arriving"))

    def is_stored_as(self, digest: Digest) -> bool:
        return bool(self._ask("is_stored_as", digest))

    def close(self) -> None:
        with self._lock:
            self._call.close()


class RemoteIngest:
    """New content on its way in."""

    def __init__(self, call: _Call, *, keep: bool) -> None:
        self._call = call
        self._keep = keep
        self._offset = call.offset or 0

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            return self._call(name, *arguments)
        finally:
            self._offset = self._offset if self._call.offset is None else self._call.offset

    waits = False

    @property
    def offset(self) -> int:
        return self._offset

    def has_room(self) -> bool:
        return True

    def save(self) -> None:
        self._ask("save")

    def resume(self, offset: int, known: Digest | None = None) -> None:
        self._ask("resume", offset, known)

    def write(self, chunk: Chunk, done: Callable[[], None] | None = None) -> None:
        self._ask("write", bytes(chunk))
        if done is not None:
            done()

    def write_all(self, chunks: Sequence[Chunk]) -> None:
        self._ask("write_all", [bytes(chunk) for chunk in chunks])

    def digest(self, algorithm: str | None = None) -> Digest:
        found: Digest = self._ask("digest", algorithm)
        return found

    def commit(self, digest: Digest, size: int | None = None) -> None:
        try:
            self._ask("commit", digest, size)
        finally:
            self._call.close()

    def abort(self) -> None:
        with contextlib.suppress(StorageError):  # it was ended before
            self._ask("abort")
        self._call.close()

    def close(self) -> None:
        with contextlib.suppress(StorageError):  # it was ended before
            self._ask("close")
        self._call.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._keep:
            self.close()
        else:
            self.abort()


def install(address: str) -> None:
    """Make this process, and the jobs' process that it starts, keep what registries hold in memory."""
    from functools import partial

    from digestry import backend
    from digestry.registry import server

    def open_blobs(root: Path) -> BlobStore:
        return RemoteBlobs(address, root)

    vars(backend)["open_layout"] = open_blobs
    vars(server)["jobs"] = partial(_jobs, address)


def _jobs(address: str, *arguments: Any) -> Any:
    from digestry.registry.jobs import jobs

    install(address)
    return jobs(*arguments)


VARIABLE: Final = "DIGESTRY_TESTS_MEMORY"
"""The environment variable that tells :mod:`tests.fork_server` where the stores in memory are."""
