"""The registry's own tokens: signing and verification (JWT, RFC 7519).

An access token states a user and a requested scope; whenever it is used, the rules decide what of that scope
is allowed. A refresh token, which docker keeps after a login, states only the user.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from joserfc import jwt

from digestry.model.json_types import prepared
from digestry.registry.access import untrusted_tokens
from digestry.registry.access.keys import KeyRing
from digestry.registry.access.untrusted_tokens import InvalidToken

ALGORITHM: Final = "Ed25519"
Purpose = Literal["access", "refresh"]
LEEWAY: Final = 5.0

Grants = Mapping[str, frozenset[str]]
"""The scope of a token: by repository, the actions ``pull``, ``push``, ``delete``."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A verified token. ``credential`` is the fingerprint of the secret that it was issued for."""

    name: str
    ends: float
    credential: str
    grants: Grants
    catalog: bool


class _Entry(msgspec.Struct):
    type: str
    name: str
    actions: tuple[str, ...]


class _Claims(msgspec.Struct):
    iss: str
    aud: str
    sub: str
    exp: int
    purpose: str
    credential: str
    nbf: int = 0
    access: tuple[_Entry, ...] = ()


class Tokens:
    """Signs and verifies the tokens of one registry."""

    def __init__(self, keys: KeyRing, service: str) -> None:
        self._keys = keys
        self._service = service

    def sign(
        self,
        name: str,
        purpose: Purpose,
        *,
        credential: str,
        ends: float,
        access: Sequence[Mapping[str, object]] = (),
    ) -> str:
        """Return a token for ``name`` that is valid until ``ends``, in seconds since 1970."""
        kid, key = self._keys.signing()
        now = int(time.time())
        claims = {
            "iss": self._service,
            "aud": self._service,
            "sub": name,
            "iat": now,
            "nbf": now,
            "exp": int(ends),
            "purpose": purpose,
            "credential": credential,
            "access": list(access),
        }
        return jwt.encode({"alg": ALGORITHM, "kid": kid}, claims, key, algorithms=[ALGORITHM])

    def has_key_of(self, token: str) -> bool:
        """Return whether the key that a token names is known. Raises :class:`InvalidToken`."""
        return self._keys.get(untrusted_tokens.header(token).kid) is not None

    def verify(self, token: str, purpose: Purpose) -> VerifiedToken:
        """Return the content of a token. Raises :class:`InvalidToken`."""
        header = untrusted_tokens.header(token)
        key = self._keys.get(header.kid)
        # One algorithm: the token's own statement of how to verify it is ignored.
        payload = (
            None if key is None or header.alg != ALGORITHM else untrusted_tokens.signed(token, key, ALGORITHM)
        )
        if payload is None:
            raise InvalidToken("the token is not signed by this registry")
        try:
            claims = msgspec.json.decode(payload, type=prepared(_Claims))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidToken("the token's claims cannot be read") from error
        if claims.iss != self._service or claims.aud != self._service:
            raise InvalidToken(f"the token is not for {self._service}")
        if claims.purpose != purpose:
            raise InvalidToken(f"this is not an {purpose} token")
        now, ends = time.time(), untrusted_tokens.moment(claims.exp)
        if ends is None or ends <= now:
            raise InvalidToken("the token has expired")
        if claims.nbf > now + LEEWAY:
            raise InvalidToken("the token is not valid yet")
        grants: dict[str, frozenset[str]] = {}
        catalog = False
        for entry in claims.access:
            if entry.type == "repository":
                grants[entry.name] = grants.get(entry.name, frozenset()) | frozenset(entry.actions)
            elif entry.type == "registry" and entry.name == "catalog":
                catalog = True
        return VerifiedToken(claims.sub, ends, claims.credential, grants, catalog)
