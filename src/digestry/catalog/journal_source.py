"""The entries of the journal as the newest schema has them, in a catalog of any schema."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Connection, FromClause, MetaData, Table, func, inspect, select

from digestry.catalog.schema import journal

_UNNUMBERED: Final = Table(
    "journal",
    MetaData(),
    Column("sequence", BigInteger, primary_key=True),
    *(
        Column(column.name, column.type)
        for column in journal.columns
        if column.name not in {"sequence", "number"}
    ),
)


def journal_source(connection: Connection) -> FromClause:
    """Return the source to select entries from: the table, or, before schema 0009, a query that adds the
    numbers which its migration assigns."""
    if any(column["name"] == "number" for column in inspect(connection).get_columns(journal.name)):
        return journal
    last = connection.execute(select(func.coalesce(func.max(_UNNUMBERED.c.sequence), 0))).scalar_one()
    return select(_UNNUMBERED, (_UNNUMBERED.c.sequence - last).label("number")).subquery(journal.name)
