"""The transactions that every database of a catalog gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection


class Database(Protocol):
    """A catalog's database. Thread-safe; each process opens its own. Blocks."""

    def read(self) -> AbstractContextManager[Connection]:
        """Open one consistent view of the committed state."""
        ...

    def write(self) -> AbstractContextManager[Connection]:
        """Open a transaction that may write: committed, and on disk, when the block ends without error."""
        ...

    def check(self, tables: Iterable[str], *, pause: Callable[[], None] = lambda: None) -> None:
        """Compare each of ``tables`` with its indices; ``pause`` is called again and again meanwhile.

        Raises :class:`StorageError` if they differ.
        """
        ...

    def migrate(self) -> None:
        """Bring the schema up to date. Only one process may do this at a time."""
        ...

    def describe(self) -> str:
        """Return what messages call the database, such as its path."""
        ...

    def size(self) -> int:
        """Return how many bytes the database takes."""
        ...

    def close(self) -> None:
        """End all connections."""
        ...
