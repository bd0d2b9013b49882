"""``Range`` and ``If-Range``: the parts of some content that a response has (RFC 9110, section 14)."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from digestry.errors import StorageError
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange

MOST_RANGES: Final = 1024
"""In one request. Clients of zstd:chunked begin with so many; more are refused."""

_BYTES: Final = re.compile(r"bytes[ \t]*=(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)
_RANGE: Final = re.compile(r"[ \t]*([0-9]*)[ \t]*-[ \t]*([0-9]*)[ \t]*", re.ASCII)
_DIGITS: Final = 19
_BEYOND: Final = 10**_DIGITS
"""Larger than every size, for numbers that are too long to be read."""
_GATHERED: Final = 64 << 10

FileWith = Callable[[int, int], Awaitable[tuple[int, int] | None]]
"""Called with a position and the last byte that is wanted. Returns the descriptor of a file with the bytes
from ``position`` on, and how many of them are to be sent from it; None if they are to be read."""


class Part(NamedTuple):
    """The bytes ``first`` to ``last`` of the content, and the head that precedes them."""

    head: bytes
    first: int
    last: int


class RangeSelection(NamedTuple):
    """The shape of an answer: its status, additional headers, parts, and end.

    ``media_type`` is None for the content's own. ``length`` is of the whole body, in bytes.
    """

    status: int
    length: int
    parts: tuple[Part, ...]
    content_range: bytes | None = None
    media_type: bytes | None = None
    foot: bytes = b""

    @property
    def whole(self) -> bool:
        """Whether it is the whole content, as without a request for ranges."""
        return self.status == 200

    def headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return ``headers`` of the whole content, adapted to this response."""
        if self.whole:
            return headers
        media_type = self.media_type
        if media_type is None:
            result = list(headers)
        else:
            result = [(name, media_type if name == b"content-type" else value) for name, value in headers]
        if self.content_range is not None:
            result.append((b"content-range", self.content_range))
        return result

    def body(self, content: bytes) -> bytes:
        """Return the body of the answer, made of the whole ``content``."""
        if self.whole:
            return content
        parts = [part.head + content[part.first : part.last + 1] for part in self.parts]
        return b"".join((*parts, self.foot))


def choose(exchange: Exchange, size: int, *, etag: str, media_type: str) -> RangeSelection:
    """Return the parts of ``size`` bytes with ``etag``, quotes included, that the answer to a GET has.

    Raises :class:`ErrorResponse` 416 if there are no such bytes, and for more than :data:`MOST_RANGES`
    ranges. Ranges that overlap are sent once, so that no answer is larger than the content. A header that is
    not a range of bytes, or not well-formed, is ignored: the answer is then the whole.
    """
    header = exchange.header(b"range")
    if header is None or exchange.header(b"if-range") not in {None, etag}:
        return _whole(size)
    given = [name for name, _ in exchange.scope["headers"] if name == b"range"]
    ranges = parse(header, size) if len(given) == 1 else None
    if ranges is None:
        return _whole(size)
    ranges = _merged(ranges)
    if len(ranges) == 1:
        first, last = ranges[0]
        return RangeSelection(
            206, last - first + 1, (Part(b"", first, last),), b"bytes %d-%d/%d" % (first, last, size)
        )
    return _multipart(ranges, size, media_type.encode("latin-1"))


def _whole(size: int) -> RangeSelection:
    return RangeSelection(200, size, (Part(b"", 0, size - 1),))


