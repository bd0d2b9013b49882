"""The commit of a transaction, whose end is known or is not."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from digestry.catalog.postgresql.prepared import PreparedConnection

SECONDS: Final = 10.0
"""How long a commit may take. No limit of the server's ends its wait for a standby server."""


class Warned(Exception):
    """The server has committed and warns of it: it stopped waiting for its standby, which may not have it."""


def commit(connection: PreparedConnection, seconds: float) -> None:
    """Commit the transaction of ``connection``, with what it has not sent yet.

    Raises :class:`psycopg.Error` if it was not committed, or if the outcome is unknown: then the connection
    is closed. Raises :class:`Warned`.
    """
    warnings: list[str] = []

    def note(notice: Any) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary or "a warning")

    connection.driver.add_notice_handler(note)
    try:
        tag = connection.commit_waiting(seconds)
    finally:
        connection.driver.remove_notice_handler(note)
    if tag != b"COMMIT":
        raise psycopg.InternalError("a statement of the transaction had failed: all of it was undone")
    if warnings:
        raise Warned(warnings[0])
