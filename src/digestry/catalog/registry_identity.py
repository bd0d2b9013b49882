"""The identity of a registry: an ID that its blob store has as well, and a number that rises.

One row, made with the catalog. The store records the number, so that an older copy of the catalog is
recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, exists, or_, select, update

from digestry.catalog.database import Database
from digestry.catalog.schema import identity, leases, links, manifests
from digestry.catalog.transactions import retried
from digestry.errors import StorageError
from digestry.model.digest import Digest


@dataclass(frozen=True, slots=True)
class RegistryIdentity:
    """A registry's ID, whether a store is known to have it, and how often it was advanced."""

    id: str
    bound: bool
    generation: int


class RegistryIdentities:
    """The identity of one catalog. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self) -> RegistryIdentity:
        """Return the catalog's identity. Raises :class:`StorageError`."""
        with self._database.read() as connection:
            return self._identity_of(connection.execute(select(identity)).all())

    @retried
    def bind(self) -> None:
        """Note that the store beside the catalog has its ID."""
        with self._database.write() as connection:
            connection.execute(update(identity).values(bound=True))

    @retried
    def advance(self) -> RegistryIdentity:
        """Make the catalog newer than each copy of it that there is."""
        with self._database.write() as connection:
            statement = update(identity).values(generation=identity.c.generation + 1)
            return self._identity_of(connection.execute(statement.returning(identity)).all())

    def _identity_of(self, rows: Sequence[Row[Any]]) -> RegistryIdentity:
        if len(rows) != 1:
            raise StorageError(
                f"the catalog {self._database.describe()} does not say which registry it is of",
                hint="restore the catalog from a backup; the blobs beside it are not touched",
            )
        return RegistryIdentity(rows[0].id, bool(rows[0].bound), rows[0].generation)

    def knows(self, digests: list[Digest]) -> int:
        """Return how many of up to some hundred digests the catalog has any trace of."""
        wanted = [str(digest) for digest in digests]
        columns = links.c.digest, manifests.c.digest, leases.c.digest
        with self._database.read() as connection:
            found = {
                row[0]
                for column in columns
                for row in connection.execute(select(column).where(column.in_(wanted)))
            }
        return len(found)

    def has_content(self) -> bool:
        """Return whether the catalog makes any content visible."""
        visible: Select[Any] = select(
            or_(
                exists().select_from(links),
                exists().select_from(manifests).where(manifests.c.deleted_at.is_(None)),
            )
        )
        with self._database.read() as connection:
            return bool(connection.execute(visible).scalar())
