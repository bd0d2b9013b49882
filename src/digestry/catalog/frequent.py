"""Frequent statements: those that run in every push or pull, and are built once.

A database may run them without SQLAlchemy, which takes several times as long for a short statement as the
database itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

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
