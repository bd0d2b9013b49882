"""Transactions that a database undid or whose end is not known, and the retries of the former."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from digestry.errors import StorageBusy

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.005


class TransactionUndone(StorageBusy):
    """The database undid the transaction for another's sake: a deadlock, or the same row made twice. Nothing
    was changed."""


class OutcomeUnknown(StorageBusy):
    """The connection broke while the transaction was committed. ``committed`` is the database's answer about
    it afterwards; None if it gave none."""

    def __init__(self, message: str, *, committed: bool | None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.committed = committed


def retried(method: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Return ``method``, which is one transaction and changes nothing else, so that it is called again, a few
    times, if the transaction was undone."""

    @functools.wraps(method)
    def again(*args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        for attempt in range(1, _ATTEMPTS):
            try:
                return method(*args, **options)
            except TransactionUndone:
                # Not at the same moment as the other one.
                time.sleep(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        return method(*args, **options)

    return again
