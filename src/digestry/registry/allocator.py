"""The C library's allocator, where a worker's memory must stay small."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_ARENA_MAX: Final = -8  # M_ARENA_MAX of glibc's malloc.h
_ARENAS: Final = 2


def limit_arenas() -> None:
    """Let the threads of this process share two arenas, if its allocator is glibc's.

    By default each thread that moves content keeps in an arena of its own what it has let go of
    (mallopt(3), ``M_ARENA_MAX``).
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _ARENAS)
