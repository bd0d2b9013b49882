"""Untrusted tokens (JWT, RFC 7519), decoded by a schema.

Text that does not have the form raises :class:`InvalidToken`, and so gives a 401.
"""

from __future__ import annotations

import base64
from typing import Final, TypeVar

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key

from digestry.model.json_types import prepared

LONGEST: Final = 128 << 10
"""In characters, of a whole token."""

_LONGEST_HEADER: Final = 4 << 10
_PARTS: Final = 3
T = TypeVar("T")
_FAR: Final = 1e12  # seconds; in the year 33658


class InvalidToken(Exception):
    """The token is not valid; the text says why, for its sender."""


class Header(msgspec.Struct, frozen=True):
    """The parts of a token's header that are read (RFC 7515, section 4). ``crit`` names extensions, none of
    which is understood here."""

    alg: str
    kid: str | None = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Issued(msgspec.Struct, frozen=True):
    iss: object = None


class _Registry(jws.JWSRegistry):
    max_header_length = _LONGEST_HEADER
    max_payload_length = LONGEST


def header(token: str) -> Header:
    """Return a token's header, not verified. Raises :class:`InvalidToken`."""
    found = _read(token, 0, Header)
    if found.crit is not msgspec.UNSET:
        raise InvalidToken("the token has critical headers, which are not understood here")
    return found


def issuer(token: str) -> str | None:
    """Return the issuer that a token states, not verified. Raises :class:`InvalidToken` if there is none."""
    found = _read(token, 1, _Issued)
    return found.iss if isinstance(found.iss, str) else None


def _read(token: str, part: int, kind: type[T]) -> T:
    parts = token.split(".", _PARTS)
    if len(parts) != _PARTS or len(token) > LONGEST or len(parts[0]) > _LONGEST_HEADER:
        raise InvalidToken("this is no token")
    try:
        raw = base64.urlsafe_b64decode(parts[part] + "=" * (-len(parts[part]) % 4))
        return msgspec.json.decode(raw, type=prepared(kind))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidToken("this is no token") from error


def signed(token: str, key: Key, algorithm: str) -> bytes | None:
    """Return the claims of a token that this key signed, as JSON; None if it did not."""
    try:
        registry = _Registry(algorithms=[algorithm], strict_check_header=False)
        found = jws.deserialize_compact(token, key, algorithms=[algorithm], registry=registry)
    except (JoseError, ValueError, TypeError, RecursionError):
        return None
    return found.payload


def moment(value: object) -> float | None:
    """Return a claim as seconds since 1970; None if it is no time: a text, NaN, or out of range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_FAR < value < _FAR else None
