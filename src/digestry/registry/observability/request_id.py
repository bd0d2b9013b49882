"""Request IDs: in each answer, and in every log line about the request."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from typing import Final

HEADER: Final = b"x-request-id"

_SANE: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class RequestIds:
    """Makes the request IDs of one process: a random part, and a number."""

    def __init__(self) -> None:
        self._form = os.urandom(6).hex().encode() + b"-%x"
        self._next = itertools.count(1).__next__

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the ID that the request came with, if it is short and harmless, else a new one."""
        for name, value in headers:
            if name == HEADER and _SANE.fullmatch(value):
                return value
        return self._form % self._next()
