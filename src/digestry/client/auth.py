"""Authentication to registries: Basic, and Bearer tokens of a token server, which are cached.

The token protocol is distribution's (docs/spec/auth/token.md and oauth.md).
"""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from digestry.client import challenges, token_servers
from digestry.client.challenges import Challenge
from digestry.client.credentials import Credential, Credentials
from digestry.client.transport import Call, Transport
from digestry.errors import ProtocolViolation, RemoteError, RemoteNotFound
from digestry.model.digest import shown

_TOKEN_BODY: Final = 1 << 20
_DEFAULT_LIFE: Final = 60.0  # the token specification's default for a token that states no lifetime
_LONGEST_LIFE: Final = 86400
_LARGEST_NUMBER: Final = 2**63
_MARGIN: Final = 5.0
_MOST_TOKENS: Final = 1000
_CLIENT_ID: Final = "digestry"
_NO_POST: Final = frozenset({404, 405, 501})


@dataclass(slots=True)
class Token:
    """A token of a token server, and until when (of the monotonic clock) it is used."""

    value: str
    ends: float


class _TokenAnswer(msgspec.Struct):
    """The response of a token server (distribution, docs/spec/auth/token.md, "Token Response Fields")."""

    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: object = None

    @property
    def life(self) -> float:
        """The seconds for which the token is valid; the usual number if the server sent none.

        Raises :class:`ProtocolViolation` for a number that no program means.
        """
        life = self.expires_in
        if isinstance(life, int) and abs(life) > _LARGEST_NUMBER:
            raise ProtocolViolation('it sent a token whose "expires_in" is no number of seconds')
        if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life < math.inf:
            return _DEFAULT_LIFE
        return float(min(life, _LONGEST_LIFE))


