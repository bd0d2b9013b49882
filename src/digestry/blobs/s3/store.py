"""Content in a bucket of an S3 store. Rows say which object holds which content.

::

    BUCKET/PREFIX/blobs/<random>   content, a part of it that is on its way in, or what is to be removed
    BUCKET/PREFIX/registry-id      which registry the content belongs to
"""

from __future__ import annotations

import io
import os
import re
import threading
import weakref
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Final

from digestry.blobs import registry_id_file
from digestry.blobs.bounded_read import SMALL
from digestry.blobs.failures import BytesLost
from digestry.blobs.protocols import (
    GONE,
    BlobRanges,
    InThread,
    QuarantinedBlob,
    StoreMark,
    Throttle,
    Verification,
)
from digestry.blobs.put_each import put_each
from digestry.blobs.s3.client import S3Client
from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.credentials import find_credentials
from digestry.blobs.s3.ingest import S3Ingest
from digestry.blobs.s3.leases import IngestLeases
from digestry.blobs.s3.reader import ObjectFile, ObjectReader, S3Ranges
from digestry.blobs.s3.recent_bytes import RecentBytes
from digestry.blobs.s3.rows import IngestState, ObjectRows, QuarantinedObject, StoredObject
from digestry.blobs.s3.session import S3Session
from digestry.blobs.verify import wrong_hash
from digestry.errors import Conflict, DigestMismatch, DigestryError, NotFound, StorageError, TooLarge
from digestry.model.digest import Digest, new_hasher, shown

MARK: Final = "registry-id"
_MARK_BYTES: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_AGAIN: Final = "push an image that holds it once more: that puts it back"
_TYPE: Final = {"content-type": "application/octet-stream"}


