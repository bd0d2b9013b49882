"""A bounded request for a small document: a time limit for the whole, and a size limit."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from digestry import dns

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LARGEST_PATH: Final = 8 << 10


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any status, with its media type."""

    status: int
    media_type: str
    content: bytes


def fetch(
    url: str,
    *,
    seconds: float,
    most: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return the body that ``url`` answers with 200, as :func:`ask` has it. Raises OSError and ValueError."""
    answer = ask(url, seconds=seconds, most=most, body=body, headers=headers)
    if answer.status != http.HTTPStatus.OK:
        raise ValueError(f"{url} answered {answer.status}")
    return answer.content


def ask(
    url: str,
    *,
    seconds: float,
    most: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Return what ``url`` answers to a GET, or to a POST of ``body``, if it has ``most`` bytes or fewer.
    Blocks.

    ``tls`` is what is trusted for it, by default what the system trusts. All of it takes ``seconds`` at most,
    the look-up of the host's name too, however slowly the other side sends. Redirects are not followed.
    Raises OSError and ValueError.
    """
    ends = time.monotonic() + seconds
    parts = urlsplit(url)
    host = parts.hostname
    if host is None or parts.scheme not in {"http", "https"} or len(url) > _LARGEST_PATH:
        raise ValueError(f"{url} is not a URL that can be asked")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    plain = _connected(host, port, ends)
    with contextlib.closing(plain if parts.scheme == "http" else _secured(plain, host, ends, tls)) as stream:
        connection = http.client.HTTPConnection(host, port)
        connection.sock = _Timed(stream, ends)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            sent = {"Accept": "application/json", "Connection": "close", **(headers or {})}
            connection.request("GET" if body is None else "POST", path, body, sent)
            answer = connection.getresponse()
            content = answer.read(most + 1)
        except http.client.HTTPException as error:
            raise ValueError(f"{url} did not answer as HTTP does: {type(error).__name__}") from error
    if len(content) > most:
        raise ValueError(f"{url} answered with more than {most} bytes")
    if answer.length:
        raise ValueError(f"{url} broke off before the end of its answer")
    return Answer(answer.status, answer.headers.get_content_type(), content)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long to answer")
    return left


def _connected(host: str, port: int, ends: float) -> socket.socket:
    failure: OSError | None = None
    addresses = dns.look_up(host, port, seconds=_left(ends), owner=f"keys of {host}")
    for family, kind, protocol, _, address in addresses:
        found = socket.socket(family, kind, protocol)
        try:
            found.settimeout(_left(ends))
            found.connect(address)
        except OSError as error:
            found.close()
            failure = error
        else:
            return found
    raise failure or OSError(f"{host} has no address")


def _secured(plain: socket.socket, host: str, ends: float, tls: ssl.SSLContext | None) -> ssl.SSLSocket:
    try:
        plain.settimeout(_left(ends))  # of the whole handshake
        return (tls or ssl.create_default_context()).wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


class _Timed(io.RawIOBase):
    """A socket for :mod:`http.client` whose waits end at the deadline of the whole."""

    def __init__(self, stream: socket.socket, ends: float) -> None:
        self._stream = stream
        self._ends = ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._stream.settimeout(_left(self._ends))
        return self._stream.recv_into(buffer)

    def sendall(self, content: bytes) -> None:
        self._stream.settimeout(_left(self._ends))
        self._stream.sendall(content)

    def close(self) -> None:
        """Leave the socket open: its owner reads the answer after :mod:`http.client` has closed this."""

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(self)
