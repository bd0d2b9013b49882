"""The head of an HTTP/1 response, in bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
CLOSE: Final = (b"connection", b"close")
KEEP_ALIVE: Final = (b"connection", b"keep-alive")
CHUNKED: Final = (b"transfer-encoding", b"chunked")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Date:
    """The field ``Date``, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        """Return the field's line."""
        now = int(time.time())
        if now != self._second:
            self._line = b"date: %b\r\n" % formatdate(now, usegmt=True).encode()
            self._second = now
        return self._line


_DATE: Final = _Date()


def encode_head(status: int, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the lines of a head, with the one that ends it. Raises ValueError for a field with a line's end
    in it."""
    line = _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    lines = [b"%b: %b\r\n" % field for field in fields]
    head = b"".join((line, *lines, _DATE.line(), b"\r\n"))
    ends = len(fields) + 3
    if head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise ValueError("a field of a response has the end of a line in it")
    return head


def has_no_body(status: int) -> bool:
    """Return whether a response of that status never has a body (RFC 9110, section 6.4.1)."""
    return status in {204, 304} or status < 200


def refusal(status: int) -> bytes:
    """Return a whole response to a request that could not be parsed."""
    return encode_head(status, [(b"content-length", b"0"), CLOSE])