class S3Blobs:
    """A :class:`BlobStore` in one bucket. It sends no request before a method is called.

    Safe to use from many threads, processes and hosts at once. ``open_rows`` opens the rows, once for each
    process; the credentials come from its environment.
    """

    inline_limit: Final = 0
    is_listed_in_catalog: Final = True

    def __init__(self, config: S3Config, open_rows: Callable[[], ObjectRows]) -> None:
        self.config = config
        self._open_rows = open_rows
        self._opened: tuple[int, S3Session] | None = None
        self._writing: weakref.WeakValueDictionary[str, S3Ingest] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return S3Blobs, (self.config, self._open_rows)

    @property
    def session(self) -> S3Session:
        """The state of the store that this process shares, opened at the first use."""
        process = os.getpid()  # another one after a fork
        opened = self._opened
        if opened is None or opened[0] != process:
            with self._lock:
                opened = self._opened
                if opened is None or opened[0] != process:
                    opened = self._opened = process, self._new_session()
        return opened[1]

    def _new_session(self) -> S3Session:
        client = S3Client(self.config, find_credentials(os.environ))
        return S3Session(self.config, client, self._open_rows())

    @property
    def _client(self) -> S3Client:
        return self.session.client

    def prepare(self) -> None:
        """Check that the bucket is there. Raises :class:`StorageError`."""
        if not self._client.bucket_exists():
            raise StorageError(
                f"there is no bucket {self.config.bucket} at {self.config.endpoint}",
                hint="create the bucket, or check its name",
            )

    @property
    def location(self) -> str:
        """The store's URL."""
        return self.config.location

    # -- which registry it belongs to ---------------------------------------------------------

    def instance(self) -> object:
        """Return the bucket, and which registry's content is in it."""
        mark = self.mark()
        return self.config.endpoint, self.location, None if mark is None else mark.id

    @property
    def mark_location(self) -> str:
        """The URL of the object that :meth:`mark` reads."""
        return self.session.where(self.config.key(MARK))

    def mark(self) -> StoreMark | None:
        """Return which registry the content belongs to; see :meth:`BlobStore.mark`."""
        content = self._client.read(self.config.key(MARK), _MARK_BYTES)
        return None if content is None else registry_id_file.parse(content, self.mark_location)

    def set_mark(self, mark: StoreMark) -> None:
        """Note, durably, which registry the content belongs to."""
        if self.mark() != mark:
            self._client.put(self.config.key(MARK), registry_id_file.encode(mark))

    # -- notes ------------------------------------------------------------------------------

    def note_location(self, name: str) -> str:
        """Return the URL of a note."""
        return self.session.where(self.config.key(name))

    def read_note(self, name: str, limit: int) -> bytes | None:
        """Return a note of at most ``limit`` bytes; None if there is none."""
        return self._client.read(self.config.key(name), limit)

    def write_note(self, name: str, content: bytes) -> None:
        """Write a note, durably."""
        self._client.put(self.config.key(name), content)

    # -- reading ----------------------------------------------------------------------------

    def local_path(self, digest: Digest) -> None:
        """Return None: there are no files."""

    def redirect(self, digest: Digest) -> str | None:
        """Return a URL at which the content can be read for some minutes; None if it is not here."""
        found = self.session.rows.find(digest)
        return None if found is None else self._client.presign(found.key, self.config.url_seconds, _TYPE)

    def stat(self, digest: Digest) -> int | None:
        """Return the content's size in bytes; None if it is not here."""
        found = self.session.rows.find(digest)
        return None if found is None else found.size

    def revision(self, digest: Digest) -> Hashable | None:
        """Return the key of the object that holds the content: no other content ever has it."""
        found = self.session.rows.find(digest)
        return None if found is None else found.key

    def stored_at(self, digest: Digest) -> float | None:
        """Return when the content was stored last, in seconds since 1970; None if it is not here."""
        found = self.session.rows.find(digest)
        return None if found is None else found.stored_at / 1_000_000

    def open(self, digest: Digest) -> io.BufferedReader:
        """Return the content as a seekable file, unverified; see :meth:`BlobReader.open`."""
        return io.BufferedReader(ObjectFile(self._begun(digest)), 1 << 20)

    async def open_ranges(
        self, digest: Digest, in_thread: InThread, first: int = 0, last: int | None = None
    ) -> BlobRanges:
        """Open the content for reading by ranges; see :meth:`BlobReader.open_ranges`."""
        return S3Ranges(await in_thread(self._begun, digest, first, last), in_thread)

    def _begun(self, digest: Digest, first: int = 0, last: int | None = None) -> ObjectReader:
        """Return a reader that has requested the bytes from ``first`` on."""
        found = self._find(digest)
        reader = self.session.reader(found.key, found.size)
        reader.begin(first, found.size if last is None else last + 1)
        return reader

    def _find(self, digest: Digest) -> StoredObject:
        found = self.session.rows.find(digest)
        if found is None:
            raise NotFound(f"{digest} is not in {self.location}")
        return found

    def read(self, digest: Digest, *, limit: int = SMALL) -> bytes:
        """Return the whole content, verified; see :meth:`BlobReader.read` for what it raises."""
        found = self._find(digest)
        if found.size > limit:
            raise TooLarge(
                f"{digest} in {self.location} is larger than the {limit} bytes that are read at once",
                limit=limit,
            )
        content = self._client.read(found.key, found.size)
        where = self.session.where(found.key)
        if content is None:
            raise BytesLost(f"{where} is gone from the store", hint=_AGAIN)
        hashed = Digest.of(content, digest.algorithm)
        if hashed != digest:
            raise DigestMismatch(
                f"{where} is damaged: its bytes hash to {hashed}; they were not used", hint=_AGAIN
            )
        return content

    def verify(
        self, digest: Digest, size: int | None, throttle: Throttle, *, uncached: bool = False
    ) -> Verification:
        """Read all of the content and compare it with its digest; see :meth:`BlobReader.verify`."""
        found = self.session.rows.find(digest)
        if found is None:
            return Verification(digest, None, GONE)
        present = self._client.size(found.key)
        if present is None:
            return Verification(digest, found.key, "its object is gone")
        hasher, position, problem = new_hasher(digest.algorithm), 0, None
        with self.session.reader(found.key, present) as reader:
            while position < present:
                throttle.take(min(throttle.chunk, present - position))
                piece = reader.read_at(position, throttle.chunk)
                while len(piece) < min(throttle.chunk, present - position):
                    piece += reader.read_at(position + len(piece), throttle.chunk - len(piece))
                hasher.update(piece)
                position += len(piece)
        hashed = hasher.hexdigest()
        if size is not None and present != size:
            problem = f"it has {present} bytes, not {size}"
        elif hashed != digest.encoded:
            problem = f"its bytes hash to {digest.algorithm}:{hashed}"
        return Verification(digest, found.key, problem)

    def digests(self) -> Iterator[Digest]:
        """Iterate over all content that is here, in no order."""
        return self.session.rows.digests()

    # -- writing ----------------------------------------------------------------------------

    def begin(self, digest: Digest | None = None, size: int | None = None) -> S3Ingest:
        """Start new content without a name; see :meth:`BlobWriter.begin`."""
        session = self.session
        state = IngestState(session.new_key())
        algorithm = digest.algorithm if digest else "sha256"
        holder = IngestLeases.new_holder()
        return S3Ingest(session, "", holder, state, algorithm=algorithm, size=size)

    def put(self, content: bytes, digest: Digest | None = None) -> Digest:
        """Store some small content durably and return its digest; see :meth:`BlobWriter.put`."""
        found = Digest.of(content, digest.algorithm if digest else "sha256")
        if digest is not None and found != digest:
            raise wrong_hash(digest, found)
        session = self.session
        key = session.new_key()
        etag = session.client.put(key, content)
        session.rows.store(StoredObject(found, key, len(content), etag), linger=self.config.linger)
        return found

    def put_all(self, contents: Sequence[tuple[bytes, Digest]]) -> list[DigestryError | None]:
        """Store some small contents durably; see :meth:`BlobWriter.put_all`."""
        return put_each(self, contents)

    def delete(self, digest: Digest, *, durable: bool = True) -> bool:
        """Remove the content; see :meth:`BlobWriter.delete`. Present readers can continue for a while.

        Content that was stored just now, and content that a repository has, stays.
        """
        return self.session.rows.forget(digest, linger=self.config.linger, settle=self.config.settle)

    # -- incoming content ----------------------------------------------------------------

    def ingest(self, name: str, *, create: bool = True, algorithm: str = "sha256") -> S3Ingest:
        """Open the incoming content ``name``; see :meth:`Ingests.ingest`."""
        if not _NAME.fullmatch(name):
            raise StorageError(f"{shown(name)} cannot name content in {self.location}")
        session = self.session
        holder = IngestLeases.new_holder()
        new_key = session.new_key() if create else ""
        state = session.rows.open_ingest(name, holder, seconds=self.config.lease, new_key=new_key)
        session.leases.keep(holder)
        ingest = self._writing[name] = S3Ingest(session, name, holder, state, algorithm=algorithm)
        return ingest

    def follow(self, name: str) -> RecentBytes | None:
        """Open the content that this process writes as ``name``; see :meth:`Ingests.follow`."""
        ingest = self._writing.get(name)
        return None if ingest is None else ingest.recent_bytes()

    def ingests(self) -> Iterator[str]:
        """Iterate over the names of all incoming content, abandoned or not."""
        return iter(self.session.rows.ingests())

    def discard(self, name: str) -> bool:
        """Discard the incoming content ``name``; see :meth:`Ingests.discard`."""
        try:
            self.ingest(name, create=False).abort()
        except NotFound:
            return False
        return True

    def sweep_ingests(self, older_than: float, *, keep: Collection[str] = ()) -> list[str]:
        """Discard incoming content that was not written to for ``older_than`` seconds; see :class:`Ingests`.

        Then remove the objects that are due, and, once per grace period, those without a row.
        """
        swept = []
        for name in self.session.rows.ingests(idle_for=older_than):
            if name in keep:
                continue
            try:
                if self.discard(name):
                    swept.append(name)
            except Conflict:
                continue  # it is being written after all
        self.session.removal.remove_due()
        self.session.removal.remove_orphans_if_due()
        return swept

    # -- quarantine ---------------------------------------------------------------------------

    def quarantine(self, digest: Digest, at: int) -> QuarantinedBlob:
        """Move ``digest`` to the quarantine; see :meth:`BlobQuarantine.quarantine`. Its object stays."""
        size = self._client.size(self._find(digest).key) or 0
        name = f"quarantine/{digest.algorithm}/{digest.encoded}.{at}"
        moved = self.session.rows.quarantine(digest, name, size)
        if moved is None:
            raise NotFound(f"{digest} is not in {self.location}")
        return self._quarantined_blob(moved)

    def quarantined(self, digest: Digest | None = None) -> Iterator[QuarantinedBlob]:
        """Iterate over the quarantined content; see :meth:`BlobQuarantine.quarantined`."""
        return map(self._quarantined_blob, self.session.rows.quarantined(digest))

    def delete_quarantined(self, blob: QuarantinedBlob) -> None:
        """Remove damaged content from the quarantine, durably."""
        self.session.rows.forget_quarantined(blob.name)

    def _quarantined_blob(self, moved: QuarantinedObject) -> QuarantinedBlob:
        return QuarantinedBlob(moved.digest, moved.name, self.session.where(moved.key), moved.size)
