"""Storing several small contents in parallel, for stores that are far away."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from digestry.blobs.protocols import BlobWriter
from digestry.errors import DigestryError
from digestry.model.digest import Digest

_AT_ONCE: Final = 8


def put_each(store: BlobWriter, contents: Sequence[tuple[bytes, Digest]]) -> list[DigestryError | None]:
    """Store ``contents``, some of them at a time; see :meth:`BlobWriter.put_all`."""

    def put(item: tuple[bytes, Digest]) -> DigestryError | None:
        try:
            store.put(*item)
        except DigestryError as error:
            return error
        return None

    if len(contents) <= 1:
        return [put(item) for item in contents]
    with ThreadPoolExecutor(min(_AT_ONCE, len(contents)), thread_name_prefix="put") as threads:
        return list(threads.map(put, contents))
