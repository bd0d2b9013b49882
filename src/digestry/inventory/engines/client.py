"""An HTTP client for a container engine's API.

An engine is not trusted: an answer has a size limit, a time limit for all of it, and a structure that its
reader checks. Only GET requests are sent.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias
from urllib.parse import quote

from digestry.errors import (
    DigestryError,
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from digestry.inventory.engines.clocks import EngineClock
from digestry.inventory.engines.connections import SSHConnection, connection_to
from digestry.inventory.engines.endpoints import Endpoint
from digestry.model.json_values import as_object, as_text

LARGEST_ANSWER: Final = 64 << 20
"""In bytes. A list of containers takes some 2 KB a container."""
TIMEOUT: Final = 10.0
"""Seconds for one whole request, its body included."""

_CHUNK: Final = 1 << 16
_PARALLEL: Final = 8
_PARALLEL_SSH: Final = 4
_SSH_HINT: Final = "`ssh` must reach it without asking for anything, and find the engine's program there"
_LONGEST_MESSAGE: Final = 300
_LONGEST_LINE: Final = 4 << 20
_STREAM_TIMEOUT: Final = 30.0
"""Seconds in which the rest of a piece of an endless answer must come."""

Waiting: TypeAlias = Callable[[int], bool]
"""Waits until a descriptor can be read; False if it returned for another reason."""


class Engine:
    """One engine's API. ``where`` is its :class:`Endpoint`, or its address, see :meth:`Endpoint.parse`.

    Connections to another machine are kept for further questions, until :meth:`close`.
    """

    def __init__(
        self, where: Endpoint | str, *, timeout: float = TIMEOUT, largest_answer: int = LARGEST_ANSWER
    ) -> None:
        self._endpoint = where if isinstance(where, Endpoint) else Endpoint.parse(where)
        self.url = self._endpoint.url
        self._timeout = timeout
        self._limit = largest_answer
        self._idle: list[http.client.HTTPConnection] = []
        self._clock = EngineClock()

    @property
    def is_remote(self) -> bool:
        """Whether the engine is on another machine, whose "localhost" is not this one's."""
        return self._endpoint.is_remote

    @property
    def clock_ahead(self) -> float:
        """The seconds by which the engine's clock is ahead of this machine's, as its last answers say."""
        return self._clock.ahead

    @property
    def parallel(self) -> int:
        """How many questions at once the engine, and the way to it, bear."""
        # A server of SSH refuses connections when more than ten have not logged in yet.
        return _PARALLEL_SSH if self._endpoint.address.scheme == "ssh" else _PARALLEL

    def close(self) -> None:
        """Close the connections that were kept. A further question opens one again."""
        while self._idle:
            _end(self._idle.pop())

    def get(self, path: str, **query: str) -> object:
        """Return the decoded JSON at ``path``.

        Raises :class:`Unreachable`, :class:`Refused` and its kinds, :class:`TooLarge`, and
        :class:`ProtocolViolation` if the answer is not JSON.
        """
        if query:
            path += "?" + "&".join(f"{key}={quote(value)}" for key, value in query.items())
        try:
            kept = self._idle.pop()
        except IndexError:
            kept = None
        if kept is not None:
            try:
                return self._ask(kept, path)
            except _Stale:
                pass  # the engine had closed it meanwhile
        return self._ask(connection_to(self._endpoint, self._timeout), path)

    def lines(self, path: str, wait: Waiting, **query: str) -> Iterator[bytes | None]:
        """Yield the lines of the endless answer at ``path``, each as soon as it is whole; nothing (``b""``)
        when the answer has begun, and before each wait for more; and None if ``wait`` returned False.

        ``wait`` waits until its descriptor can be read. Raises as :meth:`get` does, and :class:`Unreachable`
        when the answer ends.
        """
        if query:
            path += "?" + "&".join(f"{key}={quote(value)}" for key, value in query.items())
        connection = connection_to(self._endpoint, self._timeout)
        try:
            yield from self._lines(connection, path, wait)
        except TimeoutError as error:
            raise self._silent(connection) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(connection, error, threading.Event()) from error
        finally:
            _end(connection)

    def _lines(
        self, connection: http.client.HTTPConnection, path: str, wait: Waiting
    ) -> Iterator[bytes | None]:
        connection.connect()
        link = connection.sock
        connection.request("GET", path)
        with contextlib.closing(connection.getresponse()) as response:
            if response.status != 200:
                self._decode(path, response.status, self._read(response))
            rest = b""
            while True:
                # What is buffered is not seen by those who wait for the socket.
                if not _is_buffered(response, link):
                    yield b""
                    if not wait(link.fileno()):
                        yield None
                        continue
                part = response.read1(_CHUNK)
                if not part:
                    raise Unreachable(f"{self.url} ended the stream of its events")
                *lines, rest = (rest + part).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    raise TooLarge(f"{self.url}: an event does not end", limit=_LONGEST_LINE)
                yield from filter(bytes.strip, lines)

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> object:
        kept = connection.sock is not None
        expired = threading.Event()
        # The socket's own limit is for one read: a drip of bytes would never reach it.
        watchdog = threading.Timer(self._timeout, expired.set)
        keep = False
        try:
            if not kept:
                connection.connect()
            # The connection forgets its socket as soon as the answer is to be ended by closing it.
            watchdog = threading.Timer(self._timeout, _cut, (connection.sock, expired))
            watchdog.daemon = True
            watchdog.start()
            asked = time.time()
            connection.request("GET", path)
            with contextlib.closing(connection.getresponse()) as response:
                self._clock.note(response.getheader("Date"), asked, time.time())
                body = self._read(response)
                status = response.status
            keep = self._endpoint.address.scheme != "unix" and connection.sock is not None
        except TimeoutError as error:
            raise self._silent(connection) from error
        except (ConnectionError, http.client.BadStatusLine) as error:
            if kept and not expired.is_set():
                raise _Stale from error
            raise self._broken(connection, error, expired) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(connection, error, expired) from error
        finally:
            watchdog.cancel()
            if keep and not expired.is_set():
                self._idle.append(connection)
            else:
                _end(connection)
        if expired.is_set():
            raise self._silent(connection)
        return self._decode(path, status, body)

    def _broken(
        self,
        connection: http.client.HTTPConnection,
        error: OSError | http.client.HTTPException,
        expired: threading.Event,
    ) -> DigestryError:
        """Return the error of this project that an error of the connection means."""
        if isinstance(error, FileNotFoundError):
            if isinstance(connection, SSHConnection):
                return Unreachable(f"{self.url}: there is no program ssh to reach it with")
            return Unreachable(f"{self.url}: there is no such socket")
        if isinstance(error, PermissionError):
            return Unreachable(f"{self.url}: permission denied", hint="run as a user who may use that socket")
        if expired.is_set():
            return self._silent(connection)
        if isinstance(connection, SSHConnection) and (reason := connection.why()):
            return Unreachable(f"{self.url}: {reason}", hint=_SSH_HINT)
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unreachable(
                f"{self.url}: its certificate is not to be trusted: {error.verify_message}",
                hint="its issuer must be in ca.pem, in DOCKER_CERT_PATH or docker's context",
            )
        if isinstance(error, OSError):
            return Unreachable(f"{self.url} does not answer: {error.strerror or error}")
        return ProtocolViolation(f"{self.url} does not speak HTTP as an engine does: {type(error).__name__}")

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        parts: list[bytes] = []
        total = 0
        while part := response.read1(_CHUNK):
            total += len(part)
            if total > self._limit:
                raise TooLarge(
                    f"{self.url}: the answer is longer than {self._limit} bytes, and was not read",
                    limit=self._limit,
                )
            parts.append(part)
        if response.length:
            raise ProtocolViolation(f"{self.url}: the answer was cut short")
        return b"".join(parts)

    def _silent(self, connection: http.client.HTTPConnection) -> Unreachable:
        reason = connection.why() if isinstance(connection, SSHConnection) else ""
        message = f"{self.url} did not answer within {self._timeout:g} s"
        return Unreachable(f"{message}: {reason}" if reason else message)

    def _decode(self, path: str, status: int, body: bytes) -> object:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            if status < 400:
                raise ProtocolViolation(f"{self.url}{path}: the answer is not JSON") from error
            value = None
        if status == 200:
            return value
        if 200 < status < 300:
            raise ProtocolViolation(f"{self.url}{path}: HTTP {status}, which is not a whole answer")
        words = as_text(as_object(value).get("message"))
        message = f"{self.url}{path}: HTTP {status}"
        if words:
            message += f": {words[:_LONGEST_MESSAGE]}"
        if status == 404:
            raise RemoteNotFound(message, status=status)
        if status in {401, 403}:
            raise Unauthorized(message, status=status)
        raise Refused(message, status=status)


def _is_buffered(response: http.client.HTTPResponse, link: socket.socket) -> bool:
    """Return whether bytes of a response were received that nobody has read yet."""
    if isinstance(link, ssl.SSLSocket) and link.pending():
        return True
    if response.isclosed():
        return True  # it has ended, which reading tells
    link.settimeout(0)
    try:
        ahead = response.fp.peek(1)
        if response.chunked and response.chunk_left == 0:
            ahead = ahead.strip()  # only the end of the piece before
        return bool(ahead)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    finally:
        link.settimeout(_STREAM_TIMEOUT)


def _end(connection: http.client.HTTPConnection) -> None:
    if isinstance(connection, SSHConnection):
        connection.end()
    else:
        connection.close()


class _Stale(Exception):
    """A kept connection was closed meanwhile."""


def _cut(link: socket.socket, expired: threading.Event) -> None:
    expired.set()
    with contextlib.suppress(OSError):
        # Not the method of a TLS socket, which would begin a farewell.
        socket.socket.shutdown(link, socket.SHUT_RDWR)
