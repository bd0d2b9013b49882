"""The commit of a transaction, whose end is known or is not."""

from __future__ import annotations

import select
import time
from typing import Any, Final

import psycopg
from psycopg import errors, pq

SECONDS: Final = 10.0
"""How long a commit may take. No limit of the server's ends its wait for a standby server."""


class Warned(Exception):
    """The server has committed and warns of it: it stopped waiting for its standby, which may not have it."""


def commit(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Commit the transaction of ``connection``.

    Raises :class:`psycopg.Error` if it was not committed, or if nobody knows: then the connection is closed.
    Raises :class:`Warned`.
    """
    warnings: list[str] = []

    def note(notice: Any) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary or "a warning")

    connection.add_notice_handler(note)
    try:
        tag = _tag(connection, seconds)
    finally:
        connection.remove_notice_handler(note)
    if tag != b"COMMIT":
        raise psycopg.InternalError("a statement of the transaction had failed: all of it was undone")
    if warnings:
        raise Warned(warnings[0])


def _tag(connection: psycopg.Connection[Any], seconds: float) -> bytes | None:
    """Return the command tag of the server's answer to COMMIT."""
    server = connection.pgconn
    end = time.monotonic() + seconds
    answers = select.poll()
    answers.register(server.socket, select.POLLIN)
    server.send_query(b"COMMIT")
    while server.flush() or server.is_busy():
        left = end - time.monotonic()
        if left <= 0 or not answers.poll(left * 1000):
            connection.close()
            raise psycopg.OperationalError(f"the server did not answer a COMMIT within {seconds:g} s")
        server.consume_input()
    tag = None
    while (result := server.get_result()) is not None:
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result)
        tag = result.command_status
    return tag
