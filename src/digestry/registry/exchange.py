"""One HTTP request and its response, over ASGI: Starlette's request with what a registry adds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar, Final, Protocol
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from digestry.catalog.journal import Origin
from digestry.errors import TooLarge
from digestry.model.descriptor import encode_hook
from digestry.model.history import TagEvent
from digestry.registry import body_memory
from digestry.registry.access.principal import EVERYBODY, Principal
from digestry.registry.body_memory import BODIES
from digestry.registry.chunk_size import KNOWN, ChunkSize
from digestry.registry.connections.config import ConnectionLimits
from digestry.registry.connections.table import SLOW_BODY, STALLED, Connection
from digestry.registry.connections.write_timeout import WriteTimeout
from digestry.registry.error_responses import (
    BrokenOff,
    ClientGone,
    ClientSilent,
    ErrorResponse,
    bad_parameter,
)
from digestry.registry.hosts import Host
from digestry.registry.proxies import Forwarding, share_of
from digestry.registry.route import UNKNOWN, Route

JSON: Final = "application/json"
READS: Final = frozenset(("GET", "HEAD", "OPTIONS"))

Headers = Sequence[tuple[str, str]]

_ALWAYS: Final = (
    (b"docker-distribution-api-version", b"registry/2.0"),
    # What is stored here is strangers' content: no browser may guess that it is a page, nor run it.
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
_LONGEST_CLIENT: Final = 256
_ERRORS: Final = 400
_DRAINED: Final = 16 << 20
_DRAIN_SECONDS: Final = 5.0
_DRAIN_PATIENCE: Final = 1.0
_MOST_DRAINED: Final = 16
"""So many bodies that nobody wants are read away at once: each takes the server's read buffer."""
_SOON: Final = 0.5
_UNKNOWN_SECONDS: Final = 1.0
"""The guard has found a connection by then, or it is gone."""
_DIGEST: Final = b"docker-content-digest"


class SuccessWithheld(Exception):
    """A handler began a successful response although only an error may be sent."""


class RequestObserver(Protocol):
    """The receiver of what happens to requests, such as the access log and the audit log."""

    def name(self, headers: Iterable[tuple[bytes, bytes]], /) -> bytes:
        """Return the ID of the request with these headers."""
        ...

    async def note_write(self, exchange: Exchange, status: int, /) -> None:
        """Note a request that may have changed something, before its response is sent."""
        ...


