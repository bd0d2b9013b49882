"""What a collection removes, or keeps, and the transactions and windows in which it does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, select, true

from digestry.catalog import lease_rows, liveness, repository_rows
from digestry.catalog.database import Database
from digestry.catalog.tag_moves import RepositoryKey
from digestry.catalog.throttle import Throttle

WINDOW: Final = 5000
"""Rows that one question looks at."""
_LONGEST_PAUSE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Removed:
    """Something that went. ``name`` is a tag or a digest; ``size`` in bytes, where it has one."""

    kind: str  # tag, manifest, link, blob
    repository: str
    name: str
    why: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Stayed:
    """Something that should have gone and did not, and the reason."""

    kind: str
    repository: str
    name: str
    why: str


Batch = Sequence[Removed | Stayed]
"""The result of one transaction."""


class Removals:
    """The transactions of a collection. Thread-safe; without a ``throttle`` there are no pauses."""

    def __init__(self, database: Database, throttle: Throttle | None) -> None:
        self._database = database
        self._throttle = throttle
        self._proven = False

    def check_consistency(self) -> None:
        """Check, once, that the catalog is consistent, before its answers decide on removals.

        Raises :class:`StorageError` if it is not.
        """
        if not self._proven:
            self._database.check(
                liveness.TABLES, pause=self._throttle.pause if self._throttle else lambda: None
            )
            self._proven = True

    @contextlib.contextmanager
    def writing(
        self, key: RepositoryKey | None = None, digests: Collection[str] = ()
    ) -> Iterator[Connection]:
        """Open a transaction that excludes other changes of the repository and leases of this content. Pause
        as long after it, so that others have a turn."""
        self.check_consistency()
        with self._database.write() as connection:
            began = time.monotonic()
            if key is not None:
                repository_rows.lock(connection, key.name)
            if digests:
                lease_rows.lock(connection, digests)
            yield connection
        if self._throttle is not None:
            time.sleep(min(time.monotonic() - began, _LONGEST_PAUSE))
            self._throttle.pause(working=True)

    def windows(
        self, digest: ColumnElement[str], where: ColumnElement[bool]
    ) -> Iterator[ColumnElement[bool]]:
        """Cut the rows of ``where`` into ranges of digests with some thousand each."""
        last: str | None = None
        while True:
            rest = where if last is None else where & (digest > last)
            with self._database.read() as connection:
                end = connection.execute(
                    select(digest).where(rest).order_by(digest).offset(WINDOW - 1).limit(1)
                ).scalar()
            if self._throttle is not None:
                self._throttle.pause()
            after = true() if last is None else digest > last
            if end is None:
                yield after
                return
            yield after & (digest <= end)
            last = end

    def read(self, query: Select[Any]) -> Sequence[Any]:
        with self._database.read() as connection:
            return connection.execute(query).all()
