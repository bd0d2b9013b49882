from __future__ import annotations

import re

import pytest

from digestry import errors
from digestry.cli import exit_codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidDigest("x"), 2),
        (errors.InvalidReference("x"), 2),
        (errors.InvalidManifest("x"), 2),
        (errors.InvalidConfiguration("x"), 2),
        (errors.TooLarge("x", limit=1), 2),
        (errors.Conflict("x"), 2),
        (errors.NotFound("x"), 4),
        (errors.Unreachable("x"), 3),
        (errors.Refused("x", status=500), 3),
        (errors.Unauthorized("x", status=401), 3),
        (errors.ProtocolViolation("x"), 3),
        (errors.RemoteNotFound("x", status=404), 4),
        (errors.DigestMismatch("x"), 5),
        (errors.SizeMismatch("x"), 5),
        (errors.StorageError("x"), 6),
        (errors.DigestryError("x"), 70),
    ],
)
def test_every_error_has_its_code(error: errors.DigestryError, code: int) -> None:
    assert exit_codes.of(error) == code


def test_every_code_is_documented_once() -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    documented = [int(code) for code in re.findall(r"^  (\d+) ", exit_codes.EPILOG, re.MULTILINE)]
    assert documented == sorted(codes)


def test_no_family_is_a_defect() -> None:
    families: tuple[type[errors.DigestryError], ...] = (
        errors.CallerError,
        errors.RemoteError,
        errors.ContentError,
        errors.StorageError,
    )
    for family in families:
        assert exit_codes.of(family("x")) not in {exit_codes.INTERNAL, exit_codes.FINDINGS, exit_codes.OK}
