"""One HTTP request with its response, over ASGI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar, Final, Protocol
from urllib.parse import urlencode

import msgspec

from digestry.model.descriptor import encode_hook
from digestry.model.history import TagEvent
from digestry.registry.chunk_size import KNOWN, ChunkSize
from digestry.registry.connections.table import STALLED, Connection
from digestry.registry.connections.write_timeout import WriteTimeout
from digestry.registry.error_responses import (
    BrokenOff,
    ClientGone,
    ClientSilent,
    ErrorResponse,
)
from digestry.registry.request import IncomingRequest
from digestry.registry.route import UNKNOWN, Route

JSON: Final = "application/json"
READS: Final = frozenset(("GET", "HEAD", "OPTIONS"))

Headers = Sequence[tuple[str, str]]

_ALWAYS: Final = (
    (b"docker-distribution-api-version", b"registry/2.0"),
    # Stored content is not trusted: no browser may guess that it is a page, nor run it.
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
_LONGEST_CLIENT: Final = 256
_ERRORS: Final = 400
_DRAINED: Final = 16 << 20
_DRAIN_SECONDS: Final = 5.0
_DRAIN_PATIENCE: Final = 1.0
_MOST_DRAINED: Final = 16
"""So many unwanted bodies are drained at once: each takes the server's read buffer."""
_SHORT_BODY: Final = 64 << 10
"""A longer body is not waited for, if the server drains it after the response."""
_SOON: Final = 0.5
_UNKNOWN_SECONDS: Final = 1.0
"""The guard has found a connection by then, or it is gone."""
_DIGEST: Final = b"docker-content-digest"
ZERO_COPY: Final = "http.response.zerocopysend"
"""The extension of ASGI by which the kernel sends a part of a file."""
DRAINS: Final = "digestry.http.drains"
"""The extension of a server that drains the rest of a request's body after the response."""


class SuccessWithheld(Exception):
    """A handler began a successful response although only an error may be sent."""


class RequestObserver(Protocol):
    """The receiver of a request's events, such as the access log and the audit log."""

    def name(self, headers: Iterable[tuple[bytes, bytes]], /) -> bytes:
        """Return the ID of the request with these headers."""
        ...

    async def note_write(self, exchange: Exchange, status: int, /) -> None:
        """Note a request that may have changed something, before its response is sent."""
        ...


