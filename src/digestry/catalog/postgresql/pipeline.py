"""Statements in libpq's pipeline: several in flight at a time, each planned once for a connection.

A statement is prepared under a name that is the hash of its text. So a pooler in transaction mode may give
each transaction another server connection: a name means the same statement there, or does not exist.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

PLAN_SECONDS: Final = 10.0
"""How long a plan is used: one that was made for a small table is not used for long when the table grows."""

Row: TypeAlias = tuple[Any, ...]
Value: TypeAlias = "str | int | bool | Sequence[str] | None"

CAN_CLOSE: Final = pq.version() >= 17_00_00
"""Whether libpq can end a prepared statement in a pipeline. If not, statements have no names."""
_STALE: Final = frozenset({"26000", "42P05", "0A000"})


@dataclass(frozen=True, slots=True)
class ServerStatement:
    """A statement with parameters ``$1``, ``$2`` …, and the name that it is prepared under."""

    name: bytes
    text: bytes


def server_statement(text: str) -> ServerStatement:
    """Return ``text`` as a statement that can be sent."""
    return ServerStatement(
        b"digestry_" + hashlib.sha256(text.encode()).hexdigest()[:32].encode(), text.encode()
    )


def is_stale(error: BaseException) -> bool:
    """Return whether a statement failed because the server no longer has it, or its plan."""
    return getattr(error, "sqlstate", None) in _STALE


class Answer:
    """The answer to a statement: its rows, or how many rows it changed."""

    __slots__ = ("changed", "rows", "tag")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.changed = 0
        self.tag: bytes | None = None


class Pipeline:
    """The statements in flight on one connection, which has no other user meanwhile.

    It never waits: its owner waits until the socket can be read, or written. ``error`` is that of the first
    statement that failed; the statements sent after it were not run.
    """

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._server = connection.pgconn
        self._transformer = Transformer(connection)
        self._expected: deque[Answer | None] = deque()
        self._prepared: dict[ServerStatement, float] = {}
        self.error: psycopg.Error | None = None

    def open(self) -> None:
        """Begin: from here on the connection takes no statements but those of the pipeline."""
        self.error = None
        self._server.enter_pipeline_mode()

    def close(self) -> None:
        """End, after all was received."""
        self._server.exit_pipeline_mode()

    def send(self, statement: ServerStatement, parameters: Sequence[bytes | None], answer: Answer) -> None:
        """Send a statement with :func:`encoded` parameters. Raises :class:`psycopg.Error`."""
        if CAN_CLOSE:
            now = time.monotonic()
            if self._prepared.get(statement, 0.0) < now:
                self._server.send_close_prepared(statement.name)
                self._server.send_prepare(statement.name, statement.text)
                self._expected += (None, None)
                self._prepared[statement] = now + PLAN_SECONDS
            self._server.send_query_prepared(statement.name, parameters)
        else:
            self._server.send_query_params(statement.text, parameters)
        self._expected.append(answer)

    def send_once(self, text: bytes) -> Answer:
        """Send a statement that is not prepared; return a placeholder for its answer."""
        self._server.send_query_params(text, None)
        answer = Answer()
        self._expected.append(answer)
        return answer

    def ask_answers(self) -> None:
        """Ask the server to send the answers that it has now."""
        self._server.send_flush_request()

    def end(self) -> None:
        """Send that the statements up to here belong together: after one that fails, the rest is not run."""
        self._server.pipeline_sync()

    def flush(self) -> bool:
        """Write what was sent to the socket; return False if not all of it fits now."""
        return self._server.flush() == 0

    def receive(self) -> bool:
        """Read the server's answers, once the socket can be read; return whether all have arrived.

        Raises :class:`psycopg.OperationalError` if the connection broke.
        """
        server = self._server
        server.consume_input()
        at_end = False
        while not server.is_busy():
            result = server.get_result()
            if result is None:
                if server.status == pq.ConnStatus.BAD:
                    raise self.error or psycopg.OperationalError("the server closed the connection")
                if at_end:
                    return False  # no statement is in flight: the server sent a notice
                at_end = True  # of one statement's results
                continue
            at_end = False
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return True
            self._take(result, self._expected.popleft())
        return False

    @property
    def unanswered(self) -> int:
        """Return how many statements have no answer yet."""
        return sum(answer is not None for answer in self._expected)

    def _take(self, result: Any, answer: Answer | None) -> None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            self.error = self.error or failed(self._server, result)
            self._prepared.clear()  # a statement that was not run was not prepared either
        elif answer is not None and result.status != pq.ExecStatus.PIPELINE_ABORTED:
            answer.tag = result.command_status
            answer.changed = result.command_tuples or 0
            if result.ntuples:
                self._transformer.set_pgresult(result)
                answer.rows = self._transformer.load_rows(0, result.ntuples, tuple)


def failed(server: pq.abc.PGconn, result: pq.abc.PGresult) -> psycopg.Error:
    """Return the error of a statement that failed."""
    if server.status == pq.ConnStatus.BAD and not result.error_field(pq.DiagnosticField.SQLSTATE):
        return psycopg.OperationalError(result.get_error_message().strip())
    return errors.error_from_result(result)


def encoded(value: Value) -> bytes | None:
    """Return a value as the server reads it. Raises :class:`psycopg.DataError` if it cannot be."""
    if value is None:
        return None
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int):
        text = str(value)
    else:
        text = _array(value)
    if "\0" in text:
        raise psycopg.DataError("a text has a NUL character")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise psycopg.DataError("a text is no Unicode") from error


def _array(texts: Sequence[str]) -> str:
    """Return the literal of an array (PostgreSQL's manual, "Array Input and Output Syntax")."""
    joined = '","'.join(texts)
    if joined.count('"') != 2 * (len(texts) - 1) or "\\" in joined:
        joined = '","'.join(text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return f'{{"{joined}"}}' if texts else "{}"
