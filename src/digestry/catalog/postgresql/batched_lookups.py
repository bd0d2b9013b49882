"""Look-ups on an event loop, sent in batches: those that wait together share one statement.

A look-up is sent after it was requested, so that its answer includes everything committed before. While all
connections are busy, look-ups wait; all that wait when a connection becomes free are sent as one statement,
in one round trip: the more there are, the less each costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import psycopg

from digestry.catalog.postgresql.address import DatabaseAddress
from digestry.catalog.postgresql.connection import OPTIONS
from digestry.catalog.postgresql.failures import LATER, failure
from digestry.catalog.postgresql.pipeline import (
    Answer,
    Pipeline,
    Row,
    ServerStatement,
    Value,
    encoded,
    is_stale,
    server_statement,
)
from digestry.errors import StorageBusy, StorageError

CONNECTIONS: Final = 2
"""Connections of one event loop: with more of them fewer look-ups would meet."""
MOST: Final = 500
"""Look-ups of one statement."""
SECONDS: Final = 5.0
"""How long the database may take to answer a statement."""

Key: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A kind of look-up. The ``statement`` takes one array for each part of the keys; each row of its answer
    begins with the number, from 1, of the key that it is of."""

    statement: ServerStatement


def question(statement: str) -> Question:
    """Return the kind of look-up that ``statement`` answers."""
    return Question(server_statement(statement))