class Exchange(Request):
    """A request, with the methods that send its response."""

    # On the class: most requests change few of these.
    observer: RequestObserver | None = None
    """The observer of this request."""
    route: Route = UNKNOWN
    """What the request is about."""
    repository: str = ""
    """The repository's name, once it is known to be a valid one."""
    status: int = 0
    """The answer's status, once it began."""
    received: int = 0
    """Bytes of the body that came."""
    length: int | None = None
    """The length of the answer's body, as it was told."""
    sent: int = 0
    """Bytes of the answer's body that were sent."""
    failure: str = ""
    """Why the answer is an error, if it is one. Words: an exception's traceback would hold all of this."""
    reason: str = ""
    """Why it was refused, in a word for the metrics, where its status does not say it."""
    audit_event: dict[str, object] | None = None
    """What a write did, for the audit log, beside what the request itself says."""
    tag_events: Sequence[TagEvent] = ()
    """The journal's entries that a write made."""
    errors_only: bool = False
    """Whether only an error may be answered."""
    extra_headers: Sequence[tuple[bytes, bytes]] = ()
    """Headers that the answer has, whatever it is."""
    api_headers: Sequence[tuple[bytes, bytes]] = _ALWAYS
    """Headers that every answer of the API has."""
    cors_headers: Sequence[tuple[bytes, bytes]] = ()
    """Headers that the answer has for the page that a browser asks for."""
    forwarding: Forwarding = Forwarding()
    """What proxies that are trusted say of this request."""
    connection: Connection | None = None
    """What this request came in by."""
    limits: ConnectionLimits = ConnectionLimits()
    """How slow the client may be."""
    slow: bool = False
    """Whether the client lets the answer wait."""
    host: Host | None = None
    """The host that the client asked for, as far as it is known."""
    _draining: ClassVar[int] = 0
    held_body: int = 0
    """Bytes of the body that are counted until the request has ended."""
    _holder: str = ""
    _taken: int = 0
    _identified: bytes | None = None
    _answer: Sequence[tuple[bytes, bytes]] = ()

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.answered = False
        self.principal: Principal = EVERYBODY
        """Who asks, and what they may do."""
        self.may_move = True
        """Whether they may move tags of the repository that this request is about."""
        self.may_audit = True
        """Whether they may read who did what in it."""
        self._read_whole = False
        self._waited = 0.0
        self._came = 0

    # -- the request ---------------------------------------------------------------------------

    @property
    def origin(self) -> Origin:
        """Return who makes the request, as the journal records it."""
        return Origin(
            actor=self.principal.identity.name,
            address=self.address,
            client=self.headers.get("user-agent", "")[:_LONGEST_CLIENT],
            may_move=self.may_move,
        )

    @property
    def address(self) -> str:
        """Return the client's address, from trusted sources alone; empty for a client of a unix socket."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def header(self, name: bytes) -> str | None:
        """Return one header's value, by its lower-case name, without building a map of all headers."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return None

    @property
    def content_length(self) -> int | None:
        """Return the body's declared length in bytes. Raises :class:`ErrorResponse` if it is not a number."""
        value = self.header(b"content-length")
        if value is None:
            return None
        if not (value.isascii() and value.isdigit()):
            raise ErrorResponse(400, "SIZE_INVALID", "the Content-Length is not a number")
        return int(value)

    def number(self, name: str, *, default: int, most: int) -> int:
        """Return a query parameter that is a count, at most ``most``. Raises :class:`ErrorResponse`."""
        value = self.parameter(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit()) or len(value) > 18:
            raise bad_parameter(name, value, "a whole number, 0 or more, is required")
        return min(int(value), most)

    def parameter(self, name: str) -> str | None:
        """Return a query parameter that may be given once. Raises :class:`ErrorResponse`."""
        values = self.query_params.getlist(name)
        if len(values) > 1:
            raise bad_parameter(name, values[1], "it may be given only once")
        return values[0] if values else None

    async def read(self, limit: int, *, patience: float) -> bytes:
        """Return the whole body. Raises :class:`TooLarge` above ``limit``, and as :meth:`read_part` does."""
        declared = self.content_length
        if declared is not None and declared > limit:
            raise TooLarge(f"the body has {declared} bytes; {limit} are allowed", limit=limit)
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            part, more = await self.read_part(patience)
            size += len(part)
            if size > limit:
                raise TooLarge(f"the body has more than the {limit} bytes that are allowed", limit=limit)
            if size > body_memory.SMALL:
                self._hold_body(size)
            parts.append(part)
        return b"".join(parts)

    def _hold_body(self, size: int) -> None:
        """Count ``size`` bytes of the body as memory of its sender. Raises :class:`ErrorResponse` 429."""
        identity = self.principal.identity
        self._holder = share_of(self.address) if identity.anonymous else identity.name
        BODIES.take(self._holder, size - self.held_body)
        self.held_body = size

    def release_body(self) -> None:
        """Stop counting the body as memory of its sender."""
        BODIES.give_back(self._holder, self.held_body)
        self.held_body = 0

    async def read_part(self, patience: float | None) -> tuple[bytes, bool]:
        """Return the next part of the body, and whether more follows.

        Raises :class:`ClientGone`, and :class:`ClientSilent` after ``patience`` seconds with no bytes or
        too few (None: never).
        """
        if patience is None:
            message = await self._receive()
        else:
            message = await self._wait_for_body(patience)
        if message["type"] == "http.disconnect":
            self._read_whole = True
            raise ClientGone
        more = bool(message.get("more_body", False))
        self._read_whole = not more
        body = message.get("body", b"")
        self.received += len(body)
        if patience is not None and more:
            self._check_rate(len(body), patience)
        return body, more

    async def _wait_for_body(self, patience: float) -> Message:
        connection = self.connection
        began = time.perf_counter()
        if connection is not None:
            connection.waiting = True
        try:
            async with asyncio.timeout(patience):
                return await self._receive()
        except TimeoutError as error:
            raise self._too_slow(f"nothing came for {patience:g} s") from error
        finally:
            # Only this counts: while something else is waited for, the client is not to blame.
            self._waited += time.perf_counter() - began
            if connection is not None:
                connection.waiting = False

    def _check_rate(self, came: int, patience: float) -> None:
        self._came += came
        if self._waited < patience:
            return
        if self._came < self.limits.least_rate * patience:
            raise self._too_slow(f"only {self._came} bytes came in {self._waited:.0f} s")
        self._waited, self._came = 0.0, 0

    def _too_slow(self, message: str) -> ClientSilent:
        self._read_whole = True  # as far as anybody will wait for it
        if self.connection is not None:
            self.connection.break_off(SLOW_BODY)
        return ClientSilent(message)

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
        for name, value in self._answer:
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

    # -- the answer ----------------------------------------------------------------------------

    async def answer(self, status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Send a whole response. A response to HEAD has the body's length without the body."""
        encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers]
        await self.begin(status, encoded, None if status == 204 else len(body))
        await self.finish(b"" if self.method == "HEAD" else body)

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]], length: int | None) -> None:
        """Start a response with encoded headers. ``length`` is that of its body in bytes.

        Raises :class:`SuccessWithheld`.
        """
        if self.errors_only and status < _ERRORS:
            raise SuccessWithheld
        if self.scope["method"] not in READS and self.observer is not None:
            await self.observer.note_write(self, status)  # before the client is told
        self.answered = True
        self.status = status
        self.length = length
        self._answer = headers
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

    async def finish(self, body: bytes = b"", *, more: bool = False) -> None:
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
    def bytes_taken(self) -> int:
        """Return how many bytes of this connection's responses the client has read, as far as is known."""
        if self._taken < KNOWN and self.connection is not None:
            found = self.connection.taken()
            # Where the kernel does not say, what the server took counts, but for what it may keep itself.
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
                return  # nobody knows what it has taken
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
        await self.answer(200, [("Content-Type", media_type), *headers], body)

    async def send_error(self, response: ErrorResponse) -> None:
        """Send an error response."""
        self.failure = response.message
        self.reason = response.reason
        await self._drain()
        body = msgspec.json.encode(response.body())
        await self.answer(response.status, [("Content-Type", JSON), *response.headers.items()], body)

    async def _drain(self) -> None:
        """Read and discard the rest of the request's body, unless it is long.

        The server closes a connection whose request was not read to its end, and a client that still
        sends then sees a broken pipe and not the response. A client that waits for ``100 Continue`` sends
        nothing before the response.
        """
        length = self.header(b"content-length")
        if length in {None, "0"} and self.header(b"transfer-encoding") is None:
            return
        if self._read_whole or self.header(b"expect") is not None:
            return
        if length is not None and (not length.isdigit() or len(length) > 18 or int(length) > _DRAINED):
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
