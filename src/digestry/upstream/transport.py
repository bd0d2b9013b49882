"""The client's transport and authentication, restricted to the hosts that the guard allows."""

from __future__ import annotations

import contextlib
import functools
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import urljoin, urlsplit

from digestry.client.auth import Authenticator, Token
from digestry.client.challenges import Challenge
from digestry.client.connection import Connection
from digestry.client.credentials import Credential, Credentials
from digestry.client.http_pool import ConnectionClass
from digestry.client.options import ClientOptions
from digestry.client.proxies import proxy_for
from digestry.client.responses import Response
from digestry.client.session_cache import SessionCache
from digestry.client.transport import Call, Transport, origin_of
from digestry.errors import RedirectRefused
from digestry.model.digest import shown
from digestry.upstream.connections import UpstreamConnection
from digestry.upstream.deadline import current
from digestry.upstream.ssrf_guard import SSRFGuard, parse_url

_OF_A_REGISTRY: Final = re.compile(r"/(?:blobs|manifests|referrers)/[^/]+\Z")
"""Paths of a form that only a registry's content has, on any host."""
_REFUSALS: Final = frozenset({400, 401, 403})
_MOST_REMEMBERED: Final = 1000
_Value = TypeVar("_Value")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class _Asking(threading.local):
    token: bool = False
    origin: tuple[str, str | None, int | None] | None = None
    is_content: bool = False
    answering_host: str | None = None


class GuardedTransport(Transport):
    """A transport that asks only hosts that ``guard`` allows, and never goes from TLS to plain HTTP."""

    def __init__(self, options: ClientOptions, guard: SSRFGuard) -> None:
        super().__init__(options)
        self.guard = guard
        self._asking = _Asking()

    @contextlib.contextmanager
    def requesting_token(self) -> Iterator[None]:
        """Restrict this thread, in the block, to token servers: a redirect may only go to another one."""
        self._asking.token = True
        try:
            yield
        finally:
            self._asking.token = False

    @property
    def answering_host(self) -> str | None:
        """The host of this thread's last answer; None if it is the registry itself."""
        return self._asking.answering_host

    def send(self, call: Call, *, authorization: str | None = None) -> Response:
        self._asking.answering_host = None
        self._asking.origin = origin_of(call.url)
        self._asking.is_content = _OF_A_REGISTRY.search(urlsplit(call.url).path) is not None
        response = super().send(call, authorization=authorization)
        if not _is_beside(call.url, response.url):
            return response
        self._asking.answering_host = response.host
        if authorization and response.status in _REFUSALS and origin_of(response.url) == origin_of(call.url):
            # A storage at the registry's own address: its signed addresses may take no other authentication.
            response.close()
            signed = Call(call.method, response.url, call.headers)
            response = super().send(signed)
        return response

    def follow(self, url: str, location: str) -> str:
        host = urlsplit(url).netloc
        try:
            target = urljoin(url, location)
            parts = parse_url(target)
        except ValueError:
            raise RedirectRefused(
                f"{host} sends to {shown(location)}, which is no plain web address"
            ) from None
        if parts.scheme == "http" and urlsplit(url).scheme == "https":
            raise RedirectRefused(f"{host} sends from TLS to plain HTTP at {parts.netloc}")
        if self._asking.token:
            self.guard.trusts(target)
        return target

    def _exchange(self, call: Call, authorization: Mapping[str, str]) -> Response:
        try:
            parts = parse_url(call.url)
        except ValueError as error:
            raise RedirectRefused(f"an upstream redirects to {shown(call.url)}: {error}") from None
        deadline = current()
        if deadline is not None:
            deadline.next_answer(parts.netloc)
        if proxy_for(parts.scheme, parts.netloc) is not None:
            host = parts.hostname or ""
            self.guard.check_proxied(host, parts.port or _DEFAULT_PORTS[parts.scheme])
        if origin_of(call.url) != self._asking.origin and not self._asking.is_content:
            self.guard.check_redirect(parts)
        return super()._exchange(call, authorization)

    def _may_try_anew(self, call: Call, error: ssl.SSLError, shown: int) -> bool:
        """Return False: an upstream is verified, also on this machine."""
        return False

    def _redirects_outside(self, named_by: str, host: str) -> bool:
        """Return False: the guard decides where it is led."""
        return False

    def connection_class(self) -> ConnectionClass:
        return functools.partial(UpstreamConnection, guard=self.guard)


class GuardedConnection(Connection):
    """A connection to one registry, over a :class:`GuardedTransport`."""

    transport: GuardedTransport

    def __init__(self, options: ClientOptions, guard: SSRFGuard, credentials: Credentials) -> None:
        transport = GuardedTransport(options, guard)
        super().__init__(
            options,
            transport=transport,
            authenticator=_Authenticator(transport, credentials),
            cache=SessionCache(upstream_status=_Latest(), head_digests=_Latest(), ages=_Latest()),
        )


def _is_beside(requested: str, answered: str) -> bool:
    """Return whether a redirect went to another origin, or out of the registry's API."""
    root, api, _ = urlsplit(requested).path.partition("/v2/")
    return origin_of(requested) != origin_of(answered) or not urlsplit(answered).path.startswith(root + api)


class _Latest(dict[tuple[str, str], _Value]):
    """The digests that HEAD stated for the latest names, bounded."""

    def __setitem__(self, key: tuple[str, str], value: _Value) -> None:
        self.pop(key, None)
        while len(self) >= _MOST_REMEMBERED:
            with contextlib.suppress(StopIteration, KeyError, RuntimeError):  # another thread was faster
                del self[next(iter(self))]
        super().__setitem__(key, value)


class _Authenticator(Authenticator):
    _transport: GuardedTransport

    def _allowed(self, host: str, realm: str, credential: Credential | None) -> Credential | None:
        return credential if self._transport.guard.trusts(realm) else None

    def _fetch(
        self, host: str, challenge: Challenge, scopes: tuple[str, ...], credential: Credential | None
    ) -> Token:
        with self._transport.requesting_token():
            return super()._fetch(host, challenge, scopes, credential)
