"""The store of a catalog: opening, copying and verifying it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from digestry.catalog import clock
from digestry.catalog.database import Database
from digestry.catalog.journal_chain import Verdict
from digestry.catalog.reads import CatalogReads
from digestry.catalog.registry_identity import RegistryIdentity
from digestry.catalog.robot_tokens import RobotReads
from digestry.catalog.snapshot import Snapshot


class CatalogChanges(Protocol):
    """A listener for changes of a catalog."""

    def number(self) -> int:
        """Return a number that is another one some seconds after a change to what the registry has."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class CatalogStore(Protocol):
    """The place of one catalog, there already or not. Holds nothing open."""

    def describe(self) -> str:
        """Return the catalog's name in messages, such as its path."""
        ...

    def is_empty(self) -> bool:
        """Return whether there is no catalog yet. Raises :class:`StorageError`."""
        ...

    def require(self) -> None:
        """Raise :class:`NotFound` unless there is a catalog."""
        ...

    def check_schema(self) -> None:
        """Raise :class:`StorageError` unless the catalog has the schema that this digestry works with, and
        :class:`NotFound` if there is none."""
        ...

    def identity(self) -> RegistryIdentity | None:
        """Return which registry the catalog, which is there, is of; None for one from before there were IDs.

        Raises :class:`StorageError`.
        """
        ...

    def owner(self) -> int | None:
        """Return the number of the user whose files the catalog is in; None if it is in no files."""
        ...

    def file_names(self) -> frozenset[str]:
        """Return the names of the catalog's own files in the root."""
        ...

    def open(self) -> Database:
        """Open the database, making it if it is not there."""
        ...

    def open_reads(self) -> CatalogReads:
        """Open the reads of one event loop. Raises :class:`StorageError`."""
        ...

    def open_robot_reads(self, now: clock.Clock) -> RobotReads:
        """Open the look-ups of robot tokens for one event loop. Raises :class:`StorageError`."""
        ...

    def open_changes(self) -> CatalogChanges:
        """Open the listener for changes. Raises :class:`StorageError`."""
        ...

    def verify_journal(self, expect: tuple[str, ...] = ()) -> Verdict:
        """Prove the journal's chains, of an older schema too, whether or not the registry is served.

        ``expect`` are hashes, noted elsewhere, that must be in it. Raises :class:`NotFound`,
        :class:`StorageError`.
        """
        ...

    def export_journal(self, *, since: int = 0) -> Generator[bytes, None, None]:
        """Yield the journal's entries after position ``since`` as lines of JSON, oldest first.

        Raises :class:`NotFound`, :class:`StorageError`.
        """
        ...

    def copied(self, directory: Path) -> AbstractContextManager[Database]:
        """Open a copy of the catalog as it is at one moment, which ends with the block.

        Others go on writing to the catalog, and never wait for the copy. The copy may be changed. One that
        is a file is in ``directory``, not fsynced. Raises :class:`NotFound`, :class:`StorageError`.
        """
        ...

    def as_file(self) -> CatalogFile:
        """Return this catalog as the file that it is.

        Raises :class:`Conflict` for a catalog that only its own database's tools copy and restore.
        """
        ...


class CatalogFile(CatalogStore, Protocol):
    """The place of a catalog that is a file: it can be copied to a backup, and made from one."""

    @property
    def path(self) -> Path:
        """Return the path of the file, there or not."""
        ...

    def snapshot_to(self, directory: Path) -> CatalogFile:
        """Copy the catalog to ``directory``, as it is at one moment, and return the copy. Not fsynced.

        Writers are not blocked. The copy is a single file, without the uploads that were under way. Raises
        :class:`NotFound`, :class:`StorageError`.
        """
        ...

    def open_snapshot(self) -> Snapshot:
        """Open the file as a read-only snapshot.

        Raises :class:`StorageError` if it is damaged, or no catalog, and :class:`Conflict` if a newer
        digestry wrote it.
        """
        ...

    def install(self, directory: Path) -> None:
        """Move the catalog of a snapshot from ``directory`` to its place. Durable.

        Raises :class:`StorageError`.
        """
        ...
