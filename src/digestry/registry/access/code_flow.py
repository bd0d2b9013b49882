"""Signing in at an outside issuer: the authorization code flow of OpenID Connect, with PKCE.

OpenID Connect Core 1.0, section 3.1; RFC 7636; RFC 9207. The visitor's browser keeps what the flow must come
back with; the issuer is asked here for the token, which is verified as every token of it is.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from digestry.errors import Forbidden, ProtocolViolation, StorageError, Unreachable
from digestry.model.json_types import prepared
from digestry.registry.access.fetch import fetch
from digestry.registry.access.identity import Identity
from digestry.registry.access.oidc import IssuerVerifier, Untrusted
from digestry.registry.access.sign_in_config import SignInConfig, check_endpoint
from digestry.registry.access.untrusted_tokens import InvalidToken

P = ParamSpec("P")
T = TypeVar("T")

_SECONDS: Final = 5.0
_LARGEST: Final = 1 << 20
_KNOWN_SECONDS: Final = 3600.0
_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Started:
    """A sign-in that begins: the ``address`` that the visitor goes to, and what it must come back with."""

    address: str
    state: str
    nonce: str
    verifier: str


class _Endpoints(msgspec.Struct, frozen=True):
    """The part of an issuer's metadata that is read (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str


class _Answer(msgspec.Struct, frozen=True):
    id_token: str


class CodeFlow:
    """The sign-ins at one issuer."""

    def __init__(self, config: SignInConfig, verifier: IssuerVerifier) -> None:
        self._config = config
        self._verifier = verifier
        self._known: _Endpoints | None = None
        self._known_until = float("-inf")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sign-in")

    @property
    def issuer(self) -> str:
        return self._verifier.issuer.issuer

    @property
    def title(self) -> str:
        """The issuer's name for people."""
        return self._config.title

    @property
    def credential(self) -> str:
        """The credential of who signed in here: it holds as long as the issuer is configured so."""
        return f"oidc:{hashlib.sha256(f'{self.issuer} {self._config.client_id}'.encode()).hexdigest()[:16]}"

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def begin(self, redirect: str) -> Started:
        """Begin a sign-in that comes back to ``redirect``, unless the configuration has another address.

        Raises :class:`RemoteError` if the issuer does not say where its visitors sign in.
        """
        endpoints = await self._in_thread(self._endpoints)
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._config.client_id,
                "redirect_uri": self._config.redirect or redirect,
                "scope": " ".join(self._config.scopes),
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        joint = "&" if "?" in endpoints.authorization_endpoint else "?"
        return Started(f"{endpoints.authorization_endpoint}{joint}{query}", state, nonce, verifier)

    async def finish(self, code: str, redirect: str, *, verifier: str, nonce: str) -> Identity:
        """Return who signed in, for the code that the visitor came back with.

        Raises :class:`Forbidden` if the issuer's token is not believed, or is of somebody unknown here;
        :class:`RemoteError` if the issuer does not give one.
        """
        token = await self._in_thread(self._token, code, redirect, verifier)
        try:
            return await self._verifier.verify_sign_in(token, client_id=self._config.client_id, nonce=nonce)
        except (Untrusted, InvalidToken) as error:
            raise Forbidden(str(error)) from error

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, partial(function, *args, **kwargs))
        except OSError as error:
            raise Unreachable(f"{self.issuer} cannot be reached: {error}") from error
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise ProtocolViolation(f"{self.issuer} did not answer as issuers do: {error}") from error

    def _endpoints(self) -> _Endpoints:
        """Return the issuer's addresses: those of the configuration, or what the issuer says itself."""
        config = self._config
        if config.authorization is not None and config.token is not None:
            return _Endpoints(self.issuer, config.authorization, config.token)
        known = self._known
        if known is None or time.monotonic() > self._known_until:
            address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
            check_endpoint(address)
            known = msgspec.json.decode(
                fetch(address, seconds=_SECONDS, most=_LARGEST), type=prepared(_Endpoints)
            )
            if known.issuer != self.issuer:
                raise ValueError(f"its metadata is of another issuer, {known.issuer}")
            check_endpoint(known.authorization_endpoint)
            check_endpoint(known.token_endpoint)
            self._known, self._known_until = known, time.monotonic() + _KNOWN_SECONDS
        return known

    def _token(self, code: str, redirect: str, verifier: str) -> str:
        """Return the ID token for a code (RFC 6749, section 4.1.3)."""
        config = self._config
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": config.redirect or redirect,
            "client_id": config.client_id,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if config.client_secret_file is not None:
            secret = _read_secret(config.client_secret_file)
            pair = f"{quote(config.client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        answer = fetch(
            self._endpoints().token_endpoint,
            seconds=_SECONDS,
            most=_LARGEST,
            body=urlencode(form).encode(),
            headers=headers,
        )
        return msgspec.json.decode(answer, type=prepared(_Answer)).id_token


def _read_secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"the secret of the sign-in cannot be read from {file}") from error
