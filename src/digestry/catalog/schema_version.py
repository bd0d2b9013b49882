"""The check that a catalog has a schema which this digestry works with."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable

from sqlalchemy import Connection, select

from digestry.catalog.migrations import versions
from digestry.catalog.schema import schema_support
from digestry.errors import StorageError


@functools.cache
def newest_schema() -> str:
    """Return the newest schema that this digestry knows, such as ``0004``."""
    return max(name[1:5] for _, name, _ in pkgutil.iter_modules(versions.__path__))


def oldest_support(connection: Connection) -> str | None:
    """Return which schema the oldest digestry knows that may use a catalog of schema 0013 or later."""
    return connection.execute(select(schema_support.c.oldest)).scalar()


def check_schema(
    schema: object,
    catalog: str,
    *,
    older: bool = False,
    oldest: Callable[[], object] = lambda: None,
) -> None:
    """Raise :class:`StorageError` unless this digestry works with ``schema``, which ``catalog`` says that it
    has: the newest one, with ``older`` an older one, or a later one that it may use.

    ``oldest`` is called for a later one; see :func:`oldest_support`.
    """
    if not isinstance(schema, str):
        raise StorageError(
            f"{catalog} is no catalog: it does not say which schema it has",
            hint="restore the catalog from a backup; the blobs beside it are not touched",
        )
    newest = newest_schema()
    if schema > newest:
        needed = oldest()
        if not isinstance(needed, str) or needed > newest:
            raise StorageError(
                f"the catalog {catalog} has schema {schema}, and this digestry knows none after {newest}",
                hint="a newer digestry has changed it: use that one, or one newer still",
            )
    if schema < newest and not older:
        raise StorageError(
            f"the catalog {catalog} has schema {schema}, and this digestry works with {newest}",
            hint="digestry serve brings it up to date; or use the digestry that serves it",
        )
