from __future__ import annotations

import inspect

import pytest

from digestry import errors
from digestry.errors import DigestryError

FAMILIES = (errors.CallerError, errors.RemoteError, errors.ContentError, errors.StorageError)
ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DigestryError)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_blames_exactly_one_party(kind: type[DigestryError]) -> None:
    assert sum(issubclass(kind, family) for family in FAMILIES) == (kind is not DigestryError)


def test_an_error_says_what_and_what_to_do() -> None:
    error = errors.Unauthorized("no", status=401, code="UNAUTHORIZED", hint="log in")
    assert (str(error), error.message, error.hint) == ("no", "no", "log in")
    assert (error.status, error.code) == (401, "UNAUTHORIZED")
    assert errors.TooLarge("too much", limit=5).limit == 5
    assert errors.NotFound("gone").hint == ""
