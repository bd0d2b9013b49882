"""The dialect: the SQL that differs between databases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from sqlalchemy import ColumnElement, Connection, Executable, Row, Select, Table, TableValuedAlias

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
    """The SQL of one database, where databases differ."""

    @property
    def one_writer(self) -> bool:
        """Return whether transactions write one at a time: then what a transaction reads stays true without
        locks, and it knows the next position in the journal when it writes an entry."""
        ...

    @property
    def upserts(self) -> Upserts:
        """Return the statements that insert a row or change the one that is there, each built once."""
        ...

    def send_ahead(
        self, connection: Connection, statements: Iterable[tuple[Executable, Mapping[str, object]]]
    ) -> None:
        """Send frequent statements, with their parameters, that are executed a little later: where each costs
        a round trip, all cost one. Their rows are those of now."""
        ...

    def bulk_keys(self, keys: Iterable[tuple[int | str, str]], kind: type[int] | type[str]) -> BulkKeys:
        """Return ``keys``, whose first parts are of ``kind``, as a table: the statement is the same for any
        number of keys."""
        ...

    def row_id(self, table: Table) -> ColumnElement[Any]:
        """Return the column that identifies the rows of a table within this transaction."""
        ...

    def bulk_row_ids(self, row_ids: Iterable[object]) -> Select[Any]:
        """Return values of :meth:`row_id` as a SELECT of one column, in one parameter."""
        ...

    def byte_length(self, text: ColumnElement[str]) -> ColumnElement[int]:
        """Return the length of a text in bytes of UTF-8."""
        ...

    def damage_of(self, connection: Connection, table: str) -> str | None:
        """Return how the table and its indices differ; None if they do not."""
        ...

    def freeze(self, connection: Connection, tables: Sequence[str]) -> None:
        """Make the database refuse all changes of ``tables`` once this transaction is committed. Waits for
        changes that are under way."""
        ...

    def thaw(self, connection: Connection, tables: Sequence[str]) -> None:
        """Let ``tables`` be changed again, frozen or not."""
        ...

    def lift_limits(self, connection: Connection) -> None:
        """Lift the time limits on the statements of this transaction, and on the pauses between them."""
        ...

    def begin_load(self, connection: Connection, tables: Sequence[str]) -> None:
        """Prepare a transaction for very many new rows of ``tables``. Their triggers may not run in it."""
        ...

    def load(self, connection: Connection, table: Table, rows: Sequence[Row[Any]]) -> None:
        """Insert ``rows``, which have all columns of ``table`` in their order."""
        ...

    def end_load(self, connection: Connection, tables: Sequence[str]) -> None:
        """Undo :meth:`begin_load`, and let the next row of each table have a number that none has."""
        ...


def of(connection: Connection) -> Dialect:
    """Return the dialect of a connection's database."""
    return cast("Dialect", connection.get_execution_options()[OPTION])
