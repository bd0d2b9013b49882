"""Runs the migrations of a catalog on a connection."""

from __future__ import annotations

import threading

from sqlalchemy import Connection

from digestry.errors import StorageError

_TURN = threading.Lock()  # what a migration works on is global in Alembic


def upgrade(connection: Connection, catalog: str) -> None:
    """Bring the schema of ``catalog`` up to date, in the transaction of ``connection``.

    Raises :class:`StorageError` if a newer digestry has changed it.
    """
    from alembic import command  # noqa: PLC0415 - takes a third of a second; workers do not need it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "digestry.catalog:migrations")
    config.attributes["connection"] = connection
    try:
        with _TURN:
            command.upgrade(config, "head")
    except CommandError as error:
        raise StorageError(
            f"the catalog {catalog} failed: {error}",
            hint="a newer digestry has changed it: serve it with that one, or one newer still",
        ) from error
