"""The backup archive: one tar stream, written and read once from beginning to end.

Its entries are files and nothing else, in one order: the catalog, ``oci-layout``, the keys, the blobs
by their digests, ``backup.json``. So neither side has to remember earlier entries.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from digestry.blobs.ingests import Chunk
from digestry.errors import ContentError
from digestry.model.digest import shown

_CHUNK: Final = 1 << 20
_LARGEST_EXTENSION: Final = 64 << 10
_EXTENSION: Final = b"x"
_UNPACK: Final = "if it is a backup that was packed again: unpack it, and restore from the directory"
_KINDS: Final = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a directory",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
}


class ArchiveWriter:
    """A writer of entries to ``write``, a function that takes all bytes that it is given."""

    def __init__(self, write: Callable[[Chunk], object], *, mtime: int) -> None:
        self._write = write
        self._mtime = mtime
        self._written = 0

    def add(self, name: str, size: int, content: Iterable[Chunk], *, mode: int = 0o644) -> None:
        """Write an entry, whose ``content`` must have ``size`` bytes."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, mode, self._mtime
        self._put(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        for chunk in content:
            self._put(chunk)
            size -= len(chunk)
        assert size == 0  # noqa: S101 - a defect here would make all that follows unreadable
        self._fill(tarfile.BLOCKSIZE)

    def finish(self) -> None:
        """Write the end of the archive."""
        self._put(bytes(2 * tarfile.BLOCKSIZE))
        self._fill(tarfile.RECORDSIZE)

    def _put(self, chunk: Chunk) -> None:
        self._write(chunk)
        self._written += len(chunk)

    def _fill(self, unit: int) -> None:
        if rest := self._written % unit:
            self._put(bytes(unit - rest))


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A file of the archive. Its content is read before the next entry is requested."""

    name: str
    size: int


class ArchiveReader:
    """An iterator over the entries of an untrusted stream. Raises :class:`ContentError`, while iterating and
    reading, for everything that :class:`ArchiveWriter` does not write."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0
        self._pad = 0

    def __iter__(self) -> Iterator[ArchiveEntry]:
        while True:
            for _ in self.content():
                pass
            self._exactly(self._pad)
            self._pad = 0
            header = self._header()
            if header is None:
                self._end()
                return
            extended: dict[str, str] = {}
            if header.type == _EXTENSION:
                extended = self._extension(header)
                header = self._header()
                if header is None:
                    raise ContentError("the archive ends after an extension of nothing")
            name = extended.get("path", header.name)
            size = _number(extended["size"]) if "size" in extended else header.size
            if header.type != tarfile.REGTYPE:
                kind = _KINDS.get(header.type, "no file")
                raise ContentError(f"the archive's {shown(name)} is {kind}; no backup has that", hint=_UNPACK)
            if size < 0:
                raise ContentError(f"the archive's {shown(name)} has no size")
            self._left, self._pad = size, -size % tarfile.BLOCKSIZE
            yield ArchiveEntry(name, size)

    def content(self) -> Iterator[bytes]:
        """Yield the current entry's content in pieces."""
        while self._left:
            chunk = self._exactly(min(_CHUNK, self._left))
            self._left -= len(chunk)
            yield chunk

    def whole(self, entry: ArchiveEntry, limit: int) -> bytes:
        """Return the current entry's content at once. Raises :class:`ContentError` above ``limit`` bytes."""
        if entry.size > limit:
            raise ContentError(f"the archive's {entry.name} is larger than {limit} bytes")
        return b"".join(self.content())

    def _header(self) -> tarfile.TarInfo | None:
        block = self._exactly(tarfile.BLOCKSIZE)
        if not block.strip(b"\0"):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise ContentError(f"this is no archive of a backup: {error}") from error

    def _extension(self, header: tarfile.TarInfo) -> dict[str, str]:
        if not 0 < header.size <= _LARGEST_EXTENSION:
            raise ContentError(f"an extension of {header.size} bytes is in the archive; no backup has that")
        padded = self._exactly(header.size + -header.size % tarfile.BLOCKSIZE)
        rest, found = padded[: header.size], dict[str, str]()
        while rest:
            # "%d %s=%s\n", the length of all of that first (POSIX, pax).
            digits, space, _ = rest.partition(b" ")
            length = _number(digits.decode("ascii", "replace"))
            record, rest = rest[:length], rest[length:]
            key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
            if not (space and equals and len(record) == length and record.endswith(b"\n")):
                raise ContentError("an extension in the archive is broken")
            if key not in {b"path", b"size"}:
                raise ContentError(
                    f"an extension in the archive has {shown(key)}; no backup has that", hint=_UNPACK
                )
            try:
                found[key.decode()] = value.decode()
            except UnicodeDecodeError as error:
                raise ContentError("a name in the archive is not UTF-8") from error
        return found

    def _end(self) -> None:
        # To the very end: the process that writes into the pipe must not be cut off.
        while rest := self._read(_CHUNK):
            if rest.strip(b"\0"):
                raise ContentError("the archive continues after its end")

    def _exactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            part = self._read(count)
            if not part:
                raise ContentError("the archive ends early: it was cut off")
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ContentError(f"the archive has {shown(text)} for a number")
    return int(text)
