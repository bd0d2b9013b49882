"""The dialect of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    Insert,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.types import UserDefinedType

from digestry.catalog.dialect import BulkKeys
from digestry.catalog.postgresql.prepared import PreparedConnection
from digestry.catalog.upserts import Change, NewRow, Upserts


class _RowId(UserDefinedType[str]):
    """Where a row is in its table: ``(block,number)``."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "tid"


class PostgresqlDialect:
    """The :class:`~digestry.catalog.dialect.Dialect` of PostgreSQL."""

    one_writer = False

    def __init__(self) -> None:
        self.upserts = Upserts(self)

    def insert_or_ignore(self, table: Table) -> Insert:
        """Return an INSERT that leaves a row which is there already as it is."""
        return insert(table).on_conflict_do_nothing()

    def insert_or_ignore_pairs(self, table: Table, shared: Sequence[str], pair: tuple[str, str]) -> Insert:
        """Return an INSERT of several rows; see :meth:`InsertDialect.insert_or_ignore_pairs`."""
        given = cast(bindparam("pairs", type_=Text()), JSONB())
        listed = func.jsonb_array_elements(given).table_valued("value", name="listed").render_derived()
        values = [
            *(cast(bindparam(name, type_=table.c[name].type), table.c[name].type) for name in shared),
            *(listed.c.value.op("->>")(literal_column(str(number))) for number in range(2)),
        ]
        rows = select(*values).select_from(listed)
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
        """Send frequent statements with the next one that is sent."""
        if isinstance(connection, PreparedConnection):
            connection.send_ahead(statements)

    def bulk_keys(self, keys: Iterable[tuple[int | str, str]], kind: type[int] | type[str]) -> BulkKeys:
        """Return ``keys`` as a table that is read from two parameters, an array each."""
        pairs = list(keys)
        first_type = BigInteger() if kind is int else Text()
        firsts = bindparam(None, [pair[0] for pair in pairs], ARRAY(first_type))
        seconds = bindparam(None, [pair[1] for pair in pairs], ARRAY(Text()))
        columns = column("first", first_type), column("second", Text())
        table = func.unnest(firsts, seconds).table_valued(*columns, name="wanted").render_derived()
        return BulkKeys(table, table.c.first, table.c.second)

    def bulk_row_ids(self, row_ids: Iterable[object]) -> Select[Any]:
        """Return ``row_ids`` as a SELECT of one column, in one parameter."""
        texts = bindparam(None, list(row_ids), ARRAY(Text()))
        return select(cast(func.unnest(texts), _RowId()))

    def row_id(self, table: Table) -> ColumnElement[Any]:
        """Return a row's ``ctid``, which stays while the row is locked."""
        return literal_column(f"{table.name}.ctid", _RowId())

    def byte_length(self, text: ColumnElement[str]) -> ColumnElement[int]:
        """Return the length of a text in bytes of UTF-8."""
        return func.octet_length(text)

    def damage_of(self, connection: Connection, table: str) -> str | None:
        """Return None: PostgreSQL checks each page that it reads, if its cluster has checksums."""
        return None

    def freeze(self, connection: Connection, tables: Sequence[str]) -> None:
        """Make triggers that refuse all changes of ``tables``; each waits for the changes under way."""
        connection.exec_driver_sql(_FREEZING)
        self._drop_triggers(connection, tables)
        for table in tables:
            connection.exec_driver_sql(
                f"CREATE TRIGGER frozen BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION digestry_frozen()"
            )

    def thaw(self, connection: Connection, tables: Sequence[str]) -> None:
        """Drop the triggers of :meth:`freeze`."""
        self._drop_triggers(connection, tables)
        connection.exec_driver_sql("DROP FUNCTION IF EXISTS digestry_frozen()")

    def _drop_triggers(self, connection: Connection, tables: Sequence[str]) -> None:
        for table in tables:
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS frozen ON {table}")

    def lift_limits(self, connection: Connection) -> None:
        """Lift the time limits on the statements of this transaction, and on the pauses between them."""
        connection.exec_driver_sql(_WITHOUT_LIMITS)

    def begin_load(self, connection: Connection, tables: Sequence[str]) -> None:
        """Turn the triggers of ``tables`` off: a row that is counted a million times in one transaction is a
        million versions of it. Lifts the limits of time."""
        self.lift_limits(connection)
        for table in tables:
            connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")

    def load(self, connection: Connection, table: Table, rows: Sequence[Row[Any]]) -> None:
        """Insert ``rows`` by COPY, which takes a quarter of the time of an INSERT for each row."""
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def end_load(self, connection: Connection, tables: Sequence[str]) -> None:
        """Turn the triggers on, set the numbers of the next rows, and let the planner look at the rows."""
        for table in tables:
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
            for name in connection.execute(_NUMBERED, {"table": table}).scalars().all():
                connection.exec_driver_sql(_NEXT.format(table=table, column=name))
            connection.exec_driver_sql(f"ANALYZE {table}")


_FREEZING: Final = """
CREATE OR REPLACE FUNCTION digestry_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'this registry moves to other stores, and takes no changes here' USING ERRCODE = '55P03';
END $$
"""
_WITHOUT_LIMITS: Final = (
    "SELECT pg_catalog.set_config('statement_timeout', '0', true),"
    " pg_catalog.set_config('idle_in_transaction_session_timeout', '0', true)"
)
_NUMBERED: Final = text(
    "SELECT column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name = :table"
    " AND pg_catalog.pg_get_serial_sequence(:table, column_name) IS NOT NULL"
)
_NEXT: Final = (
    "SELECT pg_catalog.setval(pg_catalog.pg_get_serial_sequence('{table}', '{column}'),"
    " (SELECT coalesce(max({column}), 0) + 1 FROM {table}), false)"
)


DIALECT: Final = PostgresqlDialect()
