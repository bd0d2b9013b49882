"""A connection that sends frequent statements by a pipeline, several in one round trip, each compiled once.

One without rows is sent with the next that has some, or with the COMMIT: its answer is not awaited alone.
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import psycopg
from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import CursorResult
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from digestry.catalog.frequent_statements import PreparedStatements, Rows, RowType, row_type
from digestry.catalog.postgresql.connection import STATEMENT_SECONDS
from digestry.catalog.postgresql.pipeline import Answer, Pipeline, ServerStatement, encoded, server_statement

Values: TypeAlias = Mapping[str, Any]
Asked: TypeAlias = tuple[Executable, Values]

_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]
_LIST: Final = re.compile(r"IN \(__\[POSTCOMPILE_(\w+)\]\)")
_PARAMETER: Final = re.compile(r"%\(([^)]+)\)s")
_PIPELINES: Final = "pipelines"
_MOST_PIPELINES: Final = 64
"""For one connection: behind a pooler it has one for each connection of the server's."""


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A frequent statement as PostgreSQL's text, with the names of its parameters in their order."""

    statement: ServerStatement
    names: tuple[str, ...]
    constants: dict[str, Any]
    make_row: RowType | None

    def parameters(self, given: Values) -> list[bytes | None]:
        """Return the values as they are sent. Raises :class:`psycopg.DataError`."""
        every = {**self.constants, **given} if self.constants else given
        return [encoded(every[name]) for name in self.names]


def compiled_statement(statement: Executable, names: Iterable[str]) -> CompiledStatement:
    given = list(names)
    found = cast("SQLCompiler", cast("ClauseElement", statement).compile(dialect=_DIALECT, column_keys=given))
    _check_types([bind.type for bind in found.binds.values()])
    _check_types([column.type for column in found._result_columns])
    order: dict[str, str] = {}

    def numbered(name: str) -> str:
        return order.setdefault(name, f"${len(order) + 1}")

    text = _LIST.sub(lambda list_: f"= ANY (%({list_[1]})s::text[])", found.string)
    text = _PARAMETER.sub(lambda parameter: numbered(parameter[1]), text).replace("%%", "%")
    constants = {name: value for name, value in found.params.items() if name not in given}
    columns = [column.keyname for column in found._result_columns]
    return CompiledStatement(
        server_statement(text), tuple(order), constants, row_type(columns) if columns else None
    )


def _check_types(types: Iterable[TypeEngine[Any]]) -> None:
    """Raise :class:`TypeError` for a type whose values the driver must not get, or give, as they are."""
    for each in types:
        dialect_type = each.dialect_impl(_DIALECT)
        if dialect_type.bind_processor(_DIALECT) or dialect_type.result_processor(_DIALECT, None):
            raise TypeError(f"a frequent statement has a value of type {each!r}, which must be converted")


class _Changed:
    """The result of statements that return no rows, which may not have been sent yet."""

    __slots__ = ("_answers", "_connection")

    def __init__(self, connection: PreparedConnection, answers: Sequence[Answer]) -> None:
        self._connection = connection
        self._answers = answers

    @property
    def rowcount(self) -> int:
        """Return how many rows were changed. May be asked after the transaction too."""
        if not all(answer.tag for answer in self._answers):
            self._connection.send_waiting()
        return sum(answer.changed for answer in self._answers)


