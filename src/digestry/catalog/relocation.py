"""The move of a registry to other stores, as its two catalogs note it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from digestry.catalog import dialect
from digestry.catalog.database import Database
from digestry.catalog.schema import notes
from digestry.errors import Conflict, StorageError
from digestry.model.json_types import prepared

_NOTE: Final = "relocation"
_GO_ON: Final = "digestry migrate-storage, called once more, goes on where it was broken off"
_HERE: Final = notes.c.name == _NOTE

FROZEN_TABLES: Final = (
    "repositories",
    "links",
    "manifests",
    "manifest_references",
    "tags",
    "journal",
    "log_entries",
    "log_nodes",
    "log_origins",
    "log_checkpoints",
    "log_keys",
    "witnessed_logs",
    "robot_tokens",
    "deliveries",
    "sightings",
    "identity",
    "blob_objects",
    "quarantined_objects",
)
"""The tables of a catalog that take no changes once it is left: the new catalog would not have them."""


class Stage(StrEnum):
    """How far the move of a registry is, as one of its two catalogs says."""

    ARRIVING = "arriving"
    """The catalog gets its rows from another one, and has none yet."""
    LEAVING = "leaving"
    """The catalog takes no changes: its rows are being copied."""
    LEFT = "left"
    """The registry is in other stores."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """The move of the registry with the ID ``registry``; ``other`` is where its other stores are."""

    stage: Stage
    other: str
    registry: str


class Relocations:
    """The note of one catalog about a move. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self) -> Relocation | None:
        """Return the note; None for a catalog that never moved. Raises :class:`StorageError`."""
        with self._database.read() as connection:
            content = connection.execute(select(notes.c.content).where(_HERE)).scalar()
        if content is None:
            return None
        try:
            return msgspec.json.decode(content, type=prepared(Relocation))
        except msgspec.DecodeError as error:
            raise StorageError(
                f"the catalog {self._database.describe()} does not say whether its registry has moved: its"
                " note about that is damaged"
            ) from error

    def require_here(self, *, read_only: bool = False) -> None:
        """Raise :class:`Conflict` if the registry is not, or not completely, in these stores.

        With ``read_only`` a catalog that is left may still be read.
        """
        found = self.get()
        if found is None:
            return
        name = self._database.describe()
        if found.stage is Stage.ARRIVING:
            raise Conflict(
                f"the catalog {name} is not complete: a registry is being moved to it from {found.other}",
                hint=_GO_ON,
            )
        if not read_only:
            left = found.stage is Stage.LEFT
            moved, then = ("has moved", "serve that") if left else ("is being moved", _GO_ON)
            raise Conflict(
                f"the registry of the catalog {name} {moved} to {found.other}",
                hint=f"{then}; this one can be read with read-only = true, and taken back with"
                " digestry migrate-storage --reopen",
            )

    def arrive(self, other: str, registry: str) -> None:
        """Note, in a catalog without rows, that they come from ``other``."""
        with self._database.write() as connection:
            _write(connection, Relocation(Stage.ARRIVING, other, registry))

    def freeze(self, other: str, registry: str) -> None:
        """Let the catalog take no more changes, because its rows are copied to ``other``."""
        with self._database.write() as connection:
            _write(connection, Relocation(Stage.LEAVING, other, registry))
            dialect.of(connection).freeze(connection, FROZEN_TABLES)

    def leave(self) -> None:
        """Note that the registry, whose catalog is frozen, is in the other stores."""
        found = self.get()
        if found is not None:
            left = Relocation(Stage.LEFT, found.other, found.registry)
            with self._database.write() as connection:
                connection.execute(update(notes).where(_HERE).values(content=msgspec.json.encode(left)))

    def thaw(self) -> None:
        """Let the catalog be changed again, and forget the move."""
        with self._database.write() as connection:
            dialect.of(connection).thaw(connection, FROZEN_TABLES)
            forget(connection)


def forget(connection: Connection) -> None:
    """Remove the note about a move."""
    connection.execute(delete(notes).where(_HERE))


def _write(connection: Connection, relocation: Relocation) -> None:
    forget(connection)
    connection.execute(insert(notes), {"name": _NOTE, "content": msgspec.json.encode(relocation)})
