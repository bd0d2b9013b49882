"""The entries of the journal as the newest schema has them, in a catalog of any schema."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    FromClause,
    MetaData,
    Table,
    func,
    inspect,
    literal,
    select,
)

from digestry.catalog.journal_hashes import HASHED_IF_GIVEN
from digestry.catalog.schema import journal

_UNNUMBERED: Final = Table(
    "journal",
    MetaData(),
    Column("sequence", BigInteger, primary_key=True),
    *(
        Column(column.name, column.type)
        for column in journal.columns
        if column.name not in {"sequence", "number", *HASHED_IF_GIVEN}
    ),
)
_NUMBERED: Final = Table(
    "journal",
    MetaData(),
    *(Column(column.name, column.type) for column in journal.columns if column.name not in HASHED_IF_GIVEN),
)
_NONE: Final = [literal(None, journal.c[name].type).label(name) for name in HASHED_IF_GIVEN]


def journal_source(connection: Connection) -> FromClause:
    """Return the source to select entries from: the table, or, before schema 0009, a query that adds the
    numbers which its migration assigns. Before schema 0015 no entry has what that added."""
    columns = {column["name"] for column in inspect(connection).get_columns(journal.name)}
    if columns.issuperset(HASHED_IF_GIVEN):
        return journal
    if "number" in columns:
        return select(_NUMBERED, *_NONE).subquery(journal.name)
    last = connection.execute(select(func.coalesce(func.max(_UNNUMBERED.c.sequence), 0))).scalar_one()
    numbered = (_UNNUMBERED.c.sequence - last).label("number")
    return select(_UNNUMBERED, numbered, *_NONE).subquery(journal.name)
