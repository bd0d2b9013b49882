"""The connections through which the coordination uses its database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from digestry.coordination.postgresql.time_limit import TimeLimit
from digestry.errors import StorageError

_SECONDS: Final = 4.0
"""How long a use of a connection may take: less than a lease."""


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

    @contextlib.contextmanager
    def statements(self) -> Iterator[Connection]:
        """Open a connection on which each statement is a transaction of its own: one round trip."""
        with self._errors(), self._statements.connect() as connection, self._limit.around(connection):
            yield connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction, READ COMMITTED, which is committed when the block ends without error."""
        with self._errors(), self._transactions.begin() as connection, self._limit.around(connection):
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._failure(error) from error
