"""Frequent statements: those that run in every push or pull, and are built once.

A database may run them without SQLAlchemy, which takes several times as long for a short statement as the
database itself.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from sqlalchemy import Executable

OPTION: Final = "frequent"
"""The execution option of a frequent statement."""

S = TypeVar("S", bound=Executable)
T = TypeVar("T")


def frequent(statement: S) -> S:
    """Return ``statement``, which is kept for as long as the process lives, as a frequent one.

    It is always executed with the same names of parameters.
    """
    return statement.execution_options(**{OPTION: True})


def is_frequent(statement: Executable) -> bool:
    """Return whether ``statement`` is a frequent one."""
    return OPTION in statement.get_execution_options()


RowType: TypeAlias = Callable[[Iterable[object]], Any]
"""Makes a row, whose columns are attributes, of its values."""


def row_type(columns: Sequence[str]) -> RowType:
    """Return what makes the rows of a statement with these columns."""
    named: Any = namedtuple("Row", columns, rename=True)  # type: ignore[misc] # the statement's
    make: RowType = named._make
    return make


class Rows:
    """The rows of a frequent statement, all of them read.

    It has what the catalog uses of SQLAlchemy's results, which take as long as the statement itself.
    """

    __slots__ = ("_make", "_values")

    def __init__(self, make: RowType, values: Sequence[Sequence[Any]]) -> None:
        self._make = make
        self._values = values

    def __iter__(self) -> Iterator[Any]:
        return map(self._make, self._values)

    def all(self) -> list[Any]:
        """Return the rows."""
        return list(self)

    def first(self) -> Any:
        """Return the first row; None if there is none."""
        return self._make(self._values[0]) if self._values else None

    def scalar(self) -> Any:
        """Return the first column of the first row; None if there is none."""
        return self._values[0][0] if self._values else None

    def scalar_one(self) -> Any:
        """Return the only column of a statement that always has one row."""
        ((value,),) = self._values
        return value

    def scalars(self) -> list[Any]:
        """Return the first columns of all rows."""
        return [values[0] for values in self._values]


class PreparedStatements(Generic[T]):
    """The frequent statements of one database, each compiled when it is first executed. Thread-safe.

    ``compile_`` makes of a statement, and the names of its values, what the database runs.
    """

    def __init__(self, compile_: Callable[[Executable, Iterable[str]], T]) -> None:
        self._compile = compile_
        self._found: dict[Executable, T] = {}

    def find(self, statement: Executable, names: Iterable[str]) -> T | None:
        """Return ``statement``, compiled for values of these names; None if it is not a frequent one."""
        found = self._found.get(statement)
        if found is None and is_frequent(statement):
            found = self._found[statement] = self._compile(statement, names)
        return found
