"""The reads of the pages: lists with all that a row shows, in a fixed number of statements each."""

from __future__ import annotations

from digestry.catalog import repository_pages
from digestry.catalog.database import Database
from digestry.catalog.repository_pages import RepositoryRow


class Browsing:
    """The reads of the pages. Thread-safe; it only reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def repositories(
        self, *, after: str = "", beginning: str = "", containing: str = "", limit: int
    ) -> list[RepositoryRow]:
        """Return the repositories that have anything to pull, whose names begin and contain so, in the order
        of their bytes, those after ``after``."""
        with self._database.read() as connection:
            return repository_pages.repositories_after(
                connection, after=after, beginning=beginning, containing=containing, limit=limit
            )
