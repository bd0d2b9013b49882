"""A connection that runs frequent statements by the driver itself, each compiled once.

SQLAlchemy takes 15 to 60 µs for a short statement, and SQLite 3 to 5. A push runs a dozen of them.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self, cast

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import CursorResult
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from digestry.catalog.frequent_statements import PreparedStatements, Rows, row_type

Values = Mapping[str, object]

_NAMED: Final = SQLiteDialect_pysqlite(paramstyle="named")
_LIST: Final = re.compile(r"__\[POSTCOMPILE_(\w+)\]")
_EMPTY_LIST: Final = "SELECT 1 WHERE 0"


class _Changed:
    """The result of a statement that returns no rows, as far as the catalog uses it."""

    __slots__ = ("rowcount",)

    def __init__(self, rowcount: int) -> None:
        self.rowcount = rowcount


class PreparedStatement:
    """A frequent statement as SQLite's text, with the values that never change."""

    __slots__ = ("_constants", "_lists", "_make_row", "_text")

    def __init__(self, statement: Executable, names: Iterable[str]) -> None:
        given = list(names)
        compiled = cast(
            "SQLCompiler", cast("ClauseElement", statement).compile(dialect=_NAMED, column_keys=given)
        )
        _check_types([bind.type for bind in compiled.binds.values()])
        _check_types([column.type for column in compiled._result_columns])
        self._text = compiled.string
        self._constants = {name: value for name, value in compiled.params.items() if name not in given}
        self._lists = _LIST.search(self._text) is not None
        columns = [column.keyname for column in compiled._result_columns]
        self._make_row = row_type(columns) if columns else None

    def run(self, connection: sqlite3.Connection, values: Values) -> CursorResult[Any]:
        every = {**self._constants, **values} if self._constants else values
        text = self._text
        if self._lists:
            text, every = _with_lists(text, every)
        cursor = connection.execute(text, every)
        if self._make_row is None:
            return cast("CursorResult[Any]", _Changed(cursor.rowcount))
        return cast("CursorResult[Any]", Rows(self._make_row, cursor.fetchall()))

    def run_many(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> CursorResult[Any]:
        cursor = connection.executemany(self._text, [{**self._constants, **values} for values in rows])
        return cast("CursorResult[Any]", _Changed(cursor.rowcount))


def _check_types(types: Iterable[TypeEngine[Any]]) -> None:
    """Raise :class:`TypeError` for a type whose values the driver must not get, or give, as they are."""
    for each in types:
        dialect_type = each.dialect_impl(_NAMED)
        if dialect_type.bind_processor(_NAMED) or dialect_type.result_processor(_NAMED, None):
            raise TypeError(f"a frequent statement has a value of type {each!r}, which must be converted")


def _with_lists(text: str, values: Values) -> tuple[str, Values]:
    """Return the text and the values with each list as single values."""
    every = dict(values)

    def spread(found: re.Match[str]) -> str:
        name = found[1]
        listed = cast("Sequence[object]", every.pop(name))
        names = [f"{name}_{number}" for number in range(len(listed))]
        every.update(zip(names, listed, strict=True))
        return ", ".join(f":{each}" for each in names) or _EMPTY_LIST

    return _LIST.sub(spread, text), every


class PreparedConnection(Connection):
    """A connection of SQLAlchemy's that runs frequent statements itself.

    SQLAlchemy closes it (``invalidated``) if an exception that ends a process, such as
    :class:`KeyboardInterrupt`, comes out of a statement.
    """

    def __init__(self, engine: Engine, statements: PreparedStatements[PreparedStatement]) -> None:
        super().__init__(engine)
        self._statements = statements
        self.bare = cast("sqlite3.Connection", self.connection.dbapi_connection)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Self]:
        """Open a transaction that is committed at the end of the block; if that fails, it is undone."""
        try:
            with self.begin():
                yield self
        finally:
            if not self.invalidated and self.bare.in_transaction:
                self.bare.rollback()

    @contextlib.contextmanager
    def view(self) -> Iterator[Self]:
        """Open one consistent view of the committed state, without SQLAlchemy's cost for a transaction."""
        self.bare.execute("BEGIN")
        try:
            yield self
        finally:
            if self.in_transaction():  # something was executed by SQLAlchemy
                self.rollback()
            elif not self.invalidated and self.bare.in_transaction:
                self.bare.rollback()

    def execute(
        self,
        statement: Executable,
        parameters: Values | Sequence[Values] | None = None,
        *,
        execution_options: Mapping[str, Any] | None = None,
    ) -> CursorResult[Any]:
        """Execute ``statement``. Of a frequent one without rows, the result has nothing but ``rowcount``."""
        if isinstance(parameters, Mapping) or parameters is None:
            values = parameters or {}
            found = self._statements.find(statement, values)
            if found is not None:
                return found.run(self.bare, values)
        elif parameters:
            found = self._statements.find(statement, parameters[0])
            if found is not None:
                return found.run_many(self.bare, parameters)
        return super().execute(statement, parameters, execution_options=execution_options)
