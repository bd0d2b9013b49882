"""Reading tar archives that are not trusted: ustar, GNU and PAX, as a stream, with a limit on everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from digestry.errors import ContentError

BLOCK: Final = 512
_LARGEST_EXTENSION: Final = 1 << 20
_MOST_EXTENSIONS: Final = 16  # headers before one entry: four are of use
_LONGEST_PATH: Final = 4096
_CHUNK: Final = 1 << 20
_OWNER_DIGITS: Final = 10

REGULAR: Final = frozenset({b"0", b"\0", b"7"})
HARD_LINK: Final = b"1"
SYMLINK: Final = b"2"
CHARACTER_DEVICE: Final = b"3"
BLOCK_DEVICE: Final = b"4"
DEVICES: Final = frozenset({CHARACTER_DEVICE, BLOCK_DEVICE})
DIRECTORY: Final = b"5"
FIFO: Final = b"6"
_GNU_NAME: Final = b"L"
_GNU_LINK: Final = b"K"
_PAX: Final = b"x"
_PAX_GLOBAL: Final = b"g"
_PAX_EXTENDED: Final = b"SCHILY.xattr."


@dataclass(slots=True)
class TarEntry:
    """One entry; its content is read from the reader before the next entry is requested.

    ``size`` is in bytes, ``mtime`` in seconds since 1970; names are bytes as they came. ``uid`` and ``gid``
    are -1 if they cannot be read. ``device`` is a device's major and minor number, ``extended`` the extended
    attributes by their names.
    """

    name: bytes
    kind: bytes
    mode: int
    size: int
    mtime: float
    link: bytes = b""
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    extended: dict[bytes, bytes] | None = None
    blocks: bytes = b""
    """The header as it came, with the extension headers before it, if the reader keeps them."""


@dataclass(slots=True)
class _Overrides:
    """The values that extension headers set for the entry after them."""

    name: bytes | None = None
    link: bytes | None = None
    size: int | None = None
    mtime: float | None = None
    uid: int | None = None
    gid: int | None = None
    extended: dict[bytes, bytes] | None = None


class TarReader:
    """An iterator over a tar stream. Raises :class:`ContentError` while iterating and reading.

    Unwanted content is read, or skipped by ``skip`` if the stream is seekable. With ``keep_blocks`` each
    entry has the blocks of its headers, except for global ones.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        skip: Callable[[int], None] | None = None,
        keep_blocks: bool = False,
    ) -> None:
        self._read_some = read
        self._skip = skip
        self._keep_blocks = keep_blocks
        self._blocks: list[bytes] = []
        self._left = 0  # bytes of the current entry's content
        self._pad = 0
        self._defaults = _Overrides()

    def content(self) -> Iterator[bytes]:
        """Yield the current entry's content."""
        while self._left:
            chunk = self._exactly(min(_CHUNK, self._left))
            self._left -= len(chunk)
            yield chunk

    def __iter__(self) -> Iterator[TarEntry]:
        overrides = _Overrides()
        extensions = 0
        while True:
            self._pass_over()
            block = self._upto(BLOCK)
            if not block or not block.strip(b"\0"):
                return
            if len(block) < BLOCK:
                raise ContentError("the archive ends in the middle of a header")
            entry = _parse(block)
            if entry.kind in {_GNU_NAME, _GNU_LINK, _PAX, _PAX_GLOBAL}:
                extensions += 1
                if extensions > _MOST_EXTENSIONS:
                    raise ContentError(
                        f"the archive has more than {_MOST_EXTENSIONS} extension headers before an entry"
                    )
                content = self._extend(entry, overrides)
                if self._keep_blocks and entry.kind != _PAX_GLOBAL:
                    self._blocks += [block, content, bytes(-len(content) % BLOCK)]
                continue
            self._apply(entry, overrides)
            overrides, extensions = _Overrides(), 0
            if self._keep_blocks:
                entry.blocks = b"".join([*self._blocks, block])
                self._blocks.clear()
            if entry.kind in {SYMLINK, DIRECTORY, HARD_LINK}:
                entry.size = 0
            self._left = entry.size
            self._pad = -entry.size % BLOCK
            yield entry

    def _pass_over(self) -> None:
        """Go to the end of the current entry."""
        if self._skip is not None:
            self._skip(self._left + self._pad)
            self._left = 0
        else:
            for _ in self.content():
                pass
            self._exactly(self._pad)
        self._pad = 0

    def _extend(self, entry: TarEntry, overrides: _Overrides) -> bytes:
        """Take note of an extension header, and return its content."""
        if entry.size > _LARGEST_EXTENSION:
            raise ContentError(f"the archive has an extension header of {entry.size} bytes")
        content = self._exactly(entry.size)
        self._exactly(-entry.size % BLOCK)
        if entry.kind == _GNU_NAME:
            overrides.name = content.rstrip(b"\0")
        elif entry.kind == _GNU_LINK:
            overrides.link = content.rstrip(b"\0")
        else:
            _read_pax(content, overrides if entry.kind == _PAX else self._defaults)
        return content

    def _apply(self, entry: TarEntry, overrides: _Overrides) -> None:
        for source in (self._defaults, overrides):
            entry.name = source.name if source.name is not None else entry.name
            entry.link = source.link if source.link is not None else entry.link
            entry.size = source.size if source.size is not None else entry.size
            entry.mtime = source.mtime if source.mtime is not None else entry.mtime
            entry.uid = source.uid if source.uid is not None else entry.uid
            entry.gid = source.gid if source.gid is not None else entry.gid
            entry.extended = source.extended or entry.extended
        if max(len(entry.name), len(entry.link)) > _LONGEST_PATH:
            raise ContentError(f"the archive has a path of more than {_LONGEST_PATH} bytes")

    def _upto(self, count: int) -> bytes:
        parts = []
        while count and (part := self._read_some(count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _exactly(self, count: int) -> bytes:
        content = self._upto(count)
        if len(content) != count:
            raise ContentError("the archive ends too early")
        return content


def _parse(block: bytes) -> TarEntry:
    # The checksum is of the header with spaces in its own place, and has been counted both ways.
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(rest)
    said = _number(block[148:156])
    if said != unsigned and said != unsigned - 256 * sum(byte > 127 for byte in rest):
        raise ContentError("the archive has a damaged header (wrong checksum)")
    name = block[:100].split(b"\0", 1)[0]
    kind = block[156:157]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    if kind == b"\0" and name.endswith(b"/"):
        kind = DIRECTORY  # as archives before 1988 say it
    return TarEntry(
        name,
        kind,
        _number(block[100:108]),
        _number(block[124:136]),
        float(_number(block[136:148])),
        block[157:257].split(b"\0", 1)[0],
        _owner(block[108:116]),
        _owner(block[116:124]),
        (_number(block[329:337]), _number(block[337:345])) if kind in DEVICES else (0, 0),
    )


def _owner(field_: bytes) -> int:
    # An error here does not matter unless owners are set.
    try:
        return _number(field_)
    except ContentError:
        return -1


def _number(field_: bytes) -> int:
    if field_[0] & 0x80:
        if field_[0] != 0x80:
            raise ContentError("the archive has a negative or absurd number in a header")
        return int.from_bytes(field_[1:], "big")
    text = field_.strip(b" \0")
    if not text:
        return 0
    if text.translate(None, b"01234567"):
        raise ContentError("the archive has a header with something that is no number")
    return int(text, 8)


def _read_pax(content: bytes, into: _Overrides) -> None:
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 20)
        digits = content[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise ContentError("the archive has a PAX header that cannot be read")
        end = position + int(digits)
        record = content[space + 1 : end]
        if end > len(content) or not record.endswith(b"\n") or b"=" not in record:
            raise ContentError("the archive has a PAX header that cannot be read")
        key, _, value = record[:-1].partition(b"=")
        position = end
        if key.startswith(b"GNU.sparse."):
            raise ContentError("the archive has a sparse file, which is not supported")
        _take_note(key, value, into)


def _take_note(key: bytes, value: bytes, into: _Overrides) -> None:
    """Set the value of one record of a PAX header."""
    if key == b"path":
        into.name = value
    elif key == b"linkpath":
        into.link = value
    elif key in {b"uid", b"gid"}:
        owner = int(value) if value.isdigit() and len(value) <= _OWNER_DIGITS else -1
        setattr(into, key.decode(), owner)
    elif key.startswith(_PAX_EXTENDED):
        if into.extended is None:
            into.extended = {}
        into.extended[key.removeprefix(_PAX_EXTENDED)] = value
    elif key in {b"size", b"mtime"}:
        try:
            number = float(value)
            size = int(value) if key == b"size" else 0
        except ValueError as error:
            raise ContentError("the archive has a PAX header with something that is no number") from error
        if not 0 <= number < 2**63 and key == b"size":
            raise ContentError("the archive has a PAX header with an absurd size")
        if key == b"size":
            into.size = size
        else:
            into.mtime = number
