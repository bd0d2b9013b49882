"""The registry's own tokens: what it signs, and what of that it believes (JWT, RFC 7519).

An access token says who somebody is and what they asked for; what they may do of it is decided by
the rules whenever it is used. A refresh token, which docker keeps after a login, says only who.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from joserfc import jwt
from joserfc.errors import JoseError

from digestry.registry.access.keys import KeyRing

ALGORITHM: Final = "Ed25519"
Purpose = Literal["access", "refresh"]
LEEWAY: Final = 5.0

Grants = Mapping[str, frozenset[str]]
"""What a token is for: by repository, the actions ``pull``, ``push``, ``delete``."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that was believed. ``credential`` is what it was given for (its fingerprint)."""

    name: str
    ends: float
    credential: str
    grants: Grants
    catalog: bool


class NotBelieved(Exception):
    """A token that this registry did not sign, or that does not hold any more; the text says why."""


class Tokens:
    """Signs and verifies for one registry."""

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
        access: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """A token for ``name`` until ``ends``, in seconds since 1970."""
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

    def verify(self, token: str, purpose: Purpose) -> Verified:
        """What a token says. Raises :class:`NotBelieved`."""
        header = peek(token, 0)
        key = self._keys.get(header.get("kid"))
        # One algorithm: what the token itself says about how to verify it counts for nothing.
        if key is None or header.get("alg") != ALGORITHM:
            raise NotBelieved("the token is not signed by this registry")
        try:
            claims = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError) as error:
            raise NotBelieved("the token is not signed by this registry") from error
        if claims.get("iss") != self._service or claims.get("aud") != self._service:
            raise NotBelieved(f"the token is not for {self._service}")
        if claims.get("purpose") != purpose:
            raise NotBelieved(f"this is not an {purpose} token")
        now, ends = time.time(), claims.get("exp")
        if not isinstance(ends, int) or ends <= now:
            raise NotBelieved("the token has expired")
        if claims.get("nbf", 0) > now + LEEWAY:
            raise NotBelieved("the token is not valid yet")
        grants: dict[str, frozenset[str]] = {}
        catalog = False
        for entry in claims["access"]:
            if entry["type"] == "repository":
                grants[entry["name"]] = grants.get(entry["name"], frozenset()) | frozenset(entry["actions"])
            elif entry["type"] == "registry" and entry["name"] == "catalog":
                catalog = True
        return Verified(claims["sub"], float(ends), claims["credential"], grants, catalog)


def peek(token: str, part: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a token as they stand there: not verified.

    Raises :class:`NotBelieved` if it is none.
    """
    parts = token.split(".")
    try:
        if len(parts) != 3:
            raise ValueError("three parts are wanted")
        document = json.loads(base64.urlsafe_b64decode(parts[part] + "=" * (-len(parts[part]) % 4)))
        if not isinstance(document, dict):
            raise ValueError("an object is wanted")
    except (ValueError, RecursionError) as error:
        raise NotBelieved("this is no token") from error
    return document
