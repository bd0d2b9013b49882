"""HTTP to a container engine's API, over a unix socket or TCP, on the standard library.

An engine is not trusted: an answer has a size limit, a time limit for all of it, and a shape that
is checked by whoever reads it. Nothing is ever sent but GET.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from digestry.client.options import is_loopback
from digestry.errors import (
    InvalidConfiguration,
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from digestry.model.digest import shown

LARGEST_ANSWER: Final = 64 << 20
"""In bytes. A list of containers takes some 2 KB a container."""
TIMEOUT: Final = 10.0
"""Seconds for one whole request, its body included."""

_CHUNK: Final = 1 << 16
_RETRY: Final = 0.02
_LONGEST_MESSAGE: Final = 300


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        deadline = time.monotonic() + (self.timeout or 0)
        while True:
            try:
                self.sock.connect(self._path)
            except BlockingIOError:
                # Too many others are waiting to be let in; a unix socket does not wait for us.
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(_RETRY)
            else:
                return


class Engine:
    """One engine's API. ``url`` is ``unix:///path``, ``tcp://host:port``, ``http(s)://host:port``.

    Over TCP, TLS is used for ``https://``, and for ``tcp://`` if ``DOCKER_TLS_VERIFY`` is set,
    with the certificates of ``DOCKER_CERT_PATH``, as docker's client does. Raises
    :class:`InvalidConfiguration` for any other URL.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT, largest_answer: int = LARGEST_ANSWER) -> None:
        self.url = url
        self._timeout = timeout
        self._limit = largest_answer
        self._address = urlsplit(url)
        try:
            port = self._address.port
        except ValueError as error:
            raise InvalidConfiguration(f"engine address {shown(url)}: {error}") from error
        scheme = self._address.scheme
        self._tls = scheme == "https" or (scheme == "tcp" and bool(os.environ.get("DOCKER_TLS_VERIFY")))
        self._port = port or (2376 if self._tls else 2375)
        usable = self._address.path if scheme == "unix" else self._address.hostname
        if scheme not in {"unix", "tcp", "http", "https"} or not usable:
            raise InvalidConfiguration(
                f"engine address {shown(url)} is not valid",
                hint="write it as unix:///path/docker.sock or tcp://127.0.0.1:2375",
            )

    @property
    def is_remote(self) -> bool:
        """Whether the engine is on another machine, whose "localhost" is not this one's."""
        return self._address.scheme != "unix" and not is_loopback(self._address.netloc)

    def get(self, path: str, **query: str) -> Any:
        """The JSON at ``path``. Raises :class:`Unreachable`, :class:`Refused` and its kinds,
        :class:`TooLarge`, and :class:`ProtocolViolation` for what is not JSON."""
        if query:
            path += "?" + "&".join(f"{key}={quote(value)}" for key, value in query.items())
        connection = self._connection()
        expired = threading.Event()
        # The socket's own limit is for one read: a drip of bytes would never reach it.
        watchdog = threading.Timer(self._timeout, expired.set)
        try:
            connection.connect()
            # The connection forgets its socket as soon as the answer is to be ended by closing it.
            watchdog = threading.Timer(self._timeout, _cut, (connection.sock, expired))
            watchdog.daemon = True
            watchdog.start()
            connection.request("GET", path)
            with contextlib.closing(connection.getresponse()) as response:
                body = self._read(response)
                status = response.status
        except TimeoutError as error:
            raise self._silent() from error
        except FileNotFoundError as error:
            raise Unreachable(f"{self.url}: there is no such socket") from error
        except PermissionError as error:
            raise Unreachable(
                f"{self.url}: permission denied", hint="run as a user who may use that socket"
            ) from error
        except OSError as error:
            if expired.is_set():
                raise self._silent() from error
            raise Unreachable(f"{self.url} does not answer: {error.strerror or error}") from error
        except http.client.HTTPException as error:
            if expired.is_set():
                raise self._silent() from error
            raise ProtocolViolation(
                f"{self.url} does not speak HTTP as an engine does: {type(error).__name__}"
            ) from error
        finally:
            watchdog.cancel()
            connection.close()
        if expired.is_set():
            raise self._silent()
        return self._decode(path, status, body)

    def _connection(self) -> http.client.HTTPConnection:
        if self._address.scheme == "unix":
            return _UnixConnection(self._address.path, self._timeout)
        host = self._address.hostname or ""
        if not self._tls:
            return http.client.HTTPConnection(host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(host, self._port, timeout=self._timeout, context=self._context())

    def _context(self) -> ssl.SSLContext:
        directory = os.environ.get("DOCKER_CERT_PATH", "")
        try:
            if not directory:
                return ssl.create_default_context()
            certificates = Path(directory)
            authority = certificates / "ca.pem"
            context = ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
            if (certificates / "cert.pem").exists():
                context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
        except OSError as error:
            raise Unreachable(f"{self.url}: cannot use the certificates in {directory}: {error}") from error
        return context

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
        return b"".join(parts)

    def _silent(self) -> Unreachable:
        return Unreachable(f"{self.url} did not answer within {self._timeout:g} s")

    def _decode(self, path: str, status: int, body: bytes) -> Any:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            if status < 400:
                raise ProtocolViolation(f"{self.url}{path}: the answer is not JSON") from error
            value = None
        if 200 <= status < 300:
            return value
        said = text(fields(value).get("message"))
        message = f"{self.url}{path}: HTTP {status}"
        if said:
            message += f": {said[:_LONGEST_MESSAGE]}"
        if status == 404:
            raise RemoteNotFound(message, status=status)
        if status in {401, 403}:
            raise Unauthorized(message, status=status)
        raise Refused(message, status=status)


def _cut(link: socket.socket, expired: threading.Event) -> None:
    expired.set()
    with contextlib.suppress(OSError):
        # Not the method of a TLS socket, which would begin a farewell.
        socket.socket.shutdown(link, socket.SHUT_RDWR)


def fields(value: object) -> dict[str, Any]:
    """``value`` if it is a JSON object, else an empty one: an engine may send anything."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """``value`` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    """``value`` if it is a string, else an empty one.

    JSON can spell half characters (``\\ud800``), which nothing can print or encode: they become "?".
    """
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""
