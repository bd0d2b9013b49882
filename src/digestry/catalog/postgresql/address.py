"""The address of a PostgreSQL database, which never shows its password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from digestry.errors import InvalidConfiguration

SCHEMES: Final = ("postgresql://", "postgres://")
_PORT: Final = "5432"

# A network that swallows packets is noticed within some 15 seconds (libpq, "Parameter Key Words").
_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "digestry",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "client_encoding": "UTF8",
}


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """The address of a database, and the user who logs in. ``name`` is for messages."""

    name: str
    conninfo: str = field(repr=False)


def parse_address(text: str) -> DatabaseAddress:
    """Return the address of a URL, ``postgresql://user:password@host:port/database?sslmode=require``.

    Parts that the URL leaves out come from the variables that libpq reads (``PGPASSWORD``, ``PGPASSFILE``).
    Raises :class:`InvalidConfiguration`, whose message repeats nothing of a URL that cannot be parsed.
    """
    if not text.startswith(SCHEMES):
        raise InvalidConfiguration(
            "the address of the database does not begin with postgresql://",
            hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        )
    try:
        given = conninfo_to_dict(text)
        conninfo = make_conninfo(**{**_DEFAULTS, **given})
    except (ProgrammingError, UnicodeError):
        raise InvalidConfiguration(
            "the address of the database is no URL that PostgreSQL's library can read",
            hint="write special characters of a password as %XX: postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        ) from None
    hosts = str(given.get("host") or given.get("hostaddr") or "localhost").split(",")
    ports = str(given.get("port") or _PORT).split(",")
    places = (f"{host}:{ports[number % len(ports)]}" for number, host in enumerate(hosts))
    database = given.get("dbname") or given.get("user") or ""
    return DatabaseAddress(f"postgresql://{','.join(places)}/{database}", conninfo)
