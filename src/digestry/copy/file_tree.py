"""Files by their relative names: those of a directory, or of a tar file that is read in place."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Final, Protocol, TypeAlias

from digestry.errors import ContentError, DigestryError, NotFound, TooLarge
from digestry.fsio import NotRegular, open_regular, storage_error, storage_errors
from digestry.images.layer_stream import decompressed
from digestry.images.read_through import ReadThrough
from digestry.images.tar_reader import HARD_LINK, REGULAR, SYMLINK, TarEntry, TarReader
from digestry.model.digest import shown

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MOST_ENTRIES: Final = 200_000
_MOST_LINKS: Final = 8
_CHUNK: Final = 1 << 20
_LEAST_LIMIT: Final = 1 << 30
_RATIO: Final = 200
"""How many times its own size a compressed archive may inflate to, beyond ``_LEAST_LIMIT`` bytes."""
_AFTER_END: Final = 16 << 20
"""Bytes that may follow an archive's end: programs fill their last block."""

_Listing: TypeAlias = tuple[dict[str, tuple[int, int]], dict[str, str]]
"""Position and size of each file of an archive, and the targets of links, by their names."""


class FileTree(Protocol):
    """Files by relative names, such as ``blobs/sha256/…``. Thread-safe."""

    @property
    def path(self) -> Path:
        """The directory or the tar file."""
        ...

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if there is no such file."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Return a file from its first byte on. Raises :class:`NotFound` and :class:`StorageError`."""
        ...

    def close(self) -> None:
        """Close the open files."""
        ...


def read(tree: FileTree, name: str, limit: int) -> bytes:
    """Return a small file's bytes. Raises :class:`NotFound`, :class:`TooLarge` and :class:`StorageError`."""
    with tree.open(name) as file, storage_errors("read", tree.path):
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TooLarge(f"{name} in {tree.path} has more than {limit} bytes", limit=limit)
    return content


