"""Content on a disk, as the ``blobs`` directory of an OCI image layout (image-spec, image-layout.md).

::

    ROOT/oci-layout                   makes ROOT a layout that other tools can read
    ROOT/blobs/registry-id            which registry the content belongs to: see :mod:`.registry_id_file`
    ROOT/blobs/<algorithm>/<hex>      content; a name here means: complete, checked, durable
    ROOT/ingest/<name>                content on its way in
    ROOT/quarantine/<algorithm>/<hex>.<time>   what was found not to be what its name said
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from digestry.blobs.bounded_read import SMALL, read_up_to
from digestry.blobs.file_errors import NO_FILE, file_error
from digestry.blobs.layout_version import LAYOUT, LAYOUT_FILE, check_layout
from digestry.errors import Conflict, DigestMismatch, DigestryError, NotFound, StorageError, TooLarge
from digestry.fsio import (
    NotRegular,
    make_directory,
    move,
    open_sized,
    remove_file,
    storage_error,
    storage_errors,
    sweep_temporaries,
    sync_directory,
    write_file,
)
from digestry.model.digest import ALGORITHMS, Digest, shown

if TYPE_CHECKING:
    from digestry.blobs.disk_ingest import DiskIngest
    from digestry.blobs.file_verification import FileRevision
    from digestry.blobs.ingests import GrowingContent
    from digestry.blobs.protocols import (
        BlobRanges,
        BlobStore,
        InThread,
        QuarantinedBlob,
        StoreMark,
        Throttle,
        Verification,
    )

_AGAIN: Final = "pull or push the image that holds it once more: that replaces the damaged file"
_AT_ONCE: Final = 64 << 10
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_HEX: Final = frozenset("0123456789abcdef")


def open_layout(root: Path) -> BlobStore:
    """Return the store in the directory ``root``, an OCI image layout. Nothing is touched."""
    return DiskBlobs(root)


class DiskBlobs:
    """A :class:`BlobStore` in one directory. Nothing is touched before a method is called.

    Safe to use from many threads and many processes at once.
    """

    inline_limit: Final = _AT_ONCE
    is_listed_in_catalog: Final = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        # A Path costs more to make than a small blob to read.
        self._folders = {algorithm: f"{self._blobs / algorithm}/" for algorithm in ALGORITHMS}
        self._ingests = root / "ingest"
        self._quarantine = root / "quarantine"

    def prepare(self) -> None:
        """Make the directories and the layout file where they are missing, durably.

        Raises :class:`~digestry.errors.ContentError`, and makes nothing, in a layout of another version.
        """
        check_layout(self.root)
        for algorithm in ALGORITHMS:
            make_directory(self._blobs / algorithm)
        make_directory(self._ingests)
        sweep_temporaries(self._blobs, older_than=0)
        # Who made them may have been killed before the names were on disk.
        for directory in (self._blobs, self.root):
            sync_directory(directory)
        marker = self.root / LAYOUT_FILE
        with storage_errors("look at", marker):
            missing = not marker.exists()
        if missing:
            write_file(marker, LAYOUT)

    @property
    def location(self) -> str:
        """The store's directory."""
        return str(self.root)

    # -- which registry it belongs to ---------------------------------------------------------

    @property
    def mark_path(self) -> Path:
        """The file of :meth:`mark`: with the content, so that it goes where that goes."""
        from digestry.blobs import registry_id_file  # noqa: PLC0415 - as below

        return self._blobs / registry_id_file.NAME

    @property
    def mark_location(self) -> str:
        """The path of that file."""
        return str(self.mark_path)

    def mark(self) -> StoreMark | None:
        """Return which registry the content belongs to; see :meth:`BlobStore.mark`."""
        from digestry.blobs import registry_id_file  # noqa: PLC0415 - as below

        return registry_id_file.read(self.mark_path)

    def set_mark(self, mark: StoreMark) -> None:
        """Note, durably, which registry the content belongs to."""
        from digestry.blobs import registry_id_file  # noqa: PLC0415 - as below

        if self.mark() != mark:
            make_directory(self._blobs)
            registry_id_file.write(self.mark_path, mark)

    def instance(self) -> list[tuple[int, int]]:
        """Return which directories hold the content now; see :meth:`BlobStore.instance`."""
        found = []
        with storage_errors("look at", self._blobs):
            for directory in (self._blobs, *(self._blobs / algorithm for algorithm in ALGORITHMS)):
                try:
                    status = directory.stat() if directory == self._blobs else directory.lstat()
                except FileNotFoundError:
                    found.append((0, 0))
                    continue
                if stat.S_ISLNK(status.st_mode):
                    raise StorageError(
                        f"{directory} is a link, perhaps to another registry's content; nothing was removed",
                        hint=f"link {self._blobs} itself to where the content is",
                    )
                found.append((status.st_dev, status.st_ino))
        return found

    # -- reading ----------------------------------------------------------------------------

    def path(self, digest: Digest) -> Path:
        """Return the file that holds the content, or would."""
        return self._blobs / digest.algorithm / digest.encoded

    local_path = path

    def redirect(self, digest: Digest) -> None:
        """Return None: only the registry reads the directory."""

    def revision(self, digest: Digest) -> FileRevision | None:
        """Return which file holds the content; see :meth:`BlobReader.revision`."""
        from digestry.blobs.file_verification import file_revision  # noqa: PLC0415 - as below

        return file_revision(self.path(digest))

    def stored_at(self, digest: Digest) -> float | None:
        """Return when the file got its name, in seconds since 1970; None without one."""
        try:
            return self.path(digest).stat().st_ctime
        except OSError:
            return None

    def stat(self, digest: Digest) -> int | None:
        """Return the content's size in bytes; None if it is not here."""
        try:
            return os.stat(self._folders[digest.algorithm] + digest.encoded).st_size  # noqa: PTH116 - as above
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at", self.path(digest), error) from error

    def open(self, digest: Digest) -> io.BufferedReader:
        """Return the content as a file, unverified; see :meth:`BlobReader.open`."""
        return os.fdopen(self._opened(digest)[0], "rb")

    async def open_ranges(
        self, digest: Digest, in_thread: InThread, first: int = 0, last: int | None = None
    ) -> BlobRanges:
        """Open the content for reading by ranges; see :meth:`BlobReader.open_ranges`."""
        from digestry.blobs.disk_ranges import DiskRanges  # noqa: PLC0415 - as below

        return DiskRanges(self.path(digest), (await in_thread(self._opened, digest))[0], in_thread)

    def _opened(self, digest: Digest) -> tuple[int, int]:
        """Return the open file of some content, and its size."""
        try:
            return open_sized(self._folders[digest.algorithm] + digest.encoded)
        except FileNotFoundError as error:
            raise NotFound(f"{digest} is not in {self.root}") from error
        except NotRegular as error:
            raise self._no_file(self.path(digest)) from error
        except OSError as error:
            if error.errno in NO_FILE:
                raise self._no_file(self.path(digest)) from error
            raise file_error("open", self.path(digest), error) from error

    def read(self, digest: Digest, *, limit: int = SMALL) -> bytes:
        """Return the whole content, verified; see :meth:`BlobReader.read` for what it raises."""
        descriptor, size = self._opened(digest)
        try:
            content = read_up_to(descriptor, limit + 1, size)
        except OSError as error:
            raise file_error("read", self.path(digest), error) from error
        finally:
            os.close(descriptor)
        if len(content) > limit:
            raise TooLarge(
                f"{digest} in {self.root} is larger than the {limit} bytes that are read at once", limit=limit
            )
        found = digest.hash_of(content)
        if found != digest.encoded:
            raise DigestMismatch(
                f"{self.path(digest)} is damaged: its bytes hash to {digest.algorithm}:{found};"
                " they were not used",
                hint=_AGAIN,
            )
        return content

    def verify(
        self, digest: Digest, size: int | None, throttle: Throttle, *, uncached: bool = False
    ) -> Verification:
        """Read all of the content and compare it with its digest; see :meth:`BlobReader.verify`."""
        from digestry.blobs.file_verification import verify_file  # noqa: PLC0415 - as below

        return verify_file(self.path(digest), digest, size, throttle, uncached=uncached)

    @staticmethod
    def _no_file(path: Path) -> DigestMismatch:
        return DigestMismatch(f"{path} is damaged: it is no regular file", hint=_AGAIN)

    def digests(self) -> Iterator[Digest]:
        """Iterate over all content that is here, in no order; files that are no blobs are passed over."""
        for algorithm, width in ALGORITHMS.items():
            directory = self._blobs / algorithm
            with storage_errors("list", directory):
                try:
                    entries = os.scandir(directory)
                except FileNotFoundError:
                    continue
                with entries:  # read as it goes: there may be millions
                    for entry in entries:
                        if len(entry.name) != width or not _HEX.issuperset(entry.name):
                            continue
                        if not entry.is_dir(follow_symlinks=False):
                            yield Digest(algorithm, entry.name)

    # -- writing ----------------------------------------------------------------------------

    def begin(self, digest: Digest | None = None, size: int | None = None) -> DiskIngest:
        """Start new content under a name of its own; see :meth:`BlobWriter.begin`."""
        algorithm = digest.algorithm if digest else "sha256"
        path = self._ingests / f"new-{os.urandom(12).hex()}"
        return self._open_ingest(path, create=True, keep=False, algorithm=algorithm, size=size)

    def ingest(self, name: str, *, create: bool = True, algorithm: str = "sha256") -> DiskIngest:
        """Open the incoming content ``name``; see :meth:`Ingests.ingest`."""
        return self._open_ingest(self._named(name), create=create, keep=True, algorithm=algorithm, size=None)

    def _open_ingest(
        self, path: Path, *, create: bool, keep: bool, algorithm: str, size: int | None
    ) -> DiskIngest:
        # Listing images must start fast, and needs none of what writing needs.
        from digestry.blobs.disk_ingest import DiskIngest  # noqa: PLC0415

        return DiskIngest(self.path, path, create=create, keep=keep, algorithm=algorithm, size=size)

    def follow(self, name: str) -> GrowingContent:
        """Open the incoming content ``name``, for reading; see :meth:`Ingests.follow`."""
        from digestry.blobs.growing_file import GrowingFile  # noqa: PLC0415 - as above

        return GrowingFile(self._named(name), self.path)

    def discard(self, name: str) -> bool:
        """Discard the incoming content ``name``; see :meth:`Ingests.discard`."""
        try:
            self.ingest(name, create=False).abort()
        except NotFound:
            return False
        return True

    def ingests(self) -> Iterator[str]:
        """Iterate over the names of all incoming content, abandoned or not."""
        with storage_errors("list", self._ingests):
            try:
                names = os.listdir(self._ingests)  # noqa: PTH208 - as above
            except FileNotFoundError:
                return
        yield from (name for name in names if _NAME.fullmatch(name))

    def sweep_ingests(self, older_than: float, *, keep: Collection[str] = ()) -> list[str]:
        """Discard incoming content that was not written to for ``older_than`` seconds; see
        :class:`Ingests`.
        """
        swept: list[str] = []
        for name in self.ingests():
            if name in keep:
                continue
            path = self._ingests / name
            try:
                age = time.time() - path.stat().st_mtime
                if age < 0:
                    os.utime(path)  # the clock was set back since: it gets old from now on
            except OSError:
                continue  # committed or swept in the meantime
            if age < older_than:
                continue
            try:
                if self.discard(name):
                    swept.append(name)
            except Conflict:
                continue  # it is being written after all
        return swept

    def put(self, content: bytes, digest: Digest | None = None) -> Digest:
        """Store some small content durably and return its digest; see :meth:`BlobWriter.put`."""
        wanted = Digest.of(content) if digest is None else digest
        (problem,) = self.put_all([(content, wanted)])
        if problem is not None:
            raise problem
        return wanted

    def put_all(self, contents: Sequence[tuple[bytes, Digest]]) -> list[DigestryError | None]:
        """Store some small contents durably, with one fsync of each directory; see :class:`BlobWriter`."""
        from digestry.blobs.small_files import store_all  # noqa: PLC0415 - as below

        return store_all(contents, self._ingests, self.path)

    def delete(self, digest: Digest, *, durable: bool = True) -> bool:
        """Remove the content; see :meth:`BlobWriter.delete`."""
        return remove_file(self.path(digest), durable=durable)

    # -- quarantine ---------------------------------------------------------------------------

    def quarantine(self, digest: Digest, at: int) -> QuarantinedBlob:
        """Move the file of ``digest`` out of the way, durably; see :meth:`BlobQuarantine.quarantine`."""
        directory = self._quarantine / digest.algorithm
        make_directory(directory)
        while os.path.lexists(path := directory / f"{digest.encoded}.{at}"):
            at += 1
        move(self.path(digest), path)
        return self._quarantined_blob(digest, path)

    def quarantined(self, digest: Digest | None = None) -> Iterator[QuarantinedBlob]:
        """Iterate over what is in quarantine; see :meth:`BlobQuarantine.quarantined`."""
        for algorithm, width in ALGORITHMS.items():
            directory = self._quarantine / algorithm
            with storage_errors("list", directory):
                names = sorted(os.listdir(directory)) if directory.is_dir() else []  # noqa: PTH208 - as above
            for name in names:
                encoded = name.partition(".")[0]
                if len(encoded) != width or not _HEX.issuperset(encoded):
                    continue
                found = Digest(algorithm, encoded)
                if digest is None and (directory / name).is_dir():
                    continue
                if digest in {None, found}:
                    yield self._quarantined_blob(found, directory / name)

    def _quarantined_blob(self, digest: Digest, path: Path) -> QuarantinedBlob:
        from digestry.blobs.protocols import QuarantinedBlob  # noqa: PLC0415 - as above

        with storage_errors("look at", path):
            size = path.lstat().st_size
        return QuarantinedBlob(digest, str(path.relative_to(self.root)), str(path), size)

    def delete_quarantined(self, blob: QuarantinedBlob) -> None:
        """Remove a file from the quarantine, durably."""
        remove_file(self.root / blob.name)

    def _named(self, name: str) -> Path:
        # A name becomes a path: one that could leave the directory is a defect of the caller's.
        if not _NAME.fullmatch(name):
            raise StorageError(f"{shown(name)} cannot name content in {self._ingests}")
        return self._ingests / name
