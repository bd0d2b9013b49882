"""The incoming half of an exchange: a request's sender, headers, parameters and body, over ASGI."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from digestry.catalog.journal import Origin
from digestry.errors import TooLarge
from digestry.registry import body_memory
from digestry.registry.access.principal import EVERYBODY, Principal
from digestry.registry.body_memory import BODIES
from digestry.registry.connections.config import ConnectionLimits
from digestry.registry.connections.table import SLOW_BODY, Connection
from digestry.registry.error_responses import ClientGone, ClientSilent, ErrorResponse, bad_parameter
from digestry.registry.hosts import Host
from digestry.registry.proxies import Forwarding, share_of

_LONGEST_CLIENT: Final = 256


@types.coroutine
def _go_on(begun: Coroutine[Any, Any, Message], awaited: object) -> Generator[Any, Any, Message]:
    """Await what was begun and has first awaited ``awaited``."""
    try:
        while True:
            try:
                value = yield awaited
            except BaseException as error:  # noqa: BLE001 - it is for what was begun, as a cancellation is
                awaited = begun.throw(error)
            else:
                awaited = begun.send(value)
    except StopIteration as ended:
        found: Message = ended.value
        return found


class IncomingRequest(Request):
    """A request: Starlette's, with its sender, checked parameters, and a body that is read within limits."""

    # On the class: most requests change few of these.
    received: int = 0
    """Bytes of the body that came."""
    forwarding: Forwarding = Forwarding()
    """The statements of trusted proxies about this request."""
    connection: Connection | None = None
    """The connection that this request came in by."""
    limits: ConnectionLimits = ConnectionLimits()
    """How slow the client may be."""
    host: Host | None = None
    """The host that the client requested, if known."""
    held_body: int = 0
    """Bytes of the body that are counted until the request has ended."""
    _holder: str = ""
    _unread: bytes | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.principal: Principal = EVERYBODY
        """The sender, and what it may do."""
        self.may_move = True
        """Whether the sender may move tags of the repository that this request is about."""
        self.may_audit = True
        """Whether the sender may read who did what in it."""
        self.read_whole = False
        """Whether the body was read to its end."""
        self._waited = 0.0
        self._received = 0

    @property
    def origin(self) -> Origin:
        """Return the origin of the request, as the journal records it."""
        return Origin(
            actor=self.principal.identity.name,
            address=self.address,
            client=(self.header(b"user-agent") or "")[:_LONGEST_CLIENT],
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

    def header_values(self, name: bytes) -> list[str]:
        """Return the values of all headers of this lower-case name."""
        return [str(value, "latin-1") for key, value in self.scope["headers"] if key == name]

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

    def parameters(self, name: str) -> list[str]:
        """Return the values of a query parameter."""
        return self.query_params.getlist(name) if self.scope["query_string"] else []

    def parameter(self, name: str) -> str | None:
        """Return a query parameter that may be given once. Raises :class:`ErrorResponse`."""
        values = self.parameters(name)
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
        if self._unread is not None:
            body, self._unread = self._unread, None
            return body, False
        if patience is None:
            message = await self._receive()
        else:
            message = await self._wait_for_body(patience)
        if message["type"] == "http.disconnect":
            self.read_whole = True
            raise ClientGone
        more = bool(message.get("more_body", False))
        self.read_whole = not more
        body = message.get("body", b"")
        self.received += len(body)
        if patience is not None and more:
            self._check_rate(len(body), patience)
        return body, more

    def put_back(self, body: bytes) -> None:
        """Have the whole ``body``, which was read, read once more."""
        self._unread = body

    async def _wait_for_body(self, patience: float) -> Message:
        # Most short bodies are there already: then there is nothing to wait for, nor a time limit to set.
        receiving = self._next_message()
        try:
            awaited = receiving.send(None)
        except StopIteration as received:
            found: Message = received.value
            return found
        connection = self.connection
        began = time.perf_counter()
        if connection is not None:
            connection.waiting = True
        try:
            async with asyncio.timeout(patience):
                return await _go_on(receiving, awaited)
        except TimeoutError as error:
            raise self._too_slow(f"nothing came for {patience:g} s") from error
        finally:
            # Only this counts: while something else is waited for, the client is not to blame.
            self._waited += time.perf_counter() - began
            if connection is not None:
                connection.waiting = False

    async def _next_message(self) -> Message:
        return await self._receive()

    def _check_rate(self, came: int, patience: float) -> None:
        self._received += came
        if self._waited < patience:
            return
        if self._received < self.limits.least_rate * patience:
            raise self._too_slow(f"only {self._received} bytes came in {self._waited:.0f} s")
        self._waited, self._received = 0.0, 0

    def _too_slow(self, message: str) -> ClientSilent:
        self.read_whole = True  # up to the longest wait that is useful
        if self.connection is not None:
            self.connection.break_off(SLOW_BODY)
        return ClientSilent(message)
