"""Runs the migrations of a catalog on a connection."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, insert

from digestry.catalog.migrations import versions
from digestry.catalog.schema import schema_support
from digestry.catalog.schema_version import check_schema, newest_schema, oldest_support
from digestry.errors import StorageError

if TYPE_CHECKING:
    from alembic.config import Config

_TURN = threading.Lock()  # what a migration works on is global in Alembic
_SUPPORT: Final = "0013"
"""The first schema that says which digestry may use it."""


def upgrade(connection: Connection, catalog: str) -> None:
    """Bring the schema of ``catalog`` up to date, in the transaction of ``connection``.

    If a newer digestry has changed it before, nothing is done. Raises :class:`StorageError` if this one does
    not work with it.
    """
    from alembic import command  # noqa: PLC0415 - takes a third of a second; workers do not need it
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    schema = MigrationContext.configure(connection).get_current_revision()
    if schema is not None and schema > newest_schema():
        check_schema(schema, catalog, oldest=lambda: oldest_support(connection))
        return
    config = _config(connection)
    try:
        with _TURN:
            command.upgrade(config, "head")
    except CommandError as error:
        raise StorageError(f"the catalog {catalog} failed: {error}") from error
    if schema != newest_schema():
        _note_support(connection, config)


def _config(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "digestry.catalog:migrations")
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", os.pathsep.join(versions.__path__).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _note_support(connection: Connection, config: Config) -> None:
    """Write which digestry may use the schema: the oldest one that no migration has shut out.

    A migration names the schema of the oldest digestry that may go on as ``oldest``; without that, only those
    may that know the migration.
    """
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    scripts = ScriptDirectory.from_config(config).walk_revisions()
    oldest = max(getattr(script.module, "oldest", script.revision) for script in scripts)
    connection.execute(schema_support.delete())
    connection.execute(insert(schema_support), {"oldest": max(oldest, _SUPPORT)})
