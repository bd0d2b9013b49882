"""Types that are ready to be decoded by several threads at once.

msgspec finds out about the fields of a type when the type is first used, and that is not safe if two threads
do so at the same time: the second one may see a part of it, and the process ends by a segmentation fault. So
it is done by one thread at a time. A type that is ready is safe.
"""

from __future__ import annotations

import threading
from typing import Any, Final, TypeVar

_Kind = TypeVar("_Kind")

_lock: Final = threading.RLock()
_ready: Final[set[Any]] = set()


def prepared(kind: _Kind) -> _Kind:
    """Return ``kind``, a type that JSON is decoded to, once msgspec knows all of it."""
    if kind not in _ready:
        import msgspec  # noqa: PLC0415 - whoever has a type has it loaded

        with _lock:
            msgspec.json.Decoder(kind)
            _ready.add(kind)
    return kind
