"""Idle HTTP connections that are used again, and the responses that come over them."""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from digestry.client.connections_ahead import ConnectionsAhead
from digestry.client.headers import Headers
from digestry.client.http_connection import DEFAULT_PORTS, GatheringResponse, HttpConnection, Proxy

if TYPE_CHECKING:
    from digestry.client.trust import Trust

_UNUSUAL: Final = re.compile(r"[^\x21-\x7e]")
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))

Origin = tuple[str, str, int]
ConnectionClass = Callable[[str, str, int, "Trust | None", Proxy | None], HttpConnection]


class InvalidAddress(ValueError):
    """A text that is no web address."""


class HttpPool:
    """Connections by origin, all with the same trust and proxy. Thread-safe.

    ``make`` makes a connection; ``trust`` is None where nothing is encrypted; ``most`` is how many idle ones
    of an origin are kept.
    """

    def __init__(self, make: ConnectionClass, trust: Trust | None, proxy: Proxy | None, most: int) -> None:
        self._make = make
        self._trust = trust
        self._proxy = proxy
        self._most = most
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[HttpConnection]] = {}
        self._ahead: dict[Origin, ConnectionsAhead] = {}
        self._times_closed = 0
        weakref.finalize(self, _close_all, self._idle)  # for callers that never close a session

    def expect(self, origin: Origin, count: int, timeout: float) -> None:
        """Have ``count`` connections to an origin open soon, if it is far away.

        ``timeout`` is the seconds that one may take.
        """
        with self._lock:
            closed = self._times_closed

            def ready(connection: HttpConnection) -> None:
                if closed == self._times_closed:
                    self._put(origin, connection)
                else:
                    connection.close()

            ahead = self._ahead.get(origin)
            if ahead is None:
                ahead = ConnectionsAhead(
                    lambda: self._make(*origin, self._trust, self._proxy), ready, timeout
                )
                self._ahead[origin] = ahead
            idle = len(self._idle.get(origin, []))
        ahead.expect(count, idle)

    def is_far(self, origin: Origin) -> bool:
        """Return whether an origin that was expected is known to be far away."""
        ahead = self._ahead.get(origin)
        return ahead is not None and ahead.is_far

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        connect_timeout: float,
        timeout: float,
        committed: int = 0,
        outside: bool = False,
    ) -> HttpResponse:
        """Send one request, and return its response without its body.

        ``timeout`` is the seconds without a byte after which it fails. ``committed`` bytes that were sent
        before may be processed before the response. With ``outside`` the host must not be this machine or on
        its link. Raises :class:`InvalidAddress`, the errors of :class:`HttpConnection`,
        :class:`http.client.HTTPException` and OSError.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]
        except (ValueError, KeyError) as error:
            raise InvalidAddress(url) from error
        if not host:
            raise InvalidAddress(url)
        origin = (parts.scheme, host, port)
        connection = self._take(origin)
        try:
            connection.outside = outside
            if connection.sock is None:
                connection.timeout = connect_timeout
                connection.connect()
            else:
                connection.check_peer()
            connection.timeout = timeout
            connection.sock.settimeout(timeout)
            connection.committed = committed
            target = _escaped(f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}")
            if connection.forwards and connection.proxy is not None:
                target = f"{parts.scheme}://{parts.netloc}{target}"
                if connection.proxy.authorization is not None:
                    headers = {**headers, "Proxy-Authorization": connection.proxy.authorization}
            try:
                connection.request(method, target, body, dict(headers))
            except OSError as error:
                # A server that refuses a body may close the connection after the answer, or after a TLS
                # alert.
                ended = isinstance(error, ssl.SSLEOFError)
                if not ended and error.errno not in {errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE}:
                    raise
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        return HttpResponse(
            response,
            method,
            lambda: self._put(origin, connection),
            connection.close,
            connection.peer,
            sock=connection.sock if isinstance(connection.sock, socket.socket) else None,
        )

    def _take(self, origin: Origin) -> HttpConnection:
        began = time.monotonic()
        while True:
            with self._lock:
                ahead = self._ahead.get(origin)
                idle = self._idle.get(origin, [])
                while idle:
                    connection = idle.pop()
                    if not _has_ended(connection):
                        return connection
                    connection.close()
            if ahead is None or not ahead.wait(began):
                break
        connection = self._make(*origin, self._trust, self._proxy)
        connection.opened = None if ahead is None else ahead.opened
        return connection

    def _put(self, origin: Origin, connection: HttpConnection) -> None:
        with self._lock:
            idle = self._idle.setdefault(origin, [])
            if connection.sock is not None and len(idle) < self._most:
                idle.append(connection)
                ahead = self._ahead.get(origin)
                if ahead is not None:
                    ahead.came()
                return
        connection.close()

    def close_idle(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            self._times_closed += 1
            self._ahead.clear()
            _close_all(self._idle)


class HttpResponse:
    """A response whose body is read from its connection. Not for several threads at once."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        method: str,
        release: Callable[[], None],
        abandon: Callable[[], None],
        peer: str = "",
        *,
        sock: socket.socket | None = None,
    ) -> None:
        self._response = response
        self._sock = sock
        self._release = release
        self._abandon = abandon
        self._open = True
        self.peer = peer
        """The IP address that it came from; empty through a proxy."""
        self.status = response.status
        self.headers = Headers(response.msg.items())
        if method == "HEAD" or (response.length == 0 and not response.chunked):
            self._end()

    def read1(self, count: int) -> bytes:
        """Return up to ``count`` bytes that come next; none at the end of the body.

        Raises :class:`http.client.HTTPException`, also for a body that breaks off, and OSError.
        """
        if not self._open or count == 0:
            return b""
        response = self._response
        part = response.read1(count)
        if response.chunked:
            if not part:
                self._end()
        elif not part and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        elif not part or response.length == 0:
            self._end()
        return part

    def readinto1(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the next bytes, and return their number; 0 at the end of the body.

        Raises as :meth:`read1` does.
        """
        response = self._response
        if response.chunked:
            part = self.read1(len(buffer))
            buffer[: len(part)] = part
            return len(part)
        if not self._open or not buffer:
            return 0
        count = response.readinto1(buffer)
        if not count and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        if not count or response.length == 0:
            self._end()
        return count

    def gather_reads(self, seconds: float) -> bool:
        """Have each further :meth:`readinto1` fill a large buffer, or wait for ``seconds``.

        The process is woken once for all of the bytes, and not for each packet. Returns False where that is
        not possible, as with TLS.
        """
        if not self._open or not isinstance(self._response, GatheringResponse):
            return False
        try:
            return self._response.gather(seconds)
        except OSError:
            return False  # not every system knows it

    def gather(self, count: int, seconds: float) -> None:
        """Wait until ``count`` bytes have arrived that were not read, for ``seconds`` at most.

        The process is woken once for all of them; the end of the connection wakes it too.
        """
        if self._open and self._sock is not None:
            with contextlib.suppress(OSError):  # as above
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
                try:
                    _can_read(self._sock.fileno(), seconds)
                finally:
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def is_ready(self, seconds: float) -> bool:
        """Return whether more bytes arrive at the socket within ``seconds``."""
        return self._open and _can_read(self._response.fileno(), seconds)

    def _end(self) -> None:
        """Give the connection back: all of the body has come."""
        self._open = False
        self._response.close()
        self._release()

    def close(self) -> None:
        """Close the connection, unless it was given back at the end of the body."""
        if self._open:
            self._open = False
            self._response.close()
            self._abandon()


def _close_all(idle: dict[Origin, list[HttpConnection]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()
    idle.clear()


def _has_ended(connection: HttpConnection) -> bool:
    """Return whether the other side closed an idle connection, or sent unrequested bytes."""
    sock = connection.sock
    if sock is None:
        return True
    if not _can_read(sock.fileno(), 0):
        return False
    return connection.scheme != "https" or not _says_nothing(sock)


def _says_nothing(sock: socket.socket) -> bool:
    """Return whether what came over TLS has no content, as the tickets that follow a handshake (RFC 8446)."""
    if not isinstance(sock, ssl.SSLSocket):
        return False
    before = sock.gettimeout()
    sock.settimeout(0)
    try:
        sock.recv(1)
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(before)
    return False


def _can_read(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _escaped(target: str) -> str:
    """Return the target of a request, with percent signs for what a request line cannot have."""
    return quote(target, safe=_PRINTABLE) if _UNUSUAL.search(target) else target
