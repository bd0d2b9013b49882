"""JSON files: one document, several in a row, or one a line.

Documents of one line each are read one line at a time; anything else is read whole. An unreadable document is
a fault with its position, and the rest is still read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeAlias

import msgspec

from digestry.errors import TooLarge
from digestry.inventory.formats.locations import Document, Lines, SourceLocation, Text

_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}"]', re.DOTALL)
_AT_BYTE: Final = re.compile(r" \(byte (\d+)\)$")
_START: Final = re.compile(rb"^[ \t]*[\[{]", re.MULTILINE)
_BLANK: Final = re.compile(rb"[ \t\r\n]*")
# Whole documents that are printed for people end with a bracket that begins a line.
_ENDS: Final = {ord("{"): b"\n}", ord("["): b"\n]"}
_OPEN: Final = (b"{", b"[", b",", b":")

_any: Final = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that cannot be read. ``where`` is its position, such as ``line 3, column 7``."""

    where: str
    message: str


Entry: TypeAlias = tuple[SourceLocation, int, msgspec.Raw]
"""A document or an entry of one: its place, its index there, and its bytes."""


class Input:
    """The lines of a file, counted; :class:`TooLarge` is raised at ``limit`` bytes."""

    def __init__(self, file: BinaryIO, limit: int, *, after: int = 0) -> None:
        """``after`` is the number of lines that came before those of ``file``."""
        self._file = file
        self._limit = limit
        self._read = 0
        self.number = after
        """The number of the line that was read last."""

    def line(self) -> bytes:
        """Return the next line, with its end; empty at the end of the file."""
        line = self._file.readline(self._limit - self._read + 1)
        self._count(line)
        self.number += 1
        return line

    def rest(self, begun: bytes = b"") -> bytes:
        """Return ``begun`` and everything that is left."""
        if begun and self._file.seekable():
            # Read again, so that it need not be copied together.
            self._file.seek(-len(begun), io.SEEK_CUR)
            self._read -= len(begun)
            begun = b""
        rest = self._file.read(self._limit - self._read + 1)
        self._count(rest)
        return begun + rest if begun else rest

    def piece(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end of the file. Lines are not counted."""
        piece = self._file.read(min(size, self._limit - self._read + 1))
        self._count(piece)
        return piece

    def mark(self) -> tuple[int, int, int] | None:
        """Return the present position, for :meth:`back`; None if the file cannot be read again from there."""
        return (self._file.tell(), self._read, self.number) if self._file.seekable() else None

    def back(self, mark: tuple[int, int, int]) -> None:
        """Go back to ``mark``, and read on from there."""
        offset, self._read, self.number = mark
        self._file.seek(offset)

    def _count(self, part: bytes) -> None:
        self._read += len(part)
        if self._read > self._limit:
            raise TooLarge(f"longer than {self._limit} bytes", limit=self._limit)


def read_documents(source: Input, first: bytes) -> Iterator[Entry | Fault]:
    """Yield every document of ``source``, after its first non-blank line, ``first``, was read.

    Raises ``OSError``, and :class:`TooLarge`.
    """
    begins = source.number
    if _is_json(first):
        yield from _lines(source, first)
    else:
        yield from _whole(Text(source.rest(first), begins))


def _is_json(text: bytes) -> bool:
    return not isinstance(_decoded(text), Exception)


def _decoded(text: bytes | memoryview) -> msgspec.Raw | Exception:
    try:
        return _any.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return error


def _lines(source: Input, line: bytes) -> Iterator[Entry | Fault]:
    place = Lines()
    while line:
        if not line.isspace():
            raw = _decoded(line)
            stripped = line.strip() if isinstance(raw, Exception) else b""
            if not isinstance(raw, Exception):
                yield place, source.number, raw
            elif stripped.endswith(_OPEN):
                # A document of many lines: these, and all that follow, are read whole.
                yield from _whole(Text(source.rest(line), source.number))
                return
            elif _are_several(stripped):
                yield from _whole(Text(line, source.number))  # several documents on one line
            else:
                yield Fault(f"line {source.number}", f"not JSON: {_reason(raw)}")
        line = source.line()


def _whole(text: Text) -> Iterator[Entry | Fault]:
    content = text.content
    raw = _decoded(content)
    if not isinstance(raw, Exception):
        yield Document(text, _skip_blank(content, 0)), 0, raw
        return
    if isinstance(raw, RecursionError):
        yield Fault(f"line {text.first}", "not JSON that can be read: nested too deeply")
        return
    view = memoryview(content)
    closers: dict[int, int] = {}
    position = _skip_blank(content, 0)
    while position < len(content):
        if content[position] not in _ENDS:
            yield Fault(_at(text, position), "not JSON: neither { nor [ begins a document here")
            position = _next_start(content, position)
            continue
        end = _printed_end(content, position, closers) or _bracket_end(content, position)
        raw = _decoded(view[position : len(content) if end is None else end])
        if isinstance(raw, Exception):
            match = _AT_BYTE.search(str(raw))
            offset = position + (int(match[1]) if match else 0)
            yield Fault(_at(text, min(offset, len(content))), f"not JSON: {_reason(raw)}")
        else:
            yield Document(text, position), 0, raw
        if end is None:
            return
        position = _skip_blank(content, end)


def _at(text: Text, offset: int) -> str:
    return f"line {text.line(offset)}, column {text.column(offset)}"


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return _AT_BYTE.sub("", str(error)).removeprefix("JSON is malformed: ")


def _skip_blank(content: bytes, position: int) -> int:
    match = _BLANK.match(content, position)
    return position if match is None else match.end()


def _next_start(content: bytes, position: int) -> int:
    match = _START.search(content, content.find(b"\n", position) + 1 or len(content))
    return len(content) if match is None else match.end() - 1


def _printed_end(content: bytes, start: int, closers: dict[int, int]) -> int | None:
    """Return the end of a document that was printed over many lines, if one begins at ``start``.

    ``closers`` keeps, for each opening bracket, where its next closing one begins a line.
    """
    bracket = content[start]
    found = closers.get(bracket, -1)
    if found < start:
        found = content.find(_ENDS[bracket], start)
        closers[bracket] = found = len(content) if found < 0 else found
    if found == len(content):
        return None
    end = found + 2
    return end if not isinstance(_decoded(memoryview(content)[start:end]), Exception) else None


def _bracket_end(content: bytes, start: int) -> int | None:
    """Return the offset after the bracket that closes the one at ``start``; None if none does."""
    depth = 0
    for token in _TOKEN.finditer(content, start):
        text = token[0]
        if text in (b"{", b"["):
            depth += 1
        elif text in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return token.end()
        elif text == b'"':  # a string that does not end
            return None
    return None


def _are_several(line: bytes) -> bool:
    """Return whether one line has several documents."""
    end = _bracket_end(line, 0) if line[0] in _ENDS else None
    return end is not None and end < len(line) and _is_json(line[:end])
