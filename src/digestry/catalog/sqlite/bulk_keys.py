"""Many keys in one statement: a table of pairs, to be joined with.

As JSON in one parameter: the statement stays the same, whatever the number, and SQLite looks each
pair up in an index, which it does not for ``(a, b) IN (VALUES …)`` (sqlite.org/rowvalue.html).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, TableValuedAlias, func


@dataclass(frozen=True, slots=True)
class BulkKeys:
    """The pairs as a ``table`` with two columns."""

    table: TableValuedAlias
    first: ColumnElement[Any]
    second: ColumnElement[Any]


def pairs(keys: Iterable[tuple[int | str, str]]) -> BulkKeys:
    """A table of ``keys``."""
    encoded = msgspec.json.encode(list(keys)).decode()
    table = func.json_each(encoded).table_valued("value", name="wanted")
    return BulkKeys(table, func.json_extract(table.c.value, "$[0]"), func.json_extract(table.c.value, "$[1]"))
