"""The snapshot of a catalog that a backup has: the face through which it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from digestry.model.digest import Digest


@dataclass(frozen=True, slots=True)
class Held:
    """Content that the registry serves, and its size in bytes."""

    digest: Digest
    size: int


class Snapshot(Protocol):
    """The snapshot in one directory, which is read only. Not for several threads at once.

    Each method raises :class:`StorageError` if it is damaged.
    """

    @property
    def path(self) -> Path:
        """Return the snapshot's file."""
        ...

    @property
    def schema(self) -> str:
        """Return the version of its schema, such as ``0004``."""
        ...

    @property
    def count(self) -> int:
        """Return how much content is served."""
        ...

    @property
    def bytes(self) -> int:
        """Return how many bytes all of that has."""
        ...

    def held(self) -> Iterator[Held]:
        """Yield all content that is served, in the order of the digests' text."""
        ...

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes of content that is served; None if it is not."""
        ...

    def any_damaged(self) -> bool:
        """Return whether its registry knew of content that is damaged."""
        ...

    def holders(self, digest: Digest) -> list[str]:
        """Return the holders of content: ``repository:tag``, up to 20 a repository, or a repository alone."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