class DirectoryTree:
    """The files of a directory. Links, devices and pipes are no files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self, name: str) -> int | None:
        path = self.path / name
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise storage_error("look at", path, error) from error

    def open(self, name: str) -> BinaryIO:
        path = self.path / name
        try:
            return os.fdopen(open_regular(path), "rb")
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not there") from error
        except NotRegular as error:
            raise ContentError(f"{path} is no regular file") from error
        except OSError as error:
            raise storage_error("open", path, error) from error

    def close(self) -> None:
        """Nothing is open."""


class ArchiveTree:
    """The files of a tar file, plain or compressed; a compressed one is inflated into a file of its own.

    Links that stay inside the archive are followed, as old versions of ``docker save`` write them, and tar
    where two names have one file. Raises
    :class:`NotFound`, :class:`ContentError`, :class:`TooLarge` and :class:`StorageError`.
    """

    def __init__(self, path: Path, *, scratch: Path | None = None) -> None:
        self.path = path
        try:
            descriptor = open_regular(path)
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not there") from error
        except NotRegular as error:
            raise ContentError(f"{path} is no regular file", hint="write a pipe to a file first") from error
        except OSError as error:
            raise storage_error("open", path, error) from error
        self._file: IO[bytes] = os.fdopen(descriptor, "rb")
        try:
            self._files, self._links = self._inflated(scratch) or _list_file(self._file, path)
        except BaseException:
            self._file.close()
            raise

    def _inflated(self, scratch: Path | None) -> _Listing | None:
        """List the files of a compressed archive, whose inflated bytes replace it; None if it is plain.

        What is no archive is refused at its first block, and an entry that is too large at its header.
        """
        stored = os.fstat(self._file.fileno()).st_size
        with storage_errors("read", self.path):
            beginning = self._file.read(8)
            self._file.seek(0)
        chunks = decompressed(iter(lambda: self._file.read(_CHUNK), b""), beginning, str(self.path))
        if chunks is None:
            return None
        limit = max(_LEAST_LIMIT, stored * _RATIO)
        refusal = TooLarge(
            f"{self.path} inflates to more than {limit} bytes",
            limit=limit,
            hint="inflate it by hand if you trust it",
        )
        import tempfile  # noqa: PLC0415 - for compressed archives alone

        inflated = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - it stays open
        try:
            source = ReadThrough(chunks, inflated.write, refusal)
            with storage_errors("inflate", self.path), _named(self.path):
                entries = _up_to(limit, TarReader(source.read), source.tell, lambda _: refusal)
                found = _list(entries, source.tell, self.path)
                end = source.tell() + _AFTER_END
                while source.read(_CHUNK):
                    if source.tell() > end:
                        raise ContentError("it goes on after its end")
                inflated.flush()
        except BaseException:
            inflated.close()
            raise
        self._file.close()
        self._file = inflated
        return found

    def _find(self, name: str) -> tuple[int, int] | None:
        for _ in range(_MOST_LINKS):
            found = self._files.get(name)
            if found is not None:
                return found
            link = self._links.get(name)
            if link is None:
                return None
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name), link)).lstrip("/")
        return None

    def size(self, name: str) -> int | None:
        found = self._find(name)
        return None if found is None else found[1]

    def open(self, name: str) -> BinaryIO:
        found = self._find(name)
        if found is None:
            raise NotFound(f"{shown(name)} is not in {self.path}")
        return io.BufferedReader(FilePart(self._file.fileno(), *found), _CHUNK)

    def close(self) -> None:
        self._file.close()


class FilePart(io.RawIOBase):
    """Bytes of an open file, from a position on; the file itself is not moved."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._position = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)[: max(self._end - self._position, 0)]
        if not view:
            return 0
        count = os.preadv(self._descriptor, [view], self._position)
        self._position += count
        return count


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which file it is whose bytes are no tar archive."""
    try:
        yield
    except ContentError as error:
        if str(path) in error.message:
            raise
        said = f"{path} is no tar archive, or is damaged: {error.message}"
        raise ContentError(said, hint=error.hint) from error


def _up_to(
    end: int,
    entries: Iterable[TarEntry],
    tell: Callable[[], int],
    refuse: Callable[[TarEntry], DigestryError],
) -> Iterator[TarEntry]:
    """Yield the entries, and raise what ``refuse`` returns at the header of one that ends after ``end``."""
    for entry in entries:
        if tell() + entry.size > end:
            raise refuse(entry)
        yield entry


def _list_file(file: IO[bytes], path: Path) -> _Listing:
    """List the files of a plain archive."""

    def skip(count: int) -> None:
        file.seek(count, os.SEEK_CUR)

    def refuse(entry: TarEntry) -> ContentError:
        return ContentError(f"{path} ends in the middle of {shown(os.fsdecode(entry.name))}")

    with storage_errors("read", path), _named(path):
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        return _list(_up_to(end, TarReader(file.read, skip=skip), file.tell, refuse), file.tell, path)


def _list(entries: Iterable[TarEntry], tell: Callable[[], int], path: Path) -> _Listing:
    """List the files of an archive; ``tell`` returns the position after an entry's header."""
    files: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    for number, entry in enumerate(entries):
        if number >= _MOST_ENTRIES:
            raise TooLarge(
                f"{path} has more than {_MOST_ENTRIES} entries: it is no image", limit=_MOST_ENTRIES
            )
        name = posixpath.normpath(os.fsdecode(entry.name)).lstrip("/")
        if entry.kind in REGULAR:
            files[name] = (tell(), entry.size)
            links.pop(name, None)
        elif entry.kind == SYMLINK:
            links[name] = os.fsdecode(entry.link)
            files.pop(name, None)
        elif entry.kind == HARD_LINK:
            # Its target is named from the root of the archive (POSIX pax, "ustar", linkname).
            links[name] = f"/{os.fsdecode(entry.link)}"
            files.pop(name, None)
    return files, links
