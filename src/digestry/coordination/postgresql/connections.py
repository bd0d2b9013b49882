"""The connections through which the coordination uses its database."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from digestry.coordination.postgresql.time_limit import TimeLimit
from digestry.errors import StorageError

_SECONDS: Final = 4.0
"""How long a use of a connection may take: less than a lease."""
_IDLE_SECONDS: Final = 0.5
"""A connection that was used so shortly before is not tried first."""
_USED: Final = "used"


class Connections:
    """Connections to a PostgreSQL database. Thread-safe. Blocks, for some seconds at most.

    Nothing is open before the first use, nor some seconds after the last. Both ways to open a connection
    raise :class:`StorageError` if the database fails, also within the block.
    """

    def __init__(
        self,
        engine: Engine,
        failure: Callable[[SQLAlchemyError], StorageError],
        *,
        seconds: float = _SECONDS,
    ) -> None:
        """Use the pool of ``engine``. ``failure`` puts an error of the database in the registry's words."""
        self._engine = engine
        self._statements = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._transactions = engine.execution_options(isolation_level="READ COMMITTED")
        self._failure = failure
        self._limit = TimeLimit(seconds, idle=engine.dispose)
        event.listen(engine, "checkout", self._try)
        event.listen(engine, "checkin", _note_use)

    @contextlib.contextmanager
    def statements(self) -> Iterator[Connection]:
        """Open a connection on which each statement is a transaction of its own: one round trip."""
        with self._errors(), self._statements.connect() as connection, self._limited(connection):
            yield connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction, READ COMMITTED, which is committed when the block ends without error."""
        with self._errors(), self._transactions.begin() as connection, self._limited(connection):
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _limited(self, connection: Connection) -> AbstractContextManager[None]:
        driver: Any = connection.connection.driver_connection
        return self._limit.around(driver.fileno())

    def _try(self, driver: Any, record: ConnectionPoolEntry, _: object) -> None:
        """Have the pool replace a connection that was idle, and that the server has closed since."""
        used = record.info.get(_USED)
        if used is None or time.monotonic() - used < _IDLE_SECONDS:
            return
        try:
            with self._limit.around(driver.fileno()):
                self._engine.dialect.do_ping(driver)
        except Exception as error:
            raise DisconnectionError from error

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._failure(error) from error


def _note_use(_: object, record: ConnectionPoolEntry) -> None:
    record.info[_USED] = time.monotonic()
