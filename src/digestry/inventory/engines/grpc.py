"""A gRPC client over a unix socket: calls of one message, with one response message or a stream.

The library ``h2`` implements HTTP/2. This module adds what the "gRPC over HTTP2" protocol requires: five
bytes before each message, and a status at the end.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from digestry.errors import (
    DigestryError,
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from digestry.inventory.engines.client import LARGEST_ANSWER, TIMEOUT, Waiting
from digestry.model.digest import shown
from digestry.model.text import number_of

Metadata = tuple[tuple[str, str], ...]

_CHUNK: Final = 1 << 18
_WINDOW: Final = 1 << 22
_PREFIX: Final = 5
_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4
_RETRY: Final = 0.02
_LONGEST_MESSAGE: Final = 300
_CALLER: Final = "digestry"
# The codes of gRPC that mean more than a refusal.
_OK: Final = "0"
_DEADLINE: Final = "4"
_NOT_FOUND: Final = "5"
_UNIMPLEMENTED: Final = "12"
_UNAVAILABLE: Final = "14"
_FORBIDDEN: Final = frozenset({"7", "16"})


class Unimplemented(Refused):
    """The server has no such method."""


class Channel:
    """One connection to the server at the unix socket ``path``, for one call at a time.

    The first call opens it, and so does the next call after an error.

    ``timeout`` is in seconds for one whole call, ``largest_answer`` in bytes for all its messages.
    """

    def __init__(self, path: str, *, timeout: float = TIMEOUT, largest_answer: int = LARGEST_ANSWER) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._timeout = timeout
        self._limit = largest_answer
        self._link: _Link | None = None

    def close(self) -> None:
        """Close the connection. A further call opens it again."""
        link, self._link = self._link, None
        if link is not None:
            link.socket.close()

    def unary(self, method: str, message: bytes = b"", metadata: Metadata = ()) -> bytes:
        """Call ``method``, ``/package.Service/Method``, and return the one message of its response.

        Raises :class:`Unreachable`, :class:`Refused` and its kinds, :class:`TooLarge`, and
        :class:`ProtocolViolation` for a response that is not gRPC.
        """
        answers = list(self.stream(method, message, metadata))
        if len(answers) != 1:
            raise ProtocolViolation(
                f"{self.url}{method}: {number_of(len(answers), 'message')} where there should be one"
            )
        return answers[0]

    def stream(self, method: str, message: bytes = b"", metadata: Metadata = ()) -> Iterator[bytes]:
        """Call ``method``, and yield the messages of its response as they come. Raises as :meth:`unary` does.

        Read all of them before the next call.
        """
        deadline = time.monotonic() + self._timeout
        done = False
        try:
            yield from self._call(method, message, metadata, deadline)
            done = True
        except TimeoutError as error:
            raise Unreachable(f"{self.url} did not answer within {self._timeout:g} s") from error
        except FileNotFoundError as error:
            raise Unreachable(f"{self.url}: there is no such socket") from error
        except PermissionError as error:
            raise Unreachable(
                f"{self.url}: permission denied", hint="run as a user who may use that socket, as root"
            ) from error
        except OSError as error:
            raise Unreachable(f"{self.url} does not answer: {error.strerror or error}") from error
        except h2.exceptions.H2Error as error:
            raise ProtocolViolation(
                f"{self.url} does not speak gRPC: {type(error).__name__}",
                hint="is it the socket of another program, docker's perhaps?",
            ) from error
        except Refused:
            done = True  # a refusal leaves the connection as it was
            raise
        finally:
            if not done:
                self.close()

    def endless(self, method: str, message: bytes, wait: Waiting) -> Iterator[bytes | None]:
        """Call ``method``, and yield the messages of its response as they come, for as long as it lasts;
        nothing (``b""``) before each wait for more, and None if ``wait`` returned False.

        It has a connection of its own. Raises as :meth:`unary` does, also when the response ends.
        """
        link: _Link | None = None
        try:
            link = _Link(self._path, time.monotonic() + self._timeout)
            yield from self._endless(link, method, message, wait)
        except TimeoutError as error:
            raise Unreachable(f"{self.url} did not answer within {self._timeout:g} s") from error
        except OSError as error:
            raise Unreachable(f"{self.url} does not answer: {error.strerror or error}") from error
        except h2.exceptions.H2Error as error:
            raise ProtocolViolation(f"{self.url} does not speak gRPC: {type(error).__name__}") from error
        finally:
            if link is not None:
                link.socket.close()

    def _endless(self, link: _Link, method: str, message: bytes, wait: Waiting) -> Iterator[bytes | None]:
        stream = link.http.get_next_available_stream_id()
        link.http.send_headers(stream, _headers(method, (), None))
        link.http.send_data(stream, len(message).to_bytes(_PREFIX, "big") + message, end_stream=True)
        answer = _Answer(self.url, method, self._limit)
        while not answer.complete:
            link.socket.settimeout(self._timeout)
            link.socket.sendall(link.http.data_to_send())
            yield b""
            if not wait(link.socket.fileno()):
                yield None
                continue
            for event in link.exchange(time.monotonic() + self._timeout):
                link.take(event, answer)
            yield from answer.messages()
            answer.forget()
        answer.check()
        raise Unreachable(f"{self.url}{method}: the stream has ended")

    def _call(self, method: str, message: bytes, metadata: Metadata, deadline: float) -> Iterator[bytes]:
        if self._link is not None and self._link.ended:
            self.close()
        if self._link is None:
            self._link = _Link(self._path, deadline)
        link = self._link
        stream = link.http.get_next_available_stream_id()
        link.http.send_headers(stream, _headers(method, metadata, deadline))
        link.http.send_data(stream, len(message).to_bytes(_PREFIX, "big") + message, end_stream=True)
        answer = _Answer(self.url, method, self._limit)
        while not answer.complete:
            for event in link.exchange(deadline):
                if getattr(event, "stream_id", stream) in {stream, 0, None}:
                    link.take(event, answer)
            yield from answer.messages()
        answer.check()


class _Link:
    """A socket, and the state of HTTP/2 on it."""

    def __init__(self, path: str, deadline: float) -> None:
        self.socket = _connected(path, deadline)
        self.ended = False
        self._first = b""
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.http.initiate_connection()
        self.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self.http.increment_flow_control_window(_WINDOW)

    def exchange(self, deadline: float) -> list[h2.events.Event]:
        """Send the pending bytes, and return the events that are received then."""
        self._wait_until(deadline)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # Its last bytes before it closed the connection may show more: for example another protocol.
            self.socket.sendall(self.http.data_to_send())
        self._wait_until(deadline)
        received = self.socket.recv(_CHUNK)
        if not received:
            raise ConnectionResetError("the connection was closed in the middle of an answer")
        if len(self._first) < _FRAME_HEADER:
            self._first += received
            if len(self._first) < _FRAME_HEADER:
                return []
            received = self._first
            # A server begins with its settings (RFC 9113, section 3.4); the library would wait for the end of
            # the frame that another protocol's first bytes announce.
            if received[3] != _SETTINGS or received[0]:
                raise h2.exceptions.ProtocolError(f"it begins with {received[:_FRAME_HEADER]!r}")
        return self.http.receive_data(received)

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)

    def take(self, event: h2.events.Event, answer: _Answer) -> None:
        """Process an event of the response's stream or of the connection."""
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            answer.head({_decoded(name): _decoded(value) for name, value in event.headers or ()})
        elif isinstance(event, h2.events.DataReceived):
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            answer.add(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            answer.complete = True
        elif isinstance(event, h2.events.StreamReset):
            raise ConnectionResetError(f"the server gave the call up (HTTP/2 error {event.error_code})")
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.ended = True
            if not answer.complete and event.last_stream_id == 0:
                raise ConnectionResetError("the server is ending")


class _Answer:
    """The received part of a response: its messages, each taken as soon as it is whole, and its status."""

    def __init__(self, url: str, method: str, limit: int) -> None:
        self._where = f"{url}{method}"
        self._url = url
        self._limit = limit
        self._total = 0
        self._buffer = bytearray()
        self._status: str | None = None
        self._message = ""
        self.complete = False

    def head(self, headers: dict[str, str]) -> None:
        """Process the headers at the beginning or at the end."""
        if (status := headers.get(":status")) is not None:
            kind = headers.get("content-type", "")
            if status != "200" or not kind.startswith("application/grpc"):
                raise ProtocolViolation(
                    f"{self._where}: HTTP {status} {shown(kind)} is not an answer of gRPC"
                )
        if "grpc-status" in headers:
            self._status = headers["grpc-status"]
            self._message = unquote(headers.get("grpc-message", ""))

    def add(self, data: bytes) -> None:
        self._total += len(data)
        if self._total > self._limit:
            raise TooLarge(
                f"{self._url}: the answer is longer than {self._limit} bytes, and was not read",
                limit=self._limit,
            )
        self._buffer += data

    def messages(self) -> Iterator[bytes]:
        position = 0
        while len(self._buffer) - position >= _PREFIX:
            if self._buffer[position]:
                raise ProtocolViolation(f"{self._where}: a message is compressed, which was not requested")
            start = position + _PREFIX
            end = start + int.from_bytes(self._buffer[position + 1 : start], "big")
            if end > len(self._buffer):
                break
            yield bytes(self._buffer[start:end])
            position = end
        del self._buffer[:position]

    def forget(self) -> None:
        """Count the messages that were taken no more."""
        self._total = len(self._buffer)

    def check(self) -> None:
        """Raise the error of the status, or an error if there is no status."""
        if self._status == _OK:
            if self._buffer:
                raise ProtocolViolation(f"{self._where}: the answer ends in the middle of a message")
            return
        if self._status is None:
            raise ProtocolViolation(f"{self._where}: the answer ends without a status")
        raise self._refusal(self._status)

    def _refusal(self, code: str) -> DigestryError:
        message = (
            f"{self._where}: {shown(self._message[:_LONGEST_MESSAGE]) if self._message else f'code {code}'}"
        )
        if code == _NOT_FOUND:
            return RemoteNotFound(message, status=404)
        if code in _FORBIDDEN:
            return Unauthorized(message, status=403)
        if code == _UNIMPLEMENTED:
            return Unimplemented(message, status=501)
        if code in {_UNAVAILABLE, _DEADLINE}:
            return Unreachable(message)
        return Refused(message, status=500)


def _headers(method: str, metadata: Metadata, deadline: float | None) -> list[tuple[str, str]]:
    """Return the headers of a call; one without a ``deadline`` may last for ever."""
    limits = []
    if deadline is not None:
        left = max(1, round((deadline - time.monotonic()) * 1000))
        limits = [("grpc-timeout", f"{min(left, 99_999_999)}m")]
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", _CALLER),
        *limits,
        *metadata,
    ]


def _decoded(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _connected(path: str, deadline: float) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(max(_RETRY, deadline - time.monotonic()))
        while True:
            try:
                link.connect(path)
            except BlockingIOError:
                # Too many others are waiting to be let in; a unix socket does not wait for us.
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(_RETRY)
            else:
                return link
    except BaseException:
        with contextlib.suppress(OSError):
            link.close()
        raise
