"""The dialect: the SQL that differs between databases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from sqlalchemy import ColumnElement, Connection, Select, Table, TableValuedAlias

from digestry.catalog.upserts import InsertDialect, Upserts

OPTION: Final = "catalog_dialect"
"""The execution option of an engine that has its dialect."""


@dataclass(frozen=True, slots=True)
class BulkKeys:
    """Pairs as a ``table`` with two columns, to be joined with."""

    table: TableValuedAlias
    first: ColumnElement[Any]
    second: ColumnElement[Any]


class Dialect(InsertDialect, Protocol):
    """How one database writes what is not the same in all of them."""

    @property
    def one_writer(self) -> bool:
        """Return whether one transaction at a time writes: what it reads stays true without locks, and it
        knows the next position in the journal when it writes an entry."""
        ...

    @property
    def upserts(self) -> Upserts:
        """Return the statements that insert a row or change the one that is there, each built once."""
        ...

    def bulk_keys(self, keys: Iterable[tuple[int | str, str]], kind: type[int] | type[str]) -> BulkKeys:
        """Return ``keys``, whose first parts are of ``kind``, as a table: the statement stays the same,
        whatever their number."""
        ...

    def row_id(self, table: Table) -> ColumnElement[Any]:
        """Return what tells the rows of a table apart that this transaction has locked."""
        ...

    def bulk_row_ids(self, row_ids: Iterable[Any]) -> Select[Any]:
        """Return values of :meth:`row_id` as a SELECT of one column, in one parameter."""
        ...

    def byte_length(self, text: ColumnElement[str]) -> ColumnElement[int]:
        """Return the length of a text in bytes of UTF-8."""
        ...

    def damage_of(self, connection: Connection, table: str) -> str | None:
        """Return how the table and its indices differ; None if they do not."""
        ...


def of(connection: Connection) -> Dialect:
    """Return the dialect of a connection's database."""
    return cast("Dialect", connection.get_execution_options()[OPTION])
