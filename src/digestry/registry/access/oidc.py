"""Tokens of outside issuers (OpenID Connect): CI systems and clouds that vouch for who runs there."""

from __future__ import annotations

import json
import logging
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import urllib3
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet

from digestry.errors import InvalidConfiguration
from digestry.registry.access.identity import Identity
from digestry.registry.access.issuers import Issuer
from digestry.registry.access.rules import matches_name

log: Final = logging.getLogger("digestry.registry")

_LARGEST: Final = 1 << 20
_FETCH_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 30.0
_LONGEST_LIFE: Final = 24 * 3600


class Untrusted(Exception):
    """A token that is not to be believed; the text says why, for whoever sent it."""


class TrustedIssuer:
    """Verifies one issuer's tokens, with its keys, which are kept for a time. Blocks; thread-safe."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")

    def check(self) -> None:
        """Reads the keys now, if they are in a file. Raises :class:`InvalidConfiguration`."""
        if isinstance(self.issuer.jwks, Path):
            try:
                self._read()
            except (OSError, ValueError, JoseError) as error:
                raise InvalidConfiguration(
                    f"{self.issuer.jwks} has no keys of {self.issuer.issuer}: {error}"
                ) from error

    def verify(self, token: str, header: Mapping[str, Any]) -> tuple[Identity, float]:
        """Who the token stands for, and until when (seconds since 1970). Raises :class:`Untrusted`."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self.issuer.algorithms:
            raise Untrusted(f"tokens of {self.issuer.issuer} signed with {algorithm} are not taken")
        keys = self._keys_with(kid)
        try:
            with warnings.catch_warnings():
                # RFC 9864 has new names for EdDSA, which issuers do not use yet.
                warnings.simplefilter("ignore", SecurityWarning)
                claims = jwt.decode(token, keys, algorithms=list(self.issuer.algorithms)).claims
        except (JoseError, ValueError) as error:
            raise Untrusted(f"the token is not signed by {self.issuer.issuer}") from error
        return self._identity(claims), self._ends(claims)

    def _ends(self, claims: Mapping[str, Any]) -> float:
        now, leeway = time.time(), self.issuer.leeway_seconds
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.issuer.issuer or self.issuer.audience not in audiences:
            raise Untrusted(f"the token is not for {self.issuer.audience}")
        if not isinstance(expires, int | float) or isinstance(expires, bool) or expires + leeway <= now:
            raise Untrusted("the token has expired, or does not say when it does")
        if not isinstance(begins, int | float) or begins - leeway > now:
            raise Untrusted("the token is not valid yet")
        return min(float(expires) + leeway, now + _LONGEST_LIFE)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        for mapping in self.issuer.identities:
            value = claims.get(mapping.claim)
            if isinstance(value, str) and matches_name(mapping.pattern, value):
                return Identity(mapping.name)
        raise Untrusted(f"{self.issuer.issuer} vouches for somebody whom this registry does not know")

    # -- keys ----------------------------------------------------------------------------------

    def _keys_with(self, kid: Any) -> KeySet:
        with self._lock:
            now = time.monotonic()
            known = self._keys is not None and (kid is None or any(key.kid == kid for key in self._keys.keys))
            stale = now - self._read_at > self.issuer.jwks_seconds
            # A key nobody has heard of may be new; but who invents key names makes no traffic.
            if (stale or not known) and now - self._tried_at > _RETRY_SECONDS:
                self._tried_at = now
                try:
                    self._read()
                except (OSError, ValueError, JoseError, urllib3.exceptions.HTTPError) as error:
                    log.error("the keys of %s cannot be had: %s", self.issuer.issuer, error)
            if self._keys is None:
                raise Untrusted(f"the keys of {self.issuer.issuer} cannot be had now; try again later")
            return self._keys

    def _read(self) -> None:
        jwks = self.issuer.jwks
        raw = jwks.read_bytes() if isinstance(jwks, Path) else _fetch(jwks)
        document = json.loads(raw)
        if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise ValueError("it is no JSON Web Key Set")
        # A secret shared by many is nobody's signature: only keys with a public half are taken.
        public = [key for key in document["keys"] if isinstance(key, dict) and key.get("kty") != "oct"]
        if not public:
            raise ValueError("it has no public keys")
        self._keys = KeySet.import_key_set({"keys": public})
        self._read_at = time.monotonic()


def _fetch(url: str) -> bytes:
    with urllib3.PoolManager(retries=False, timeout=_FETCH_SECONDS) as pool:
        answer = pool.request("GET", url, preload_content=False, redirect=False)
        try:
            content = answer.read(_LARGEST + 1)
            if answer.status != 200 or len(content) > _LARGEST:
                raise ValueError(f"{url} answered {answer.status} with {len(content)} bytes")
            return content
        finally:
            answer.close()
