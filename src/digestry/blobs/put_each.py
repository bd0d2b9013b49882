"""Several small contents stored one by one, for stores that gain nothing from storing them at once."""

from __future__ import annotations

from collections.abc import Sequence

from digestry.blobs.protocols import BlobWriter
from digestry.errors import DigestryError
from digestry.model.digest import Digest


def put_each(store: BlobWriter, contents: Sequence[tuple[bytes, Digest]]) -> list[DigestryError | None]:
    """Store ``contents`` one by one; see :meth:`BlobWriter.put_all`."""
    problems: list[DigestryError | None] = []
    for content, digest in contents:
        try:
            store.put(content, digest)
        except DigestryError as error:
            problems.append(error)
        else:
            problems.append(None)
    return problems
