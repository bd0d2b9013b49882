"""The interface of a catalog's database: its transactions and its maintenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sqlalchemy import Connection

Job: TypeAlias = Callable[[], object]
"""Something to call that writes to the catalog, and changes nothing else: it may be called again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job returned, or the ``error`` that it raised."""

    value: object = None
    error: Exception | None = None


def attempt(job: Job) -> Outcome:
    """Call ``job`` and return its outcome."""
    try:
        return Outcome(job())
    except Exception as error:  # noqa: BLE001 - the caller of the job hears of it
        return Outcome(error=error)


class Database(Protocol):
    """A catalog's database. Thread-safe; each process opens its own. Blocks."""

    @property
    def writers(self) -> int:
        """Return how many threads gain from writing side by side; 1 where one writes at a time anyway."""
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """Open one consistent view of the committed state."""
        ...

    def write(self, *, durable: bool = True) -> AbstractContextManager[Connection]:
        """Open a transaction that may write: committed, and on disk, when the block ends without error.

        Without ``durable`` it need not wait for the disk: a loss of power may undo it, if no durable
        transaction follows it.
        """
        ...

    def group_commit(self, jobs: Sequence[Job], *, durable: bool = True) -> list[Outcome]:
        """Call ``jobs`` one after the other, and return the outcome of each, once all is committed.

        Their writes may share one transaction; a job that fails undoes only its own part. Without ``durable``
        none of them may write durably.
        """
        ...

    def check(self, tables: Iterable[str], *, pause: Callable[[], None] = lambda: None) -> None:
        """Compare each of ``tables`` with its indices, calling ``pause`` repeatedly.

        Raises :class:`StorageError` if they differ.
        """
        ...

    def migrate(self) -> None:
        """Migrate the schema to the newest version. Only one process may do this at a time."""
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