class BatchedLookups:
    """The look-ups of one event loop. Not thread-safe. Connects when it is first asked."""

    def __init__(
        self, address: DatabaseAddress, *, connections: int = CONNECTIONS, seconds: float = SECONDS
    ) -> None:
        self._name = address.name
        self._idle = [_Line(address, seconds) for _ in range(connections)]
        self._lines = tuple(self._idle)
        self._waiting: dict[Question, dict[Key, list[asyncio.Future[Row | None]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: deque[asyncio.Future[_Line]] = deque()
        self._one_was_last = False
        self._scheduled = False
        self._closed = False

    def ask(self, question: Question, key: Key) -> asyncio.Future[Row | None]:
        """Return a future of the row of ``key``, without its number; None if there is none.

        Awaiting it raises :class:`StorageError`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Row | None] = loop.create_future()
        if self._closed:
            future.set_exception(self._ended())
            return future
        if not all(map(_possible, key)):
            # One key that cannot be sent must not spoil the statement of all others.
            future.set_result(None)
            return future
        waiting = self._waiting.setdefault(question, {})
        waiting.setdefault(key, []).append(future)
        if self._idle and not self._scheduled:
            # Other tasks that are ready to run may add their look-ups.
            self._scheduled = True
            loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        self._scheduled = False
        while self._idle and self._waiting:
            question = next(iter(self._waiting))  # the one that waits longest
            waiting = self._waiting.pop(question)
            if len(waiting) > MOST:
                keys = list(waiting)
                self._waiting[question] = {key: waiting.pop(key) for key in keys[MOST:]}
            task = asyncio.get_running_loop().create_task(self._answer(self._idle.pop(), question, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, line: _Line, question: Question, waiting: dict[Key, list[asyncio.Future[Row | None]]]
    ) -> None:
        problem: BaseException | None = None
        found: dict[int, Row] = {}
        try:
            rows = await line.rows(question.statement, [list(part) for part in zip(*waiting, strict=True)])
            found = {row[0]: row[1:] for row in rows}
        except psycopg.Error as error:
            problem = error
        except BaseException:
            problem = psycopg.OperationalError("the event loop ends")
            raise
        finally:
            for number, futures in enumerate(waiting.values(), start=1):
                for future in futures:
                    if future.done():
                        continue  # no client waits for it
                    if problem is None:
                        future.set_result(found.get(number))
                    else:
                        future.set_exception(failure(self._name, problem))
            self._release(line)

    async def one(self, statement: ServerStatement, values: Sequence[Value]) -> Row | None:
        """Return the first row of a statement that is of one look-up alone. Raises :class:`StorageError`."""
        if self._closed:
            raise self._ended()
        line = self._idle.pop() if self._idle else await self._next_line()
        try:
            rows = await line.rows(statement, values)
        except psycopg.Error as error:
            raise failure(self._name, error) from error
        finally:
            self._release(line)
        return rows[0] if rows else None

    async def _next_line(self) -> _Line:
        """Wait for a connection that is free again."""
        turn: asyncio.Future[_Line] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release(turn.result())
            raise

    def _release(self, line: _Line) -> None:
        """Give a connection to the next that waits, alternating between look-ups and single statements."""
        turns = [turn for turn in self._turns if not turn.done()]
        self._turns.clear()
        self._turns.extend(turns)
        if turns and not (self._waiting and self._one_was_last):
            self._one_was_last = True
            self._turns.popleft().set_result(line)
            return
        self._one_was_last = False
        self._idle.append(line)
        if not self._closed:
            self._send()

    def _ended(self) -> StorageError:
        return StorageBusy(f"the catalog {self._name} is not read any more: this process ends", hint=LATER)

    async def close(self) -> None:
        """Close the connections, and fail the look-ups that wait."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self._waiting.values():
            for futures in waiting.values():
                for future in futures:
                    if not future.done():
                        future.set_exception(self._ended())
        self._waiting.clear()
        for turn in self._turns:
            if not turn.done():
                turn.set_exception(self._ended())
        for line in self._lines:
            await line.close()


class _Line:
    """A connection that is made when it is needed, and made anew once it broke."""

    def __init__(self, address: DatabaseAddress, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._line: _Connected | None = None

    async def rows(self, statement: ServerStatement, values: Sequence[Value]) -> list[Row]:
        """Return the rows of a statement that changes nothing. Raises :class:`psycopg.Error`."""
        used = self._line
        if used is not None:
            try:
                return await self._ask(used, statement, values)
            except psycopg.OperationalError:
                if not used.closed:
                    raise
                # The server has closed it since it was used last: it was restarted.
                await self.close()
        self._line = _Connected(await psycopg.AsyncConnection.connect(self._address.conninfo, **OPTIONS))
        return await self._ask(self._line, statement, values)

    async def _ask(self, line: _Connected, statement: ServerStatement, values: Sequence[Value]) -> list[Row]:
        limit = asyncio.get_running_loop().call_later(self._seconds, _cut, line.descriptor)
        try:
            try:
                return await line.ask(statement, values)
            except psycopg.Error as error:
                if not is_stale(error):
                    raise
                # A pooler has given this transaction another connection of the server's.
                return await line.ask(statement, values)
        finally:
            limit.cancel()

    async def close(self) -> None:
        """End the connection."""
        if self._line is not None:
            line, self._line = self._line, None
            await line.close()


class _Connected:
    """An open connection, with one statement at a time."""

    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._pipeline = Pipeline(connection)
        self._pipeline.open()
        self._answered: asyncio.Future[None] | None = None
        self.descriptor = connection.fileno()
        self._loop.add_reader(self.descriptor, self._readable)

    @property
    def closed(self) -> bool:
        """Return whether the connection is unusable."""
        return self._connection.closed

    async def ask(self, statement: ServerStatement, values: Sequence[Value]) -> list[Row]:
        """Return the rows of the answer. Raises :class:`psycopg.Error`."""
        pipeline = self._pipeline
        pipeline.error = None
        parameters, answer = [encoded(value) for value in values], Answer()
        pipeline.send(statement, parameters, answer)
        pipeline.end()
        self._answered = self._loop.create_future()
        self._writable()
        try:
            await self._answered
        except asyncio.CancelledError:
            # The answer would be taken for that to the next statement.
            await self.close()
            raise
        if pipeline.error is not None:
            raise pipeline.error
        return answer.rows

    def _writable(self) -> None:
        try:
            if self._pipeline.flush():
                self._loop.remove_writer(self.descriptor)
            else:
                self._loop.add_writer(self.descriptor, self._writable)
        except psycopg.Error as error:
            self._broken(error)

    def _readable(self) -> None:
        try:
            if self._pipeline.receive() and self._answered is not None and not self._answered.done():
                self._answered.set_result(None)
        except psycopg.Error as error:
            self._broken(error)

    def _broken(self, error: psycopg.Error) -> None:
        self._unwatch()
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)

    def _unwatch(self) -> None:
        self._loop.remove_reader(self.descriptor)
        self._loop.remove_writer(self.descriptor)

    async def close(self) -> None:
        """End the connection."""
        self._unwatch()
        await self._connection.close()


def _possible(text: str) -> bool:
    """Return whether a database's text may be this."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _cut(descriptor: int) -> None:
    """Shut a connection down in both directions, so that its reader sees that it broke."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as own:
        own.shutdown(socket.SHUT_RDWR)
