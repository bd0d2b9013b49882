"""The proof and the export of a catalog's journal, over one view of its database."""

from __future__ import annotations

import abc
from collections.abc import Generator
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from digestry.catalog import journal_export, journal_verification
from digestry.catalog.journal_chain import Verdict


class JournalViews(abc.ABC):
    """The part of a :class:`~digestry.catalog.store.CatalogStore` that reads the journal as a whole."""

    @abc.abstractmethod
    def view(self, *, older: bool) -> AbstractContextManager[Connection]:
        """Open one consistent view of the catalog, until its reader closes it.

        With ``older`` the catalog may have an older schema. Raises :class:`NotFound`, :class:`StorageError`.
        """

    def check_schema(self) -> None:
        """Raise :class:`StorageError` unless this digestry works with the schema, :class:`NotFound` if there
        is none."""
        with self.view(older=False):
            pass

    def verify_journal(self, expect: tuple[str, ...] = ()) -> Verdict:
        """Prove the journal's chains; ``expect`` are hashes, noted elsewhere, that must be in it.

        Raises :class:`NotFound`, :class:`StorageError`.
        """
        with self.view(older=True) as connection:
            return journal_verification.verify(connection, expect)

    def export_journal(self, *, since: int = 0) -> Generator[bytes, None, None]:
        """Yield the journal's entries after position ``since`` as lines of JSON, oldest first.

        Raises :class:`NotFound`, :class:`StorageError`.
        """
        with self.view(older=True) as connection:
            yield from journal_export.export(connection, since=since)