def parse(header: str, size: int) -> list[tuple[int, int]] | None:
    """Return the first and last byte of each range that ``header`` asks for and that there is, in its order.

    None for the whole: another unit than bytes, or no list of ranges. Raises :class:`ErrorResponse` 416.
    """
    unit = _BYTES.fullmatch(header.strip(" \t"))
    if unit is None:
        return None
    texts = [text for text in unit[1].split(",") if text.strip(" \t")]  # empty ones count for nothing (5.6.1)
    if not texts:
        return None
    if len(texts) > MOST_RANGES:
        raise _refused(size, f"{len(texts)} ranges are too many for one request; {MOST_RANGES} are allowed")
    found: list[tuple[int, int]] = []
    backwards = suffix = False
    for text in texts:
        match = _RANGE.fullmatch(text)
        if match is None or not (match[1] or match[2]):
            return None
        if not match[1]:
            length = _number(match[2])
            suffix = suffix or length > 0
            first, last = max(0, size - length), size - 1
        else:
            first, last = _number(match[1]), _number(match[2]) if match[2] else _BEYOND
            backwards = backwards or last < first
            last = min(last, size - 1)
        if first <= last:
            found.append((first, last))
    if backwards or (not found and (size or not suffix)):
        raise _refused(size, f"the content has {size} bytes: the range is not in it")
    # The end of nothing is there, but 206 has no words for it.
    return found or None


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return _BEYOND if len(digits) > _DIGITS else int(digits or "0")


def _refused(size: int, message: str) -> ErrorResponse:
    return ErrorResponse(416, "SIZE_INVALID", message, headers={"Content-Range": f"bytes */{size}"})


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges in their order, with overlapping ones merged (15.3.7.2).

    Neighbours stay two: some clients count the parts.
    """
    merged: list[list[int]] = []  # first, last, place of the earliest
    for place, (first, last) in sorted(enumerate(ranges), key=lambda item: item[1]):
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
            merged[-1][2] = min(merged[-1][2], place)
        else:
            merged.append([first, last, place])
    merged.sort(key=lambda item: item[2])
    return [(first, last) for first, last, _ in merged]


def _multipart(ranges: list[tuple[int, int]], size: int, media_type: bytes) -> RangeSelection:
    boundary = os.urandom(16).hex().encode()
    parts: list[Part] = []
    length = 0
    for first, last in ranges:
        head = b"\r\n--%s\r\nContent-Type: %s\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (
            boundary,
            media_type,
            first,
            last,
            size,
        )
        parts.append(Part(head, first, last))
        length += len(head) + last - first + 1
    foot = b"\r\n--%s--\r\n" % boundary
    return RangeSelection(
        206,
        length + len(foot),
        tuple(parts),
        media_type=b"multipart/byteranges; boundary=" + boundary,
        foot=foot,
    )


async def send(
    exchange: Exchange,
    selection: RangeSelection,
    read: Callable[[int, int], Awaitable[bytes]],
    *,
    file_with: FileWith | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Send the body of an answer that has begun.

    ``read(position, last)`` returns at least one byte of the content from ``position`` on, none after
    ``last``. Where the server can send files, ``file_with`` is asked first, for more than a few bytes. Once
    ``stopped`` says so, nothing more is sent.
    """
    if not exchange.sends_files:
        file_with = None
    left = selection.length
    gathered = bytearray()
    for part in selection.parts:
        position = part.first
        gathered += part.head
        while position <= part.last:
            if stopped():
                return
            if file_with is not None and part.last - position >= _GATHERED:
                found = await file_with(position, part.last)
                if found is not None:
                    if gathered:
                        left -= len(gathered)
                        await exchange.send_body(bytes(gathered), more=True)
                        gathered.clear()
                    file, count = found
                    left -= count
                    await exchange.send_file(file, position, count, more=left > 0)
                    position += count
                    continue
            content = await read(position, part.last)
            if not content:
                raise StorageError(f"content that is being sent ends before byte {position}")
            position += len(content)
            if gathered or (position > part.last and len(content) < min(_GATHERED, left)):
                gathered += content
                if len(gathered) < min(_GATHERED, left):
                    continue
                content, gathered = bytes(gathered), bytearray()
            left -= len(content)
            await exchange.send_body(content, more=left > 0)
    gathered += selection.foot
    if left or not selection.length:
        await exchange.send_body(bytes(gathered))
