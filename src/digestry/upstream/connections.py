"""Connections to an upstream: each goes to a resolved and checked address, within a deadline."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from digestry import dns
from digestry.client.bounded_http import FRAMING, FRAMING_AT_LEAST, LARGEST_HEAD, MOST_INTERIM, SWITCHING
from digestry.client.http_connection import HttpConnection, Proxy
from digestry.client.transport_errors import ConnectFailed
from digestry.upstream.deadline import LARGE, Deadline, current
from digestry.upstream.ssrf_guard import SSRFGuard

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from digestry.client.trust import Trust

_PATIENCE: Final = 30.0
_RATE: Final = 1 << 10
_MOST_ADDRESSES: Final = 4
_SMALL: Final = 512
_DRIPS: Final = 8
_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5


class _Reader(io.RawIOBase):
    """The reading end of one connection, which fails after the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._deadline = deadline
        self._small = 0
        self.left = LARGEST_HEAD
        """The bytes that may still be received: of the head, then of the body with its framing."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._deadline.left()
        if left <= 0:
            raise TimeoutError("timed out")
        if self.left <= 0:
            raise http.client.HTTPException("it sends more around its answer than in it")
        self._pause_for_slow_sender(left)
        with contextlib.suppress(OSError):  # it may have been closed
            self._sock.settimeout(left if self._timeout is None else min(left, self._timeout))
        count = self._raw.readinto(buffer)
        self.left -= count or 0
        self._small = self._small + 1 if count and count < _SMALL else 0
        return count

    def _pause_for_slow_sender(self, left: float) -> None:
        """Pause after many small reads, so that a slow sender does not wake this thread for each packet."""
        if self._small >= _DRIPS:
            time.sleep(min(left, _LONGEST_PAUSE, _PAUSE * (self._small - _DRIPS + 1)))

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._deadline = current() or Deadline(_PATIENCE, _PATIENCE, _RATE, threading.Semaphore())
        self._reader = _Reader(self.fp.detach(), sock, self._deadline)
        self.fp = io.BufferedReader(self._reader)

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MOST_INTERIM + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == SWITCHING:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("it sends one interim answer after the other")

    def begin(self) -> None:
        super().begin()
        self._reader.left = FRAMING_AT_LEAST
        if self.getheader("Content-Encoding", "identity") != "identity":
            self._deadline.received(LARGE)  # its size is not known

    def read1(self, n: int = -1) -> bytes:
        with self._deadline.waiting():
            part = super().read1(n)
        self._reader.left += len(part) * FRAMING
        self._deadline.received(len(part))
        if not part or self.length == 0:
            self._deadline.ended()
        return part


class UpstreamConnection(HttpConnection):
    """A connection that obeys ``guard`` and the calling thread's deadline."""

    response_class = _Response

    def __init__(
        self, scheme: str, host: str, port: int, trust: Trust | None, proxy: Proxy | None, *, guard: SSRFGuard
    ) -> None:
        super().__init__(scheme, host, port, trust, proxy)
        self._guard = guard

    def open_socket(self) -> socket.socket:
        """Resolve the host once, and connect to a checked address. A second look-up might differ.

        A proxy, which the operator has chosen, may be at any address.
        """
        deadline = current()
        try:
            found = self._addresses(*self.address)
        except (OSError, UnicodeError) as error:
            cause = error if isinstance(error, OSError) else socket.gaierror(str(error))
            raise ConnectFailed("cannot find the host") from cause
        failure: OSError = OSError("no address")
        for family, address in found[:_MOST_ADDRESSES]:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                timeout = self.timeout
                if deadline is not None:
                    left = max(0.001, deadline.left())
                    timeout = left if timeout is None else min(left, timeout)
                sock.settimeout(timeout)
                sock.connect(address)
            except OSError as error:
                failure = error
                sock.close()
            else:
                return sock
        raise ConnectFailed("cannot connect") from failure

    def _addresses(self, host: str, port: int) -> list[tuple[socket.AddressFamily, dns.SocketAddress]]:
        if self.proxy is None:
            return list(self._guard.resolve(host, port))
        return [(family, address) for family, _, _, _, address in self._guard.look_up(host, port)]
