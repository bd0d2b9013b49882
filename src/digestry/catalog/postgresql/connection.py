"""Connections to a PostgreSQL server, and the statement that begins each transaction.

No connection keeps a setting between two transactions. So each works through a pooler that gives every
transaction another connection of the server's.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from digestry.catalog.postgresql.address import DatabaseAddress

STATEMENT_SECONDS: Final = 30
"""How long one statement may take."""
LOCK_SECONDS: Final = 10
"""How long a statement waits for a row that another transaction has locked."""
IDLE_SECONDS: Final = 60
"""How long a transaction may do nothing: the rows of a node that hangs are not locked for ever."""


def _begin(
    mode: str,
    *,
    statement: int = STATEMENT_SECONDS,
    lock: int = LOCK_SECONDS,
    idle: int = IDLE_SECONDS,
    more: str = "",
) -> str:
    return (
        f"BEGIN ISOLATION LEVEL {mode}; SELECT pg_catalog.pg_backend_pid(),"
        f" pg_catalog.set_config('statement_timeout', '{statement}s', true),"
        f" pg_catalog.set_config('lock_timeout', '{lock}s', true),"
        f" pg_catalog.set_config('idle_in_transaction_session_timeout', '{idle}s', true){more}"
    )


# One message each: limits that last for a transaction cost no round trip of their own. The answer begins with
# the number of the server's process.
_NUMBER: Final = ", pg_catalog.pg_current_xact_id()::text"
_WRITING: Final = "READ COMMITTED READ WRITE"
BEGIN_WRITING: Final = _begin(_WRITING, more=_NUMBER)
"""Begins a transaction that writes; the last column of its answer is the transaction's number."""
BEGIN_WRITING_UNSYNCED: Final = _begin(
    _WRITING, more=f", pg_catalog.set_config('synchronous_commit', 'off', true){_NUMBER}"
)
"""Begins one whose commit does not wait for the disk, nor for a standby server."""
BEGIN_READING: Final = _begin("REPEATABLE READ READ ONLY")
BEGIN_LONG_READING: Final = _begin("REPEATABLE READ READ ONLY", statement=0, idle=0)
BEGIN_MIGRATING: Final = _begin(_WRITING, statement=0, lock=2, idle=0)
BEGIN_COPYING: Final = _begin("REPEATABLE READ READ WRITE", statement=0, idle=0)

OPTIONS: Final[dict[str, Any]] = {"autocommit": True, "prepare_threshold": None}


def connect_directly(address: DatabaseAddress) -> psycopg.Connection[Any]:
    """Return a connection without a transaction. Raises :class:`psycopg.Error`."""
    return psycopg.connect(address.conninfo, **OPTIONS)
