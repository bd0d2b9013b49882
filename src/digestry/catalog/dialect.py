"""The dialect: what each database writes in its own way, as the statements ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from sqlalchemy import Connection, Insert, Select, Table
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.elements import ColumnElement, KeyedColumnElement
from sqlalchemy.sql.selectable import TableValuedAlias

if TYPE_CHECKING:
    from digestry.catalog.upserts import Upserts

OPTION: Final = "catalog_dialect"
"""The execution option of an engine that has its dialect."""

NewRow: TypeAlias = ReadOnlyColumnCollection[str, KeyedColumnElement[Any]]
"""The columns of a row that could not be inserted because one with its key is there."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a row that is there: new ``values`` of columns, if ``where`` holds."""

    values: Mapping[str, ColumnElement[Any]]
    where: ColumnElement[bool] | None = None


@dataclass(frozen=True, slots=True)
class BulkKeys:
    """Pairs as a ``table`` with two columns, to be joined with."""

    table: TableValuedAlias
    first: ColumnElement[Any]
    second: ColumnElement[Any]


class Dialect(Protocol):
    """How one database writes what is not the same in all of them."""

    @property
    def upserts(self) -> Upserts:
        """Return the statements that insert a row or change the one that is there, each built once."""
        ...

    def insert_or_ignore(self, table: Table) -> Insert:
        """Return an INSERT that leaves a row which is there already as it is."""
        ...

    def insert_or_update(
        self, table: Table, key: Sequence[str], change: Callable[[NewRow], Change]
    ) -> Insert:
        """Return an INSERT that changes the row which has the same ``key`` columns."""
        ...

    def bulk_keys(self, keys: Iterable[tuple[int | str, str]]) -> BulkKeys:
        """Return ``keys`` as a table, in one parameter: the statement stays the same, whatever the number."""
        ...

    def bulk_numbers(self, numbers: Iterable[int]) -> Select[Any]:
        """Return ``numbers`` as a SELECT of one column, in one parameter."""
        ...

    def row_id(self, table: Table) -> ColumnElement[int]:
        """Return what tells the rows of a table apart within one transaction."""
        ...

    def byte_length(self, text: ColumnElement[str]) -> ColumnElement[int]:
        """Return the length of a text in bytes of UTF-8."""
        ...

    def damage_of(self, connection: Connection, table: str) -> str | None:
        """Return how the table and its indices differ; None if they do not."""
        ...


def of(connection: Connection) -> Dialect:
    """Return the dialect of a connection's database."""
    return cast("Dialect", connection.get_execution_options()[OPTION])
