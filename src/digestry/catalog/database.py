"""The interface of a catalog's database: its transactions and its maintenance."""

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
        """Compare each of ``tables`` with its indices, calling ``pause`` repeatedly.

        Raises :class:`StorageError` if they differ.
        """
        ...

    def migrate(self) -> None:
        """Bring the schema up to date. Only one process may do this at a time."""
        ...

    def describe(self) -> str:
        """Return the database's name for messages, such as its path."""
        ...

    def size(self) -> int:
        """Return the database's size in bytes."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
