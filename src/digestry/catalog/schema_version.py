"""The check that a catalog has the schema which this digestry works with."""

from __future__ import annotations

import functools
import pkgutil

from digestry.catalog.migrations import versions
from digestry.errors import StorageError


@functools.cache
def newest_schema() -> str:
    """Return the newest schema that this digestry knows, such as ``0004``."""
    return max(module.name[1:5] for module in pkgutil.iter_modules(versions.__path__))


def check_schema(schema: object, catalog: str, *, older: bool = False) -> None:
    """Raise :class:`StorageError` unless ``schema``, which ``catalog`` says that it has, is the newest; with
    ``older``, an older one will do."""
    if not isinstance(schema, str):
        raise StorageError(
            f"{catalog} is no catalog: it does not say which schema it has",
            hint="restore the catalog from a backup; the blobs beside it are not touched",
        )
    if schema > newest_schema():
        raise StorageError(
            f"the catalog {catalog} has schema {schema},"
            f" and this digestry knows none after {newest_schema()}",
            hint="a newer digestry has changed it: use that one, or one newer still",
        )
    if schema < newest_schema() and not older:
        raise StorageError(
            f"the catalog {catalog} has schema {schema}, and this digestry works with {newest_schema()}",
            hint="digestry serve brings it up to date; or use the digestry that serves it",
        )