class Exchange(IncomingRequest):
    """A request with its response, and the fields of the logs about both."""

    # On the class: most requests change few of these.
    observer: RequestObserver | None = None
    """The observer of this request."""
    route: Route = UNKNOWN
    """The route of the request."""
    repository: str = ""
    """The repository's name, once it is known to be a valid one."""
    response_started: bool = False
    """Whether the response has begun."""
    status: int = 0
    """The response's status, once it has begun."""
    length: int | None = None
    """The declared length of the response's body."""
    sent: int = 0
    """Bytes of the response's body that were sent."""
    failure: str = ""
    """Why the response is an error, if it is one. A text: an exception's traceback would keep all of this
    alive."""
    reason: str = ""
    """Why it was refused, in a word for the metrics, where the status does not say it."""
    audit_event: dict[str, object] | None = None
    """The effect of a write, for the audit log, beside the fields of every request."""
    audited: bool = False
    """Whether the audit lines of its success are written."""
    tag_events: Sequence[TagEvent] = ()
    """The journal's entries that a write made."""
    errors_only: bool = False
    """Whether only an error may be sent."""
    extra_headers: Sequence[tuple[bytes, bytes]] = ()
    """Headers of this response, with any status."""
    api_headers: Sequence[tuple[bytes, bytes]] = _ALWAYS
    """Headers of every response of the API."""
    cors_headers: Sequence[tuple[bytes, bytes]] = ()
    """Headers for the web page on whose behalf a browser asks."""
    slow: bool = False
    """Whether the client reads the response slowly."""
    _draining: ClassVar[int] = 0
    _taken: int = 0
    _identified: bytes | None = None
    _headers_sent: Sequence[tuple[bytes, bytes]] = ()

    # -- for observers -------------------------------------------------------------------------

    @property
    def request_id(self) -> str:
        """Return the request ID that the client or a proxy sent, or else one made here."""
        return str(self._identified or self._identify(), "ascii")

    def _identify(self) -> bytes:
        found = b"-" if self.observer is None else self.observer.name(self.scope["headers"])
        self._identified = found
        return found

    @property
    def digest(self) -> str:
        """Return the digest in the response's headers, the audit event or the path; empty if none has one."""
        for name, value in self._headers_sent:
            if name == _DIGEST:
                return value.decode("latin-1")
        if self.audit_event is not None and "digest" in self.audit_event:
            return str(self.audit_event["digest"])
        last = str(self.scope["path"]).rpartition("/")[2]
        return last if last.startswith(("sha256:", "sha512:")) else ""

    def record_audit_event(self, *, events: Sequence[TagEvent] = (), **what: object) -> None:
        """Add fields, such as ``action`` and ``digest``, and tag ``events`` to this write's audit event."""
        self.audit_event = {**(self.audit_event or {}), **what}
        self.tag_events = (*self.tag_events, *events)

    # -- the response --------------------------------------------------------------------------

    async def respond(self, status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Send a whole response. A response to HEAD has the body's length without the body."""
        encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers]
        await self.start_response(status, encoded, None if status == 204 else len(body))
        await self.send_body(b"" if self.method == "HEAD" else body)

    async def start_response(
        self, status: int, headers: list[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """Start a response with encoded headers. ``length`` is that of its body in bytes.

        Raises :class:`SuccessWithheld`.
        """
        if self.errors_only and status < _ERRORS:
            raise SuccessWithheld
        is_event = self.scope["method"] not in READS or self.audit_event is not None
        if is_event and self.observer is not None:
            await self.observer.note_write(self, status)  # before the client is answered
        self.response_started = True
        self.status = status
        self.length = length
        self._headers_sent = headers
        lines = [
            *self.api_headers,
            (b"x-request-id", self._identified or self._identify()),
            *self.cors_headers,
            *self.extra_headers,
            *headers,
        ]
        if length is not None:
            lines.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    async def send_body(self, body: bytes = b"", *, more: bool = False) -> None:
        """Send the body, or with ``more`` a part of it.

        Raises :class:`BrokenOff` if the client does not read the parts that were sent before.
        """
        connection = self.connection
        if connection is not None:
            connection.sent += len(body)
        parts = more or self.sent > 0
        self.sent += len(body)
        sending = self._send({"type": "http.response.body", "body": body, "more_body": more})
        if parts and connection is not None:
            await self._wait_until_taken(sending, connection)
        else:
            await sending  # the server keeps it, whole

    @property
    def sends_files(self) -> bool:
        """Return whether the server has the kernel send parts of files."""
        return ZERO_COPY in self.scope.get("extensions", ())

    async def send_file(self, descriptor: int, position: int, count: int, *, more: bool) -> None:
        """Send a part of a file as a part of the body. Raises as :meth:`send_body` does."""
        connection = self.connection
        self.sent += count
        sending = self._send(
            {"type": ZERO_COPY, "file": descriptor, "offset": position, "count": count, "more_body": more}
        )
        if connection is None:
            await sending
        else:
            connection.sent += count
            await self._wait_until_taken(sending, connection)

    @property
    def bytes_taken(self) -> int:
        """Return how many bytes of this connection's responses the client has read, if known."""
        if self._taken < KNOWN and self.connection is not None:
            found = self.connection.taken()
            # Without the kernel's count, the bytes that the server took count, less those that it may buffer.
            self._taken = max(self._taken, self.sent // 8 if found is None else found)
        return self._taken

    async def wait_until_read(self, chunk_size: ChunkSize, *, stopped: Callable[[], bool]) -> None:
        """Wait until the client has read enough of this connection's responses to be sent more.

        Without this wait, each client that never reads would fill megabytes of kernel buffers. Clients that
        have read much do not wait here: the server limits them. Raises :class:`BrokenOff`.
        """
        connection = self.connection
        if connection is not None and connection.sought and self._far_ahead(connection, chunk_size):
            await self._wait_until_taken(self._until_near(connection, chunk_size, stopped), connection)

    def _far_ahead(self, connection: Connection, chunk_size: ChunkSize) -> bool:
        if (
            connection.sent <= chunk_size.under_way
            or self._taken >= KNOWN
            or self.scope["http_version"] == "2"
        ):
            return False  # of streams, one that is not read must not hold up the others
        taken = self.bytes_taken
        return taken < KNOWN and connection.sent - taken > chunk_size.under_way + taken // 2

    async def _until_near(
        self, connection: Connection, chunk_size: ChunkSize, stopped: Callable[[], bool]
    ) -> None:
        pause, waited = chunk_size.pause / 64, 0.0
        while self._far_ahead(connection, chunk_size) and not stopped():
            if connection.descriptor < 0 and waited > _UNKNOWN_SECONDS:
                return  # it is not known how much it has read
            await asyncio.sleep(pause)
            waited += pause
            pause = min(2 * pause, chunk_size.pause)

    async def _wait_until_taken(self, sending: Awaitable[None], connection: Connection) -> None:
        """Wait until the server has room for a part, which the client makes by reading an earlier one."""
        task = asyncio.current_task()
        watch = WriteTimeout(self.limits, connection, task)
        connection.waiting = True
        began = time.perf_counter()
        try:
            await sending
        except asyncio.CancelledError:
            if not watch.stalled or task is None:
                raise
            task.uncancel()
            connection.break_off(STALLED)
            raise BrokenOff("the client does not take its answer") from None
        finally:
            watch.end()
            connection.waiting = False
            self.slow = time.perf_counter() - began > _SOON

    async def json(self, value: object, *, media_type: str = JSON, headers: Headers = ()) -> None:  # type: ignore[override]
        """Send a 200 response with ``value`` as JSON."""
        body = msgspec.json.encode(value, enc_hook=encode_hook)
        await self.respond(200, [("Content-Type", media_type), *headers], body)

    async def send_error(self, response: ErrorResponse) -> None:
        """Send an error response."""
        self.failure = response.message
        self.reason = response.reason
        await self._drain()
        body = msgspec.json.encode(response.body())
        await self.respond(response.status, [("Content-Type", JSON), *response.headers.items()], body)

    async def _drain(self) -> None:
        """Read and discard the rest of the request's body, unless it is long.

        After it the connection serves on. A connection whose request was not read to its end is closed, and
        unless the server drains the body first, a client that still sends sees a broken pipe and not the
        response. A client that waits for ``100 Continue`` sends nothing before the response.
        """
        length = self.header(b"content-length")
        if length in {None, "0"} and self.header(b"transfer-encoding") is None:
            return
        if self.read_whole or self.header(b"expect") is not None:
            return
        if length is not None and (not length.isdigit() or len(length) > 18 or int(length) > _DRAINED):
            return
        if (length is None or int(length) > _SHORT_BODY) and DRAINS in self.scope.get("extensions", ()):
            return
        if Exchange._draining >= _MOST_DRAINED:
            return
        left = _DRAINED
        Exchange._draining += 1
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                more = True
                while more and left > 0:
                    part, more = await self.read_part(_DRAIN_PATIENCE)
                    left -= len(part)
        except (ClientGone, ClientSilent, TimeoutError):
            return
        finally:
            Exchange._draining -= 1

    def next_page(self, **parameters: str | int) -> tuple[str, str]:
        """Return the ``Link`` header of the list's next page (RFC 5988): this URL with ``parameters`` set."""
        query = dict(self.query_params.multi_items())
        query.update({name: str(value) for name, value in parameters.items()})
        return "Link", f'<{self.scope["path"]}?{urlencode(query)}>; rel="next"'
