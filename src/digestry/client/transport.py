"""HTTP with pooled connections, retries, proxies, and redirects that do not leak credentials."""

from __future__ import annotations

import functools
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from digestry.client.bounded_http import BoundedConnection, ResponseTimeouts
from digestry.client.http_connection import DEFAULT_PORTS
from digestry.client.http_pool import ConnectionClass, HttpPool, InvalidAddress, Origin
from digestry.client.options import ClientOptions, is_inside, is_loopback
from digestry.client.proxies import chosen_proxy, proxy_for
from digestry.client.request_limits import RequestLimits
from digestry.client.responses import Response
from digestry.client.transport_errors import (
    FAILURES,
    CertificateChanged,
    ConnectFailed,
    LeadsInside,
    ProxyFailed,
    is_not_http,
    is_not_tls,
    unreachable,
)
from digestry.client.wait_budget import WaitBudget
from digestry.errors import ProtocolViolation, Unreachable
from digestry.model.digest import shown
from digestry.version import __version__

if TYPE_CHECKING:
    from digestry.client.trust import HostTrusts, Trust

_MOST_REDIRECTS: Final = 5
_PROBING: Final = frozenset({"GET", "HEAD"})
_SPEAKS_TLS: Final = 400  # what nginx and Go say to plain HTTP on a TLS port
_BACKOFF: Final = 0.2
_WORTH_WAITING: Final = 1.0
_TRANSIENT: Final = frozenset({408, 429, 502, 503, 504, 520, 521, 522, 523, 524})
"""Statuses of a server or a proxy that may answer next time; those from 520 are Cloudflare's."""
_FAILED: Final = 500
"""A failure that may pass. A HEAD is not repeated after it: a GET follows, which tells more."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TO_SEE: Final = 303
"""Tells to read something else: what is sent is not sent there (RFC 9110, 15.4.4)."""
_DOCKER_HUB: Final = {"docker.io": "registry-1.docker.io"}

Body = bytes | Callable[[], Iterable[bytes]]
"""A body that can be sent again: bytes, or something that makes the chunks anew."""


class Call(msgspec.Struct, frozen=True):
    """One request. ``repeatable`` requests are sent again after a transient failure; the body of a
    ``secret`` one goes to its own origin only. A ``guessed`` one is sent to where there may be no HTTP: a
    connection that fails tells that, and is not tried again. ``committed`` is how many bytes were sent
    before, by other requests, that the other side may look through before it answers this one. ``registry``
    is the one that it is for, also where it goes to another host, such as a token server; ``named_by`` is
    the host that named the address, if a registry did."""

    method: str
    url: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: Body | None = None
    repeatable: bool = True
    secret: bool = False
    guessed: bool = False
    committed: int = 0
    registry: str = ""
    named_by: str = ""


class Transport:
    """Connections to any number of hosts. Thread-safe."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._probing: dict[str, threading.Lock] = {}
        self._bases: dict[str, str] = {}
        self._pools: dict[tuple[Trust | None, str], HttpPool] = {}
        self._trusts: HostTrusts | None = None
        self._peers: dict[str, str] = {}
        self.waiting = WaitBudget(
            options.waiting, options.longest_pause, longest_command=options.longest_command
        )
        self._limits = RequestLimits(self.waiting, options.tell)

    def close(self) -> None:
        """Close all connections."""
        self.drop_idle()

    def drop_idle(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            pools = list(self._pools.values())
        for pool in pools:
            pool.close_idle()

    # -- where a registry is ------------------------------------------------------------------

    def base(self, host: str) -> str:
        """Return ``scheme://host[:port]`` of a registry, after one probe. Raises :class:`Unreachable`.

        TLS alone, unless the host may be plain: then a loopback host is tried over plain HTTP
        first, any other over TLS first.
        """
        with self._lock:
            lock = self._probing.setdefault(host, threading.Lock())
        with lock:
            known = self._bases.get(host)
            if known is None:
                actual = _DOCKER_HUB.get(host, host)
                if not self.options.may_be_plain(host):
                    known = f"https://{actual}"
                else:
                    known = self._probe_plain(host) if is_loopback(host) else self._probe_tls(host)
                self._bases[host] = known
            return known

    def _is_tried_plain(self, host: str) -> bool:
        return self.options.may_be_plain(host) and is_loopback(host)

    def likely_base(self, host: str) -> str:
        """Return as :meth:`base`, without a probe where the first request can decide as well."""
        if host not in self._bases and self._is_tried_plain(host):
            return f"http://{host}"
        return self.base(host)

    def send_first(self, host: str, call: Call) -> Response | None:
        """Send the first request to a registry of this machine, over plain HTTP, in place of a probe.

        None if it cannot be that request, or if its response leaves open whether the registry speaks TLS.
        Raises as :meth:`send` does.
        """
        if host in self._bases or call.method not in _PROBING or not call.url.startswith(f"http://{host}/"):
            return None
        if not self._is_tried_plain(host):
            return None
        with self._lock:
            lock = self._probing.setdefault(host, threading.Lock())
        with lock:
            if host in self._bases:
                return None
            try:
                response = self.send(msgspec.structs.replace(call, guessed=True))
            except Unreachable as error:
                if error.__cause__ is not None and is_not_http(error.__cause__):
                    return None
                raise
            plain = f"http://{host}"
            self._bases[host] = self._probe_plain(host) if response.status == _SPEAKS_TLS else plain
            if self._bases[host] == plain:
                return response
            response.close()
            return None

    def corrected(self, host: str, call: Call) -> Call:
        """Return ``call`` with the address that the registry ``host`` has, if it was taken for another."""
        likely, base = f"http://{host}", self.base(host)
        if base == likely or not call.url.startswith(f"{likely}/"):
            return call
        return msgspec.structs.replace(call, url=base + call.url.removeprefix(likely))

    def place(self, host: str, base: str) -> None:
        """Set the address of the registry ``host``, ``scheme://host[:port]``, so that it is not probed."""
        with self._lock:
            self._bases[host] = base

    def _probe_plain(self, host: str) -> str:
        try:
            with self._open(Call("GET", f"http://{host}/v2/", repeatable=False), {}) as response:
                if response.status != _SPEAKS_TLS or b"HTTPS" not in response.read(64 << 10).upper():
                    return f"http://{host}"
        except FAILURES as error:
            if not is_not_http(error):
                raise unreachable(host, error) from error
            # Most likely it answered with a TLS alert.
        return self._probe_tls(host)

    def _probe_tls(self, host: str) -> str:
        base = f"https://{host}"
        try:
            self._open(Call("GET", f"{base}/v2/", repeatable=False, registry=host), {}).close()
        except FAILURES as error:
            if is_not_tls(error) or is_not_http(error):
                return f"http://{host}"
            raise unreachable(host, error) from error
        return base

    # -- asking -------------------------------------------------------------------------------

    def send(self, call: Call, *, authorization: str | None = None) -> Response:
        """Send ``call``, follow redirects by the same method, and return the last response.

        ``authorization`` goes to the call's own origin only. Raises :class:`Unreachable`, and
        :class:`ProtocolViolation` for redirects without a target or out of TLS.
        """
        origin = origin_of(call.url)
        url = call.url
        for _ in range(_MOST_REDIRECTS + 1):
            headers = {"Authorization": authorization} if authorization and origin_of(url) == origin else {}
            step = msgspec.structs.replace(call, url=url)
            try:
                response = self._open(step, headers)
            except LeadsInside as error:
                raise ProtocolViolation(
                    f"{step.named_by} sends to {shown(urlsplit(url).netloc)}, which is this machine or on "
                    f"its link ({error}): it was not asked"
                ) from error
            except FAILURES as error:
                raise unreachable(urlsplit(url).netloc, error) from error
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            if response.status == _TO_SEE and call.method not in {"GET", "HEAD"}:
                return response
            response.close()
            call = msgspec.structs.replace(call, named_by=urlsplit(url).netloc)
            url = self.follow(url, location)
            if call.secret and origin_of(url) != origin:
                raise ProtocolViolation(
                    f"{urlsplit(call.url).netloc} sends your login on to {urlsplit(url).netloc}; it was not "
                    "sent there"
                )
        raise ProtocolViolation(f"{urlsplit(call.url).netloc} redirects more than {_MOST_REDIRECTS} times")

    def follow(self, url: str, location: str) -> str:
        """Return the target of a ``Location`` in the response to ``url``.

        Raises :class:`ProtocolViolation` if that is not a web address, or goes from TLS to plain HTTP.
        """
        from digestry.client.redirects import redirect_target  # noqa: PLC0415 - few responses redirect

        return redirect_target(self.options, url, location)

    def _open(self, call: Call, authorization: Mapping[str, str]) -> Response:
        """Make one request without following redirects, and again after a transient failure.

        Raises one of :data:`FAILURES`, and :class:`Unreachable`.
        """
        # Whoever streams repeats by himself: what was sent in part cannot be sent on.
        attempts = self.options.retries if call.repeatable and not callable(call.body) else 0
        host = urlsplit(call.url).netloc
        tried = 0
        while True:
            if self.options.retries:
                self._limits.wait(host)
            fails = True
            shown = self._shown_certificate(call)
            try:
                tell = self.options.tell_request
                response = (self._exchange if tell is None else self._report_exchange)(call, authorization)
            except ConnectFailed:
                if tried >= min(1, attempts) or call.guessed:
                    raise
            except ssl.SSLError as error:
                if not self._may_try_anew(call, error, shown):
                    raise
                continue
            except (CertificateChanged, LeadsInside, ProxyFailed):
                raise
            except FAILURES:
                if tried >= attempts or call.guessed:
                    raise
            else:
                pause = self._limits.note(host, response.status, response.headers)
                passes = response.status in _TRANSIENT or (
                    response.status == _FAILED and call.method != "HEAD"
                )
                if not passes or not attempts:
                    return response
                # A pause that is asked for is no failure, where the time for waiting has an end.
                fails = pause is None or pause < _WORTH_WAITING or self.waiting.left() is None
                if (fails and tried >= attempts) or (pause is not None and self.waiting.too_long(pause)):
                    return response  # its error says for how long
                response.close()
            if fails:
                tried += 1
                self.waiting.pause(host, _BACKOFF * 2 ** (tried - 1) if tried > 1 else 0.0)

    def _report_exchange(self, call: Call, authorization: Mapping[str, str]) -> Response:
        """Make one request, and report it to the caller. Raises as :meth:`_exchange` does."""
        from digestry.client.request_line import request_line  # noqa: PLC0415 - few calls report it

        began, outcome = time.monotonic(), "no answer"
        try:
            response = self._exchange(call, authorization)
            outcome = str(response.status)
            return response
        finally:
            assert self.options.tell_request is not None  # noqa: S101 - its caller looked
            self.options.tell_request(request_line(call.method, call.url, outcome, time.monotonic() - began))

    def _exchange(self, call: Call, authorization: Mapping[str, str]) -> Response:
        options = self.options
        host = urlsplit(call.url).netloc
        self.waiting.check(host)
        left = self.waiting.left()
        # A little more than is left, so that what ends it is the time in all, which is said.
        longest = options.timeout if left is None else min(options.timeout, left + 1.1)
        headers = {"User-Agent": f"digestry/{__version__}", **call.headers, **authorization}
        body = call.body() if callable(call.body) else call.body
        try:
            response = self._pool(call).request(
                call.method,
                call.url,
                headers=headers,
                body=body,
                connect_timeout=min(options.connect_timeout, longest),
                timeout=longest,
                committed=call.committed,
                outside=bool(call.named_by) and self._redirects_outside(call.named_by, host),
            )
        except InvalidAddress as error:
            raise Unreachable(f"{shown(call.url.partition('?')[0])} is not a web address") from error
        self._peers[host] = response.peer
        return Response(response, call.method, call.url, patience=options.patience)

    def _shown_certificate(self, call: Call) -> int:
        """Return the number of the client certificate that is shown to the host of a call."""
        return trust.shown if (trust := self._trust_of(call)) else 0

    def _may_try_anew(self, call: Call, error: ssl.SSLError, shown: int) -> bool:
        """Return whether the host of a call can be asked again; see :meth:`HostTrusts.may_try_anew`."""
        return self._host_trusts().may_try_anew(
            self._configured_host(call), self._trust_of(call), error, shown
        )

    def _redirects_outside(self, named_by: str, host: str) -> bool:
        """Return whether ``host`` must not be this machine or on its link, as ``named_by`` is not either."""
        if host == named_by or self.options.is_insecure(host):
            return False
        return not is_inside(self._peers.get(named_by) or named_by)

    def expect(self, host: str, count: int) -> None:
        """Have ``count`` connections to a registry open soon, if it is far away. Sends no request."""
        if host in self._bases or not self.options.may_be_plain(host):  # else the first request shows it
            pool, origin = self._pool_of(host)
            pool.expect(origin, count, self.options.connect_timeout)

    def is_far(self, host: str) -> bool:
        """Return whether a registry whose requests were expected is known to be far away."""
        if host not in self._bases:
            return False
        pool, origin = self._pool_of(host)
        return pool.is_far(origin)

    def _pool_of(self, host: str) -> tuple[HttpPool, Origin]:
        base = self.base(host)
        parts = urlsplit(base)
        origin = (parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
        return self._pool(Call("GET", base, registry=host)), origin

    def _pool(self, call: Call) -> HttpPool:
        parts = urlsplit(call.url)
        proxy = proxy_for(parts.scheme, parts.netloc)
        trust = self._trust_of(call)
        if trust is None and proxy is not None:
            trust = self._host_trusts().usual
        with self._lock:
            pool = self._pools.get((trust, proxy or ""))
            if pool is None:
                pool = self._pools[trust, proxy or ""] = HttpPool(
                    self.connection_class(),
                    trust,
                    chosen_proxy(proxy) if proxy else None,
                    max(4, self.options.parallel * 2),
                )
            return pool

    def _trust_of(self, call: Call) -> Trust | None:
        """Return the trust in the host of a call; None if it is asked without TLS."""
        if not call.url.startswith("https:"):
            return None
        return self._host_trusts().of(self._configured_host(call), call.registry)

    def _host_trusts(self) -> HostTrusts:
        """Return the trust in each host, made when TLS is first spoken."""
        from digestry.client.trust import HostTrusts  # noqa: PLC0415 - plain HTTP needs none

        with self._lock:
            if self._trusts is None:
                self._trusts = HostTrusts(self.options)
            return self._trusts

    @staticmethod
    def _configured_host(call: Call) -> str:
        """Return the host of ``call`` as configuration files name it: Docker Hub by its own name."""
        host = urlsplit(call.url).netloc
        return call.registry if _DOCKER_HUB.get(call.registry) == host else host

    def connection_class(self) -> ConnectionClass:
        """Return what makes the connections of a new pool."""
        timeouts = ResponseTimeouts(self.options.patience, self.options.timeout, self.waiting)
        return functools.partial(BoundedConnection, timeouts=timeouts)


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port: addresses with the same origin may share credentials."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)
