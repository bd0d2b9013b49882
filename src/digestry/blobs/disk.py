"""Content on a disk, as the ``blobs`` directory of an OCI image layout (image-spec, image-layout.md).

::

    ROOT/oci-layout                   makes ROOT a layout that other tools can read
    ROOT/blobs/registry-id            which registry it is of: see :meth:`DiskBlobs.mark`
    ROOT/blobs/<algorithm>/<hex>      content; a name here means: complete, checked, durable
    ROOT/ingest/<name>                content on its way in
    ROOT/guards/<two digits>          locks: see :meth:`DiskBlobs.guard`
    ROOT/quarantine/<algorithm>/<hex>.<time>   what was found not to be what its name said
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from digestry.blobs.protocols import SMALL
from digestry.blobs.verify import wrong_hash
from digestry.errors import Conflict, DigestMismatch, NotFound, StorageError, TooLarge
from digestry.fsio import (
    Lock,
    locked,
    make_directory,
    move,
    open_regular,
    read_file,
    remove_file,
    storage_error,
    storage_errors,
    sweep_temporaries,
    sync_directory,
    write_file,
)
from digestry.model.digest import ALGORITHMS, Digest, shown

if TYPE_CHECKING:
    from digestry.blobs.ingest import DiskIngest

MARK_FILE: Final = "registry-id"
_MARK: Final = re.compile(rb"\s*([0-9a-f]{32})\s+([0-9]{1,18})\s*", re.ASCII)
_LONGEST_MARK: Final = 256

LAYOUT_FILE: Final = "oci-layout"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
NO_FILE: Final = frozenset({errno.ENXIO, errno.ENODEV})
"""How the kernel refuses to open a socket, or a device that does not exist."""

_AGAIN: Final = "pull or push the image that holds it once more: that replaces the damaged file"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class StoreMark:
    """Which registry the content is of, and how recent its catalog was when that was noted last."""

    id: str
    generation: int


class DiskBlobs:
    """A content store in one directory. Nothing is touched before a method is called.

    Safe to use from many threads and many processes at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        # A Path costs more to make than a small blob to read.
        self._folders = {algorithm: f"{self._blobs / algorithm}/" for algorithm in ALGORITHMS}
        self._ingest = root / "ingest"
        self._guards = root / "guards"
        self._quarantine = root / "quarantine"

    def prepare(self) -> None:
        """Makes the directories and the layout file where they are missing, durably."""
        for algorithm in ALGORITHMS:
            make_directory(self._blobs / algorithm)
        make_directory(self._ingest)
        sweep_temporaries(self._blobs, older_than=0)
        # Who made them may have been killed before the names were on disk.
        for directory in (self._blobs, self.root):
            sync_directory(directory)
        marker = self.root / LAYOUT_FILE
        with storage_errors("look at", marker):
            missing = not marker.exists()
        if missing:
            write_file(marker, LAYOUT)

    # -- whose it is ------------------------------------------------------------------------

    @property
    def mark_file(self) -> Path:
        """Where :meth:`mark` is kept: with the content, so that it goes where that goes."""
        return self._blobs / MARK_FILE

    def mark(self) -> StoreMark | None:
        """Return which registry the content is of; None if that was never noted.

        Raises :class:`StorageError`, also if the file says something else.
        """
        path = self.mark_file
        with storage_errors("read", path):
            try:
                text = read_file(path, _LONGEST_MARK)
            except FileNotFoundError:
                return None
        found = _MARK.fullmatch(text)
        if found is None:
            raise StorageError(f"{path} does not say which registry the content is of: it is damaged")
        return StoreMark(found[1].decode(), int(found[2]))

    def set_mark(self, mark: StoreMark) -> None:
        """Note, durably, which registry the content is of."""
        if self.mark() == mark:
            return
        make_directory(self._blobs)
        write_file(self.mark_file, f"{mark.id} {mark.generation}\n".encode(), mode=0o600)

    # -- reading ----------------------------------------------------------------------------

    def path(self, digest: Digest) -> Path:
        """Where the content is, or would be."""
        return self._blobs / digest.algorithm / digest.encoded

    def stat(self, digest: Digest) -> int | None:
        """The content's size in bytes; None if it is not here."""
        path = self.path(digest)
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at", path, error) from error

    def open(self, digest: Digest) -> BinaryIO:
        """The content as a file, unverified.

        Raises :class:`NotFound`, :class:`DigestMismatch` if what has its name is no file, and
        :class:`StorageError`.
        """
        return os.fdopen(self._descriptor(digest), "rb")

    def _descriptor(self, digest: Digest) -> int:
        try:
            # Without O_NONBLOCK, a pipe in a file's place would be waited for.
            descriptor = os.open(
                self._folders[digest.algorithm] + digest.encoded, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except FileNotFoundError as error:
            raise NotFound(f"{digest} is not in {self.root}") from error
        except OSError as error:
            if error.errno in NO_FILE:
                raise self._no_file(self.path(digest)) from error
            raise storage_error("open", self.path(digest), error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._no_file(self.path(digest))
        return descriptor

    def read(self, digest: Digest, *, limit: int = SMALL) -> bytes:
        """The whole content, verified; see :meth:`BlobReader.read` for what it raises."""
        descriptor = self._descriptor(digest)
        try:
            content = _read_up_to(descriptor, limit + 1)
        except OSError as error:
            raise storage_error("read", self.path(digest), error) from error
        finally:
            os.close(descriptor)
        if len(content) > limit:
            raise TooLarge(
                f"{digest} in {self.root} is larger than the {limit} bytes that are read at once", limit=limit
            )
        hasher = digest.hasher()
        hasher.update(content)
        self._check(digest, hasher.hexdigest())
        return content

    def verify(self, digest: Digest) -> int:
        """Reads the content again and returns its size in bytes.

        Raises :class:`DigestMismatch` if it is damaged, :class:`NotFound`, :class:`StorageError`.
        """
        hasher = digest.hasher()
        buffer = bytearray(1 << 20)
        view = memoryview(buffer)
        size = 0
        with self.open(digest) as file, storage_errors("read", self.path(digest)):
            while count := os.readv(file.fileno(), [buffer]):
                hasher.update(view[:count])
                size += count
        self._check(digest, hasher.hexdigest())
        return size

    def _check(self, digest: Digest, found: str) -> None:
        if found != digest.encoded:
            raise DigestMismatch(
                f"{self.path(digest)} is damaged: its bytes hash to {digest.algorithm}:{found};"
                " they were not used",
                hint=_AGAIN,
            )

    @staticmethod
    def _no_file(path: Path) -> DigestMismatch:
        return DigestMismatch(f"{path} is damaged: it is no regular file", hint=_AGAIN)

    def digests(self) -> Iterator[Digest]:
        """All content that is here, in no order; files that are no blobs are passed over."""
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

    def guard(
        self, digest: Digest, *, exclusive: bool = False, wait: bool = True
    ) -> AbstractContextManager[Lock]:
        """Keeps the bytes of ``digest`` where they are, or with ``exclusive`` lets them be removed.

        Who makes content visible holds it shared from before :meth:`Ingest.commit` until the catalog
        has committed; who removes bytes that the catalog holds no more holds it exclusively while it
        asks the catalog and removes them. Without that, bytes could go between the two steps of a
        push. Digests that begin alike share a guard. Without ``wait`` raises :class:`Conflict`.
        """
        with storage_errors("create the directory", self._guards):
            if not self._guards.is_dir():
                self._guards.mkdir(mode=0o700, exist_ok=True)
        name = self._guards / self.guarded_by(digest)
        held = f"{digest} is being pushed"
        return locked(name, shared=not exclusive, wait=wait, held=held, mode=0o600)

    def guarded_by(self, digest: Digest) -> str:
        """Which of the guards is that of ``digest``."""
        return digest.encoded[:2]

    def begin(self, digest: Digest | None = None, size: int | None = None) -> DiskIngest:
        """Starts new content under a name of its own; see :meth:`BlobWriter.begin`."""
        algorithm = digest.algorithm if digest else "sha256"
        path = self._ingest / f"new-{os.urandom(12).hex()}"
        return _ingest(self.path, path, create=True, keep=False, algorithm=algorithm, size=size)

    def ingest(
        self,
        name: str,
        *,
        offset: int | None = None,
        create: bool = True,
        known: Digest | None = None,
        algorithm: str = "sha256",
        size: int | None = None,
    ) -> DiskIngest:
        """Opens the content on its way in that is called ``name``, to go on at ``offset`` bytes.

        Bytes after ``offset`` are cut off; without one it goes on at the end. ``known`` is the
        digest of the bytes before ``offset``, from :meth:`DiskIngest.digest` of whoever wrote them:
        with it they need not be read again. At the end of a ``with`` block the bytes stay, for the
        next to open them, unless they were committed or aborted.

        Raises :class:`Conflict` while another has it open, :class:`NotFound` without ``create`` if
        it is not there, :class:`StorageError` if it is shorter than ``offset``.
        """
        return _ingest(
            self.path,
            self._named(name),
            create=create,
            keep=True,
            offset=offset,
            known=known,
            algorithm=algorithm,
            size=size,
        )

    def ingest_size(self, name: str) -> int | None:
        """How many bytes are on their way in as ``name``; None if there is no such thing."""
        path = self._named(name)
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at", path, error) from error

    def open_ingest(self, name: str) -> BinaryIO:
        """The content on its way in as ``name``, to be read while another writes it; unverified.

        Raises :class:`NotFound`, :class:`StorageError`.
        """
        path = self._named(name)
        try:
            return os.fdopen(open_regular(path), "rb")
        except FileNotFoundError as error:
            raise NotFound(f"{name} is not on its way in") from error
        except OSError as error:
            raise storage_error("open", path, error) from error

    def discard(self, name: str) -> bool:
        """Forgets the bytes on their way in as ``name``; False if there are none.

        Raises :class:`Conflict` while somebody writes them.
        """
        try:
            self.ingest(name, create=False).abort()
        except NotFound:
            return False
        return True

    def ingests(self) -> Iterator[str]:
        """The names of all content on its way in, abandoned or not."""
        with storage_errors("list", self._ingest):
            try:
                names = os.listdir(self._ingest)  # noqa: PTH208 - as above
            except FileNotFoundError:
                return
        yield from (name for name in names if _NAME.fullmatch(name))

    def sweep_ingests(self, older_than: float, *, keep: Collection[str] = ()) -> list[str]:
        """Removes what nobody has written to for ``older_than`` seconds, and returns the names.

        That is what a killed process leaves behind. What somebody has open stays, and so does what
        ``keep`` names.
        """
        swept: list[str] = []
        for name in self.ingests():
            if name in keep:
                continue
            path = self._ingest / name
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
        """Stores some small content durably and returns its digest; see :meth:`BlobWriter.put`."""
        algorithm = digest.algorithm if digest else "sha256"
        found = Digest.of(content, algorithm)
        if digest is not None and found != digest:
            raise wrong_hash(digest, found)
        with self.begin(found, len(content)) as ingest:
            ingest.write(content)
            ingest.commit(found, len(content))
        return found

    def delete(self, digest: Digest, *, durable: bool = True) -> bool:
        """Removes the content; False if it was not there. Without ``durable`` a power loss may bring it
        back, whole: for who removes a lot, and looks again later."""
        return remove_file(self.path(digest), durable=durable)

    def set_aside(self, digest: Digest, at: int) -> Path:
        """Moves the file of ``digest``, which is not what it should be, out of the way, durably.

        Returns where it is now: it is kept, for people to look at. ``at`` goes into its name. Under
        :meth:`guard`, held exclusively.
        """
        directory = self._quarantine / digest.algorithm
        make_directory(directory)
        while os.path.lexists(aside := directory / f"{digest.encoded}.{at}"):
            at += 1
        move(self.path(digest), aside)
        return aside

    def aside(self, digest: Digest) -> list[Path]:
        """The files that were set aside as damaged content of ``digest``, oldest first."""
        directory = self._quarantine / digest.algorithm
        with storage_errors("list", directory):
            return sorted(directory.glob(f"{digest.encoded}.*"))

    def all_aside(self) -> Iterator[tuple[Digest, Path]]:
        """Every file that was set aside, and the digest that it was found under."""
        for algorithm, width in ALGORITHMS.items():
            directory = self._quarantine / algorithm
            with storage_errors("list", directory):
                names = os.listdir(directory) if directory.is_dir() else []  # noqa: PTH208 - as above
            for name in names:
                encoded = name.partition(".")[0]
                if len(encoded) == width and _HEX.issuperset(encoded) and not (directory / name).is_dir():
                    yield Digest(algorithm, encoded), directory / name

    def _named(self, name: str) -> Path:
        # A name becomes a path: one that could leave the directory is a defect of the caller's.
        if not _NAME.fullmatch(name):
            raise StorageError(f"{shown(name)} cannot name content in {self._ingest}")
        return self._ingest / name


def _ingest(*arguments: Any, **options: Any) -> DiskIngest:
    # Listing images must start fast, and needs none of what writing needs.
    from digestry.blobs.ingest import DiskIngest  # noqa: PLC0415

    return DiskIngest(*arguments, **options)


def _read_up_to(descriptor: int, most: int) -> bytes:
    """Return the file's first ``most`` bytes, or all if it has fewer."""
    content = os.read(descriptor, most)
    if len(content) == most or not content:
        return content
    parts = [content]  # a read may return less than there is
    left = most - len(content)
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