class PreparedConnection(Connection):
    """A connection of SQLAlchemy's that sends frequent statements itself.

    What fails may be raised by a later call: at the latest by :meth:`commit_waiting`.
    """

    def __init__(self, engine: Engine, statements: PreparedStatements[CompiledStatement]) -> None:
        super().__init__(engine)
        self._statements = statements
        self._waiting: list[tuple[ServerStatement, list[bytes | None], Answer]] = []
        self._ahead: dict[Hashable, Answer] = {}
        self.driver = cast("psycopg.Connection[Any]", self.connection.driver_connection)
        self._pipeline = self._pipeline_of("")

    def served_by(self, process: str) -> None:
        """Note which process of the server's serves this transaction: what was prepared there is there."""
        self._pipeline = self._pipeline_of(process)

    def _pipeline_of(self, process: str) -> Pipeline:
        pipelines = cast("dict[str, Pipeline]", self.connection.info.setdefault(_PIPELINES, {}))
        if process not in pipelines:
            if len(pipelines) >= _MOST_PIPELINES:
                pipelines.clear()
            pipelines[process] = Pipeline(self.driver)
        return pipelines[process]

    def execute(
        self,
        statement: Executable,
        parameters: Values | Sequence[Values] | None = None,
        *,
        execution_options: Mapping[str, Any] | None = None,
    ) -> CursorResult[Any]:
        """Execute ``statement``. Of a frequent one without rows, the result has nothing but ``rowcount``."""
        several = isinstance(parameters, Sequence)
        rows: Sequence[Values] = parameters if isinstance(parameters, Sequence) else [parameters or {}]
        found = self._statements.find(statement, rows[0]) if rows else None
        if found is None:
            self.send_waiting()
            return super().execute(statement, parameters, execution_options=execution_options)
        if found.make_row is None or several:
            return cast("CursorResult[Any]", _Changed(self, [self._add(found, row) for row in rows]))
        answer = self._ahead.pop(_key(found, rows[0]), None) or self._add(found, rows[0])
        self.send_waiting()
        return cast("CursorResult[Any]", Rows(found.make_row, answer.rows))

    def send_ahead(self, asked: Iterable[Asked]) -> None:
        """Send frequent statements with those that wait. Each is executed later with the same values, and has
        the rows that there were now."""
        for statement, values in asked:
            found = self._statements.find(statement, values)
            if found is not None:
                self._ahead[_key(found, values)] = self._add(found, values)

    def exec_driver_sql(self, statement: str, *arguments: Any, **options: Any) -> CursorResult[Any]:
        """Execute the text of a statement."""
        self.send_waiting()
        return super().exec_driver_sql(statement, *arguments, **options)

    def _add(self, found: CompiledStatement, values: Values) -> Answer:
        answer = Answer()
        self._waiting.append((found.statement, found.parameters(values), answer))
        return answer

    def send_waiting(self) -> None:
        """Send what waits, and wait for the answers. Raises :class:`psycopg.Error`."""
        if self._waiting:
            self._send()

    def commit_waiting(self, seconds: float) -> bytes | None:
        """Send what waits and a COMMIT; return the server's tag of the latter.

        Raises :class:`psycopg.Error` if nothing was committed, or if that is not known: then the connection
        is closed. The COMMIT itself may take ``seconds``.
        """
        return self._send(commit_seconds=seconds)

    def _send(self, *, commit_seconds: float | None = None) -> bytes | None:
        pipeline = self._pipeline
        waiting, self._waiting = self._waiting, []
        committed = None
        pipeline.open()
        try:
            for statement, parameters, answer in waiting:
                pipeline.send(statement, parameters, answer)
            if commit_seconds is not None:
                pipeline.ask_answers()  # before the server waits in the COMMIT
                committed = pipeline.send_once(b"COMMIT")
            pipeline.end()
            _receive(self.driver, pipeline, commit_seconds)
        except BaseException:
            self.driver.close()  # it is not known what is in flight
            raise
        pipeline.close()
        if pipeline.error is not None:
            raise pipeline.error
        return None if committed is None else committed.tag


def _key(found: CompiledStatement, values: Values) -> Hashable:
    return found.statement, *found.parameters(values)


def _receive(driver: psycopg.Connection[Any], pipeline: Pipeline, commit_seconds: float | None) -> None:
    """Wait until all is answered.

    A COMMIT, which is the last, may take ``commit_seconds`` once all before it is answered: the server limits
    how long the others take, but not that. Raises :class:`psycopg.OperationalError`.
    """
    answers = select.poll()
    flushed = pipeline.flush()
    answers.register(driver.fileno(), select.POLLIN if flushed else select.POLLIN | select.POLLOUT)
    committing = False
    end = None if commit_seconds is None else time.monotonic() + STATEMENT_SECONDS + commit_seconds
    while True:
        if commit_seconds is not None and not committing and pipeline.unanswered == 1:
            committing = True
            end = time.monotonic() + commit_seconds
        left = None if end is None else max(0.0, end - time.monotonic()) * 1000
        if not answers.poll(left):
            raise psycopg.OperationalError(f"the server did not answer a COMMIT within {commit_seconds:g} s")
        if not flushed and pipeline.flush():
            flushed = True
            answers.modify(driver.fileno(), select.POLLIN)
        if pipeline.receive():
            return
