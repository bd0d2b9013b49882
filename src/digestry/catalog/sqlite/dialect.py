"""The dialect of SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    Insert,
    LargeBinary,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from digestry.catalog.dialect import BulkKeys
from digestry.catalog.fleet_schema import fleet_runs
from digestry.catalog.sqlite import triggers
from digestry.catalog.sqlite.run_indices import damage_of_runs
from digestry.catalog.upserts import Change, NewRow, Upserts


class SqliteDialect:
    """The :class:`~digestry.catalog.dialect.Dialect` of SQLite."""

    def __init__(self, *, one_writer: bool = True) -> None:
        self.one_writer = one_writer
        self.upserts = Upserts(self)

    def insert_or_ignore(self, table: Table) -> Insert:
        """Return an INSERT that leaves a row which is there already as it is."""
        return insert(table).on_conflict_do_nothing()

    def insert_or_ignore_pairs(self, table: Table, shared: Sequence[str], pair: tuple[str, str]) -> Insert:
        """Return an INSERT of several rows; see :meth:`InsertDialect.insert_or_ignore_pairs`."""
        listed = func.json_each(bindparam("pairs", type_=Text())).table_valued("value", name="listed")
        values = [
            *(bindparam(name, type_=table.c[name].type) for name in shared),
            *(func.json_extract(listed.c.value, literal_column(f"'$[{number}]'")) for number in range(2)),
        ]
        # Without the condition the parser would take ON CONFLICT for that of a join.
        rows = select(*values).select_from(listed).where(literal_column("true"))
        return insert(table).from_select([*shared, *pair], rows).on_conflict_do_nothing()

    def insert_or_update(
        self, table: Table, key: Sequence[str], change: Callable[[NewRow], Change]
    ) -> Insert:
        """Return an INSERT that changes the row which has the same ``key`` columns."""
        statement = insert(table)
        values = change(statement.excluded)
        return statement.on_conflict_do_update(
            index_elements=list(key), set_=dict(values.values), where=values.where
        )

    def send_ahead(
        self, connection: Connection, statements: Iterable[tuple[Executable, Mapping[str, object]]]
    ) -> None:
        """Do nothing: there is no round trip."""

    def bulk_keys(self, keys: Iterable[tuple[int | str, str]], kind: type[int] | type[str]) -> BulkKeys:
        """Return ``keys`` as a table that is read from one parameter of JSON.

        SQLite looks each pair up in an index, which it does not for ``(a, b) IN (VALUES …)``
        (sqlite.org/rowvalue.html).
        """
        encoded = msgspec.json.encode(list(keys)).decode()
        table = func.json_each(encoded).table_valued("value", name="wanted")
        first, second = (func.json_extract(table.c.value, f"$[{number}]") for number in range(2))
        return BulkKeys(table, first, second)

    def bulk_row_ids(self, row_ids: Iterable[object]) -> Select[Any]:
        """Return ``row_ids`` as a SELECT of one column, in one parameter."""
        encoded = func.json_each(msgspec.json.encode(list(row_ids)).decode()).table_valued("value")
        return select(encoded.c.value)

    def row_id(self, table: Table) -> ColumnElement[Any]:
        """Return a row's ``rowid`` (sqlite.org/lang_createtable.html, "ROWIDs")."""
        return literal_column(f"{table.name}.rowid", BigInteger)

    def byte_length(self, text: ColumnElement[str]) -> ColumnElement[int]:
        """Return the length of a text in bytes of UTF-8."""
        return func.length(cast(text, LargeBinary))

    def damage_of(self, connection: Connection, table: str) -> str | None:
        """Return how the table and its indices differ; None if they do not.

        SQLite has no checksums: from an index that lost a row it answers that there is none. Of the runs,
        which may be tens of millions, only the indices that say which images ran are compared.
        """
        if table == fleet_runs.name:
            return damage_of_runs(connection)
        found = connection.exec_driver_sql(f"PRAGMA integrity_check('{table}')").scalars().all()
        return None if found == ["ok"] else " ".join(str(found[0]).split())

    def freeze(self, connection: Connection, tables: Sequence[str]) -> None:
        """Make triggers that refuse all changes of ``tables``."""
        self.thaw(connection, tables)
        for table in tables:
            for trigger in triggers.freezing(table).values():
                connection.exec_driver_sql(trigger)

    def thaw(self, connection: Connection, tables: Sequence[str]) -> None:
        """Drop the triggers of :meth:`freeze`."""
        for table in tables:
            for name in triggers.freezing(table):
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")

    def lift_limits(self, connection: Connection) -> None:
        """Return: there are none."""

    def begin_load(self, connection: Connection, tables: Sequence[str]) -> None:
        """Do nothing: each row costs the same, for any number of rows."""

    def load(self, connection: Connection, table: Table, rows: Sequence[Row[Any]]) -> None:
        """Insert ``rows``, which have all columns of ``table`` in their order."""
        connection.execute(insert(table), [dict(row._mapping) for row in rows])

    def end_load(self, connection: Connection, tables: Sequence[str]) -> None:
        """Return: the next number is the largest one's successor."""


DIALECT: Final = SqliteDialect()
