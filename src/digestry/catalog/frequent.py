"""Frequent statements: those that run in every push or pull, and are built once.

A database may run them without SQLAlchemy, which takes several times as long for a short statement as the
database itself.
"""

from __future__ import annotations

from typing import Final, TypeVar

from sqlalchemy import Executable

OPTION: Final = "frequent"
"""The execution option of a frequent statement."""

S = TypeVar("S", bound=Executable)


def frequent(statement: S) -> S:
    """Return ``statement``, which is kept for as long as the process lives, as a frequent one.

    It is always executed with the same names of parameters.
    """
    return statement.execution_options(**{OPTION: True})


def is_frequent(statement: Executable) -> bool:
    """Return whether ``statement`` is a frequent one."""
    return OPTION in statement.get_execution_options()
