"""Write tar archives reproducibly: the same entries give the same bytes everywhere.

The format is GNU's. Its names are bytes of any length, so that names need not be UTF-8 and no reader has to
guess a character set. The standard library's ``tarfile`` is not used, so that a digest does not depend on the
version of Python.
"""

from __future__ import annotations

import stat
from typing import Final

from digestry.errors import InvalidConfiguration

BLOCK: Final = 512
_NAME_FIELD: Final = 100
_OCTAL_LIMIT: Final = 8**11
LATEST_TIME: Final = _OCTAL_LIMIT - 1
"""The newest modification time that every reader understands, in seconds since 1970 (year 2242)."""

REGULAR: Final = b"0"
SYMLINK: Final = b"2"
DIRECTORY: Final = b"5"
_LONG_NAME: Final = b"L"
_LONG_LINK: Final = b"K"
END: Final = bytes(2 * BLOCK)


def header(name: bytes, kind: bytes, *, mode: int, size: int, mtime: int, link: bytes = b"") -> bytes:
    """Return the blocks before an entry's content. The owner is 0:0 and has no name.

    ``name`` has no leading ``/``; a directory's gets its ``/`` here. ``size`` is in bytes,
    ``mtime`` in seconds since 1970.
    """
    if kind == DIRECTORY:
        name += b"/"
    blocks = b""
    if len(link) > _NAME_FIELD:
        blocks += _long(_LONG_LINK, link)
    if len(name) > _NAME_FIELD:
        blocks += _long(_LONG_NAME, name)
    return blocks + _block(name, kind, mode=mode, size=size, mtime=mtime, link=link)


def long_name(name: bytes) -> bytes:
    """Return the extension header that gives the next entry a name of any length."""
    return _long(_LONG_NAME, name)


def padding(size: int) -> bytes:
    """Return the padding of the last block after ``size`` bytes of content."""
    return bytes(-size % BLOCK)


def _long(kind: bytes, value: bytes) -> bytes:
    content = value + b"\0"
    block = _block(b"././@LongLink", kind, mode=0, size=len(content), mtime=0)
    return block + content + padding(len(content))


def _block(name: bytes, kind: bytes, *, mode: int, size: int, mtime: int, link: bytes = b"") -> bytes:
    block = bytearray(BLOCK)
    block[0:_NAME_FIELD] = name[:_NAME_FIELD].ljust(_NAME_FIELD, b"\0")
    block[100:108] = _octal(mode, 8)
    block[108:116] = _octal(0, 8)
    block[116:124] = _octal(0, 8)
    block[124:136] = _octal(size, 12) if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
    block[136:148] = _octal(mtime, 12)
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link[:_NAME_FIELD].ljust(_NAME_FIELD, b"\0")
    block[257:265] = b"ustar  \0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def normal_mode(mode: int) -> int:
    """Return permissions without the bits that depend on the checkout, the umask or the user."""
    return 0o755 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o644


def source_date_epoch(text: str | None) -> int:
    """Return the time that everything in an image gets: ``SOURCE_DATE_EPOCH``, or 0 without it.

    https://reproducible-builds.org/specs/source-date-epoch/. Raises :class:`InvalidConfiguration`.
    """
    if text is None or text == "":
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > LATEST_TIME:
        raise InvalidConfiguration(
            f"SOURCE_DATE_EPOCH is {text!r}: it must be whole seconds since 1970, at most {LATEST_TIME}",
            hint="for example: SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)",
        )
    return int(text)
