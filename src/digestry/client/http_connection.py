"""One HTTP/1.1 connection of the standard library's client: direct, over TLS, or through a proxy."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from digestry.client.options import is_inside
from digestry.client.transport_errors import ConnectFailed, LeadsInside, ProxyFailed

if TYPE_CHECKING:
    from digestry.client.trust import Trust

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Proxy(msgspec.Struct, frozen=True):
    """A proxy: its address, and the ``Proxy-Authorization`` that it gets."""

    scheme: str
    host: str
    port: int
    authorization: str | None = None


class GatheringResponse(http.client.HTTPResponse):
    """A response that can wait for many bytes at once."""

    def gather(self, seconds: float) -> bool:
        """Have each read into a large buffer fill all of it, or what comes of it within ``seconds``.

        Returns False if it cannot: TLS has the bytes before the caller.
        """
        raise NotImplementedError


class HttpConnection(http.client.HTTPConnection):
    """A connection to ``host`` and ``port``. ``proxy`` is on the way there; None for none.

    ``trust`` is None without TLS.

    ``committed`` is how many bytes the other side may process before its next response. Connecting raises
    :class:`ConnectFailed`, :class:`ProxyFailed`, and the errors of :mod:`ssl`.
    """

    committed: int = 0
    outside: bool = False
    """Whether it must not go to this machine or its link, because a remote host named the address."""
    opened: Callable[[socket.socket], None] | None = None
    """Called with the TCP connection, before its TLS."""
    peer: str = ""
    """The IP address of the other side; empty through a proxy, and before it is open."""

    def __init__(
        self, scheme: str, host: str, port: int, trust: Trust | None, proxy: Proxy | None = None
    ) -> None:
        # A dot at the end is for the look-up of the name alone: no certificate has it.
        super().__init__(host.rstrip("."), port)
        self.scheme = scheme
        self.default_port = DEFAULT_PORTS[scheme]
        self.proxy = proxy
        self.address = (host, port) if proxy is None else (proxy.host, proxy.port)
        self._trust = trust

    @property
    def trust(self) -> Trust:
        """Return the trusted certificates of a connection with TLS."""
        assert self._trust is not None  # noqa: S101 - whoever made it knew its scheme
        return self._trust

    @property
    def forwards(self) -> bool:
        """Return whether a proxy gets the requests themselves, with the whole address in each."""
        return self.proxy is not None and self.scheme == "http"

    def check_peer(self) -> None:
        """Raise :class:`LeadsInside` if the connection goes to a forbidden address."""
        if self.outside and is_inside(self.peer):
            raise LeadsInside(self.peer)

    def connect(self) -> None:
        """Open the connection, with its tunnel and its TLS."""
        self.open()

    def open(self) -> None:
        """Open the connection as :meth:`connect` does, for no request yet: the time counts for none."""
        if self.scheme == "https":
            self.trust.begin()
        try:
            self.sock = self.open_socket()
        except ConnectFailed as error:
            if self.proxy is None:
                raise
            raise ProxyFailed("the proxy does not answer") from error.__cause__
        try:
            if self.proxy is None:
                self.peer = str(self.sock.getpeername()[0])
                self.check_peer()
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.opened is not None:
                self.opened(self.sock)
            if self.proxy is not None:
                self._pass_proxy(self.proxy)
            if self.scheme == "https":
                self.sock = self._encrypted(self.sock, self.host, self.trust)
                self.trust.check(self.sock)
        except BaseException:
            self.close()
            raise

    def open_socket(self) -> socket.socket:
        """Return a new TCP connection to :attr:`address`. Raises :class:`ConnectFailed`."""
        try:
            host, port = self.address
            # As bytes, which getaddrinfo takes too, a name that is ASCII needs no codec for others.
            name: Any = host.encode("ascii") if host.isascii() else host
            return socket.create_connection((name, port), self.timeout)
        except UnicodeError as error:  # a label of the name is too long
            raise ConnectFailed("cannot connect") from socket.gaierror(str(error))
        except OSError as error:
            raise ConnectFailed("cannot connect") from error

    def _pass_proxy(self, proxy: Proxy) -> None:
        try:
            if proxy.scheme == "https":
                self.sock = self._encrypted(self.sock, proxy.host, self.trust.without_clients())
            if self.scheme == "https":
                self._open_tunnel(proxy)
        except ssl.SSLCertVerificationError as error:
            raise ProxyFailed(
                f"the certificate of the proxy {proxy.host} cannot be trusted ({error.verify_message})"
            ) from error
        except ssl.SSLError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise ProxyFailed("the proxy does not answer") from error

    def _open_tunnel(self, proxy: Proxy) -> None:
        name = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"CONNECT {name}:{self.port} HTTP/1.1", f"Host: {name}:{self.port}"]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        response = self.response_class(self.sock, method="CONNECT")
        try:
            response.begin()
            if response.status != http.client.OK:
                raise ProxyFailed(f"the proxy answers {response.status}")
        finally:
            response.close()

    @staticmethod
    def _encrypted(sock: socket.socket, name: str, trust: Trust) -> ssl.SSLSocket:
        context = trust.context()
        if isinstance(sock, ssl.SSLSocket):
            # The standard library has no TLS inside of TLS.
            from urllib3.util.ssltransport import SSLTransport  # noqa: PLC0415 - few proxies speak TLS

            inner: Any = SSLTransport(sock, context, name)
            return inner  # type: ignore[no-any-return] # it does what of an SSLSocket is used here
        return context.wrap_socket(sock, server_hostname=name)
