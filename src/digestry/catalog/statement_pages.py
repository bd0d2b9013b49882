"""What advisories state about a vulnerability, by repository and image.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, tuple_

from digestry.catalog.schema import advisory_statements


@dataclass(frozen=True, slots=True)
class StatedImage:
    """What an advisory states about an image, or about a layer; ``stated_at`` is microseconds since 1970."""

    repository: str
    subject: str
    advisory: str
    status: str
    stated_at: int


def statements_about(
    connection: Connection,
    vulnerability: str,
    *,
    beginning: str,
    after: tuple[str, str, str] = ("", "", ""),
    limit: int,
) -> list[StatedImage]:
    """Return the statements about a vulnerability in repositories whose names begin so, in the order of
    repository, subject and advisory, those after one."""
    table = advisory_statements.c
    key = (table.repository, table.subject, table.advisory)
    query = (
        select(*key, table.status, table.stated_at)
        .where(table.vulnerability == vulnerability, tuple_(*key) > tuple_(*after))
        .order_by(*key)
        .limit(limit)
    )
    if beginning:
        end = f"{beginning}\x7f"  # after every character that a name may have
        query = query.where(table.repository >= beginning, table.repository < end)
    return [StatedImage(**row._mapping) for row in connection.execute(query)]