class Authenticator:
    """The ``Authorization`` headers of requests, by host and scope. Thread-safe.

    With ``offline``, token servers are asked for an identity token beside each token.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
        *,
        offline: bool = False,
    ) -> None:
        self._transport = transport
        self._offline = offline
        self._identity_tokens: dict[str, str] = {}
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._host_locks: dict[str, threading.Lock] = {}
        self._schemes: dict[str, Challenge] = {}
        self._tokens: dict[tuple[str, tuple[str, ...]], Token] = {}
        self._withheld: dict[str, str] = {}

    def challenged(self, host: str) -> bool:
        """Return whether the registry has sent a challenge."""
        with self._lock:
            return host in self._schemes

    def identity_token(self, host: str) -> str:
        """Return the identity token that the registry's token server gave; empty if it gave none."""
        with self._lock:
            return self._identity_tokens.get(host, "")

    def account(self, host: str, scopes: Sequence[str] = ()) -> str | None:
        """Return the user who is logged in to ``host``: None without a login, empty for a token without a
        name."""
        if not self.challenged(host):
            return None
        with self._locked(host):
            return _account(self._credential(host, scopes))

    def header(self, host: str, scopes: Sequence[str]) -> str | None:
        """Return the header to send; None before the first challenge. Raises as :meth:`reauthorize` does."""
        with self._locked(host):
            challenge = self._schemes.get(host)
            if challenge is None:
                return None
            if challenge.scheme == "basic":
                return self._basic(host, scopes)
            try:
                return self._bearer(host, challenge, tuple(scopes), fresh=False)
            except RemoteError:
                del self._schemes[host]  # the next request hears where the token server is by then
                raise

    def reauthorize(
        self, host: str, values: Sequence[str], scopes: Sequence[str], used: str | None
    ) -> str | None:
        """Return the header to send after a 401 with these ``WWW-Authenticate`` ``values``.

        ``used`` is the header that was refused. None if there is nothing else to try. Raises
        :class:`Unauthorized` if the token server refuses, :class:`ProtocolViolation` for a
        challenge that cannot be met.
        """
        offered = challenges.parse(values)
        with self._locked(host):
            credential = self._credential(host, scopes)
            for challenge in offered:
                if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                    self._schemes[host] = challenge
                    wanted = tuple(scopes)
                    bearer = self._bearer(host, challenge, wanted, fresh=False)
                    # The same again: it ended early, or never was enough.
                    return self._bearer(host, challenge, wanted, fresh=True) if bearer == used else bearer
                if challenge.scheme == "basic" and credential is not None and credential.username:
                    self._schemes[host] = challenge
                    basic = self._basic(host, scopes)
                    return None if basic == used else basic
        return None

    def _locked(self, host: str) -> threading.Lock:
        with self._lock:
            return self._host_locks.setdefault(host, threading.Lock())

    def problem(self, host: str) -> str:
        """Return why credentials for ``host`` are missing; empty if no reason is known."""
        return self._withheld.get(host, "") or self._credentials.problem(host)

    def _credential(self, host: str, scopes: Sequence[str]) -> Credential | None:
        """Return the credential for the repository that the first scope names."""
        kind, _, rest = (scopes[0] if scopes else "").partition(":")
        return self._credentials.get(host, rest.rpartition(":")[0] if kind == "repository" else "")

    def _basic(self, host: str, scopes: Sequence[str]) -> str | None:
        credential = self._credential(host, scopes)
        if credential is None or not credential.username:
            return None
        return basic_header(credential)

    def _bearer(self, host: str, challenge: Challenge, scopes: tuple[str, ...], *, fresh: bool) -> str:
        asked = [scope for scope in scopes if scope.startswith("repository:")]
        credential = self._credential(host, asked)
        if credential is not None and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        key = (host, scopes)
        token = self._tokens.get(key)
        if token is None or fresh or token.ends <= self._clock():
            token = self._fetch(host, challenge, scopes, credential)
            self._keep(key, token)
        return f"Bearer {token.value}"

    def _keep(self, key: tuple[str, tuple[str, ...]], token: Token) -> None:
        """Cache a token; the number of cached tokens is bounded."""
        with self._lock:  # other hosts' tokens are there too
            self._tokens.pop(key, None)
            if len(self._tokens) >= _MOST_TOKENS:
                now = self._clock()
                for ended in [other for other, kept in self._tokens.items() if kept.ends <= now]:
                    del self._tokens[ended]
            while len(self._tokens) >= _MOST_TOKENS:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = token

    def _fetch(
        self, host: str, challenge: Challenge, scopes: tuple[str, ...], credential: Credential | None
    ) -> Token:
        realm = challenge.parameters["realm"]
        service = challenge.parameters.get("service", "")
        # The challenge's scopes count too: a registry may require a scope that is unknown here.
        wanted = [*scopes, *(s for s in challenge.parameters.get("scope", "").split() if s not in scopes)]
        credential = self._allowed(host, realm, credential)
        began = self._clock()
        call, authorization = _token_call(realm, service, wanted, credential, offline=self._offline)
        registry = urlsplit(self._transport.base(host)).netloc
        call = msgspec.structs.replace(call, registry=host, named_by=registry)
        response = self._transport.send(call, authorization=authorization)
        if call.method == "POST" and response.status in _NO_POST:
            # A token server without OAuth: it gets another credential, or an anonymous request.
            response.close()
            plain = None if credential is None or not credential.password else credential
            if plain is not None:
                plain = Credential(plain.username, plain.password)
            call, authorization = _token_call(realm, service, wanted, plain)
            call = msgspec.structs.replace(call, registry=host, named_by=registry)
            response = self._transport.send(call, authorization=authorization)
        with response:
            response.remark = self.problem(host)
            response.registry, response.account = host, _account(credential)
            if response.status != 200:
                try:
                    response.fail(f"get a token for {host}")
                except RemoteNotFound as error:
                    # An error of the token server, which says nothing about the registry's content.
                    raise ProtocolViolation(error.message) from error
            said = response.json(_TokenAnswer, _TOKEN_BODY)
        value = said.token or said.access_token
        if not value or not value.isascii() or not value.isprintable() or " " in value:
            raise ProtocolViolation(f"{response.host} sent no token for {host}")
        if self._offline and credential is not None and said.refresh_token:
            with self._lock:
                self._identity_tokens[host] = said.refresh_token
        try:
            seconds = said.life
        except ProtocolViolation as error:
            raise ProtocolViolation(
                f"{response.host}, asked for a token for {host}: {error.message}"
            ) from error
        return Token(value, began + max(seconds - _MARGIN, seconds / 2))

    def _allowed(self, host: str, realm: str, credential: Credential | None) -> Credential | None:
        """Return the credential if the token server may have it; else warn the user and return None."""
        options = self._transport.options
        trust = token_servers.trust(host, self._transport.base(host), realm, options)
        netloc = urlsplit(realm).netloc
        if credential is None or trust == "trusted":
            self._withheld.pop(host, None)
            return credential
        if trust == "stranger":
            if host not in self._withheld and options.tell is not None:
                options.tell(
                    f"your login for {host} is not sent to {netloc}, which it names as its token server"
                )
            self._withheld[host] = (
                f"your login was not sent to {netloc}, another host, which it names as its token server: to "
                f"allow that, digestry config set token-servers {netloc}"
            )
            return None
        if realm.startswith("http:") and not options.may_be_plain(netloc):
            raise ProtocolViolation(
                f"{host} asks for your password at {shown(netloc)} over plain HTTP; it was not sent",
                hint=f"if you accept the risk: digestry config set insecure-registries {netloc}",
            )
        self._withheld.pop(host, None)
        return credential


def _account(credential: Credential | None) -> str | None:
    return None if credential is None else credential.username


def _token_call(
    realm: str,
    service: str,
    scopes: Sequence[str],
    credential: Credential | None,
    *,
    offline: bool = False,
) -> tuple[Call, str | None]:
    if credential is not None and credential.identity_token:
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": _CLIENT_ID,
            "scope": " ".join(scopes),
            "refresh_token": credential.identity_token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Call("POST", realm, headers, urlencode(form).encode(), secret=True), None
    parts = urlsplit(realm)
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [("service", service)] if service else []
    query += [("scope", scope) for scope in scopes]
    authorization = None
    if credential is not None and credential.username:
        query.append(("account", credential.username))
        if offline:
            query += [("client_id", _CLIENT_ID), ("offline_token", "true")]
        authorization = basic_header(credential)
    url = urlunsplit(parts._replace(query=urlencode(query), fragment=""))
    return Call("GET", url), authorization


def basic_header(credential: Credential) -> str:
    """Return the ``Authorization`` of Basic authentication (RFC 7617)."""
    pair = f"{credential.username}:{credential.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()
