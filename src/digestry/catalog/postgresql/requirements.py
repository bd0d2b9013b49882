"""The check that a database is one that a catalog can be in."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from digestry.errors import InvalidConfiguration

VERSION: Final = 15_00_00
"""PostgreSQL 15, as the server has it in ``server_version_num``."""
FUNCTIONS: Final = (
    "pg_current_snapshot",
    "pg_current_xact_id",
    "pg_get_serial_sequence",
    "pg_xact_status",
    "set_config",
)
"""The functions of ``pg_catalog`` that are called; not every database with PostgreSQL's protocol has them."""
_NEEDED: Final = "digestry needs PostgreSQL 15 or later, as its own or as a hosted server"


def check_requirements(connection: Connection, name: str) -> None:
    """Raise :class:`InvalidConfiguration` unless the database ``name`` has all that a catalog needs.

    Changes nothing. The tables of a database that lacks something are not made.
    """
    try:
        with connection.begin_nested():
            lacking = _lacking(connection)
    except DBAPIError as error:
        lacking = [" ".join(str(error.orig).split())]
    if lacking:
        raise InvalidConfiguration(
            f"the database {name} cannot have a catalog: {'; '.join(lacking)}", hint=_NEEDED
        )


def _lacking(connection: Connection) -> list[str]:
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    found = [f"it is version {version // 10_000}"] if version < VERSION else []
    for function in FUNCTIONS:
        query = text(
            "SELECT 1 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
            " WHERE n.nspname = 'pg_catalog' AND p.proname = :function LIMIT 1"
        )
        if connection.execute(query, {"function": function}).first() is None:
            found.append(f"it has no function {function}")
    language = text("SELECT 1 FROM pg_catalog.pg_language WHERE lanname = 'plpgsql'")
    if connection.execute(language).first() is None:
        found.append("it has no language plpgsql")
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        found.append(f"its texts are {encoding}, not UTF8")
    return found
