"""The location in a file, computed only when a problem must name it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

_BETWEEN: Final = re.compile(rb"[ \t\r\n,]*")
_KEY: Final = re.compile(rb'[ \t\r\n,]*("(?:[^"\\]|\\.)*+")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)


class Text:
    """The bytes of a file, or of the part of it that begins on the line ``first``."""

    __slots__ = ("_counted", "_line", "content", "first")

    def __init__(self, content: bytes, first: int = 1) -> None:
        self.content = content
        self.first = first
        self._counted = 0
        self._line = first

    def line(self, offset: int) -> int:
        """Return the line of the byte at ``offset``, counting from the last requested one."""
        if offset < self._counted:
            self._counted, self._line = 0, self.first
        self._line += self.content.count(b"\n", self._counted, offset)
        self._counted = offset
        return self._line

    def column(self, offset: int) -> int:
        """Return the column of the byte at ``offset``, in bytes, from 1."""
        return offset - self.content.rfind(b"\n", 0, offset)


class SourceLocation:
    """Where the entries of one list are, or one document alone."""

    __slots__ = ("host", "kind")

    def __init__(self, host: str = "", kind: str = "") -> None:
        self.host = host
        """The host that the file names for all of them; "" if it names none."""
        self.kind = kind
        """The kind of the entries according to the list, for those that do not state it."""

    def line(self, index: int) -> int | None:
        """Return the line on which the entry ``index`` begins, or None if it is not known."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """Return the position of an entry, for people."""
        return f"line {self.line(index)}"


class Lines(SourceLocation):
    """One document a line: the index of an entry is its line."""

    __slots__ = ()

    def line(self, index: int) -> int | None:
        return index


class Document(SourceLocation):
    """One document; its only entry is 0. ``start`` is its offset in ``text``."""

    __slots__ = ("start", "text")

    def __init__(self, text: Text, start: int, host: str = "", kind: str = "") -> None:
        super().__init__(host, kind)
        self.text = text
        self.start = start

    def line(self, index: int) -> int | None:
        return self.text.line(self.offset(index))

    def offset(self, index: int) -> int:
        return self.start


class Entries(SourceLocation):
    """The entries of a list that is the value of ``key`` in ``parent``, or, without, is the parent."""

    __slots__ = ("_base", "_cursor", "_known", "_parent", "_raws", "_within")

    def __init__(
        self,
        raws: Sequence[msgspec.Raw],
        parent: tuple[SourceLocation, int],
        within: tuple[Mapping[str, msgspec.Raw], str] | None = None,
        *,
        host: str = "",
        kind: str = "",
    ) -> None:
        super().__init__(host or parent[0].host, kind)
        self._raws = raws
        self._parent = parent
        self._within = within
        self._base: int | None = None
        self._cursor = 0
        self._known = 0

    def text(self) -> Text | None:
        place = self._parent[0]
        if isinstance(place, Document):
            return place.text
        return place.text() if isinstance(place, Entries) else None

    def line(self, index: int) -> int | None:
        text, offset = self.text(), self.offset(index)
        if text is None or offset is None:
            return self._parent[0].line(self._parent[1])
        return text.line(offset)

    def where(self, index: int) -> str:
        line, outer = self.line(index), self._parent[0].line(self._parent[1])
        return f"line {line}" if line != outer else f"line {line}, entry {index + 1}"

    def offset(self, index: int) -> int | None:
        """Return the offset at which an entry begins, or None if the text is not as expected."""
        text = self.text()
        if text is None:
            return None
        if self._base is None or index < self._known:
            begin = self._begin(text)
            if begin is None:
                return None
            self._base, self._cursor, self._known = begin, begin + 1, 0
        while True:
            between = _BETWEEN.match(text.content, self._cursor)
            begin = self._cursor if between is None else between.end()
            if self._known == index:
                return begin
            self._cursor = begin + memoryview(self._raws[self._known]).nbytes
            self._known += 1

    def _begin(self, text: Text) -> int | None:
        place, index = self._parent
        offset = place.offset(index) if isinstance(place, Document | Entries) else None
        if offset is None or self._within is None:
            return offset
        values, key_of_list = self._within
        cursor = offset + 1
        # The keys are walked in their order; a key that is there twice ends the walk.
        for key, raw in values.items():
            match = _KEY.match(text.content, cursor)
            if match is None:
                return None
            cursor = match.end()
            if key == key_of_list:
                return cursor if text.content[cursor : cursor + 1] == b"[" else None
            cursor += memoryview(raw).nbytes
        return None
