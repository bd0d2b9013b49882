"""Verification of outside issuers' tokens (OpenID Connect)."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
from joserfc.errors import SecurityWarning

from digestry.errors import InvalidConfiguration
from digestry.registry.access import key_sets, untrusted_tokens
from digestry.registry.access.fetch import fetch
from digestry.registry.access.identity import Identity
from digestry.registry.access.issuers import Issuer
from digestry.registry.access.key_sets import KeySet
from digestry.registry.access.rules import matches_name

log: Final = logging.getLogger("digestry.registry")

LARGEST: Final = 1 << 20
"""Bytes that an issuer's keys may have."""
FETCH_SECONDS: Final = 5.0
"""How long an issuer may take to send its keys, to their last byte."""
_RETRY_SECONDS: Final = 30.0
_LONGEST_LIFE: Final = 24 * 3600
_MOST_TRIED: Final = 16
_MOST_LOGGED: Final = 10


class Untrusted(Exception):
    """The token is not trusted; the text says why, for its sender."""


class IssuerVerifier:
    """Verifies one issuer's tokens on the event loop. A thread fetches the issuer's keys; the earlier keys
    are used meanwhile."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="issuer")
        self._left_out: tuple[str, ...] = ()

    def check(self) -> None:
        """Read the keys now, if they are in a file. Raises :class:`InvalidConfiguration`."""
        if isinstance(self.issuer.jwks, Path):
            try:
                self._take(_read(self.issuer.jwks))
            except (OSError, ValueError) as error:
                raise InvalidConfiguration(
                    f"{self.issuer.jwks} has no keys of {self.issuer.issuer}: {error}"
                ) from error

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def verify(self, token: str) -> tuple[Identity, float]:
        """Return the token's identity and its expiry (seconds since 1970).

        Raises :class:`Untrusted`, and :class:`~.untrusted_tokens.InvalidToken` for text that is not a token.
        """
        claims = await self._claims(token)
        return self._identity(claims), self._ends(claims, self.issuer.audience)

    async def verify_sign_in(self, token: str, *, client_id: str, nonce: str) -> Identity:
        """Return who an ID token says has signed in (OpenID Connect Core 1.0, section 3.1.3.7): it must be
        for this client, and for the sign-in that ``nonce`` began. Raises as :meth:`verify` does."""
        claims = await self._claims(token)
        self._ends(claims, client_id)
        if claims.get("azp", client_id) != client_id:
            raise Untrusted("the token was issued to another program")
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise Untrusted("the token is of another sign-in")
        return self._identity(claims)

    async def _claims(self, token: str) -> Mapping[str, object]:
        """Return the claims of a token that the issuer signed."""
        header = untrusted_tokens.header(token)
        if header.alg not in self.issuer.algorithms:
            raise Untrusted(f"tokens of {self.issuer.issuer} with this signature algorithm are not taken")
        keys = await self._keys_with(header)
        found = keys.fitting(header.alg, header.kid)
        if header.kid is None and len(found) > _MOST_TRIED:
            raise Untrusted("the token does not say which of its issuer's keys signed it")
        with warnings.catch_warnings():
            # RFC 9864 has new names for EdDSA, which issuers do not use yet.
            warnings.simplefilter("ignore", SecurityWarning)
            signed = (untrusted_tokens.signed(token, key.key, header.alg) for key in found[:_MOST_TRIED])
            payload = next((claims for claims in signed if claims is not None), None)
        if payload is None:
            raise Untrusted(f"the token is not signed by {self.issuer.issuer}")
        try:
            return msgspec.json.decode(payload, type=dict[str, object])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Untrusted("the token's claims cannot be read") from error

    def _ends(self, claims: Mapping[str, object], wanted: str) -> float:
        now, leeway = time.time(), self.issuer.leeway_seconds
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.issuer.issuer or wanted not in audiences:
            raise Untrusted(f"the token is not for {wanted}")
        expires, begins = (
            untrusted_tokens.moment(claims.get("exp")),
            untrusted_tokens.moment(claims.get("nbf", 0)),
        )
        if expires is None or expires + leeway <= now:
            raise Untrusted("the token has expired, or does not say when it does")
        if begins is None or begins - leeway > now:
            raise Untrusted("the token is not valid yet")
        return min(expires + leeway, now + _LONGEST_LIFE)

    def _identity(self, claims: Mapping[str, object]) -> Identity:
        for mapping in self.issuer.identities:
            value = claims.get(mapping.claim)
            # Groups and roles come as a list: one match is enough.
            for member in value if isinstance(value, list) else [value]:
                if isinstance(member, str) and matches_name(mapping.pattern, member):
                    return Identity(mapping.name)
        raise Untrusted(f"{self.issuer.issuer} issued the token for a user whom this registry does not know")

    # -- keys ----------------------------------------------------------------------------------

    async def _keys_with(self, header: untrusted_tokens.Header) -> KeySet:
        now = time.monotonic()
        known = self._keys is not None and bool(self._keys.fitting(header.alg, header.kid))
        stale = now - self._read_at > self.issuer.jwks_seconds
        # An unknown key may be new; but invented key names must not cause traffic.
        if (stale or not known) and self._reading is None and now - self._tried_at > _RETRY_SECONDS:
            self._tried_at = now
            self._reading = asyncio.get_running_loop().create_task(self._refresh())
        if not known and self._reading is not None:
            await asyncio.wait({self._reading}, timeout=FETCH_SECONDS)
        if self._keys is None:
            raise Untrusted(f"the keys of {self.issuer.issuer} cannot be had now; try again later")
        return self._keys

    async def _refresh(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            self._take(await loop.run_in_executor(self._thread, _read, self.issuer.jwks))
        except (OSError, ValueError) as error:
            log.error("the keys of %s cannot be had: %s", self.issuer.issuer, error)
        except Exception:
            log.exception("reading the keys of %s failed", self.issuer.issuer)
        finally:
            self._reading = None

    def _take(self, keys: KeySet) -> None:
        if keys.left_out != self._left_out:
            for reason in keys.left_out[:_MOST_LOGGED]:
                log.warning("of the keys of %s, %s: it is left out", self.issuer.issuer, reason)
            if len(keys.left_out) > _MOST_LOGGED:
                log.warning(
                    "of the keys of %s, %d more are left out",
                    self.issuer.issuer,
                    len(keys.left_out) - _MOST_LOGGED,
                )
        self._keys, self._left_out = keys, keys.left_out
        self._read_at = time.monotonic()


def _read(jwks: str | Path) -> KeySet:
    return key_sets.parse(
        jwks.read_bytes() if isinstance(jwks, Path) else fetch(jwks, seconds=FETCH_SECONDS, most=LARGEST)
    )
