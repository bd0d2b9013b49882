"""A cache of immutable content by digest."""

from __future__ import annotations

from collections import OrderedDict


class BytesCache:
    """Immutable content by digest, the least recently used out first. Capped in bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = 0
        self._items: OrderedDict[str, bytes] = OrderedDict()

    def get(self, digest: str) -> bytes | None:
        content = self._items.get(digest)
        if content is not None:
            self._items.move_to_end(digest)
        return content

    def put(self, digest: str, content: bytes) -> None:
        if digest in self._items or len(content) > self._capacity // 4:
            return
        self._items[digest] = content
        self._held += len(content)
        while self._held > self._capacity:
            _, dropped = self._items.popitem(last=False)
            self._held -= len(dropped)
