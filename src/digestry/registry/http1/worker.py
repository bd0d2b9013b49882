"""The server of one process: it accepts connections, and serves them until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeAlias

from starlette.types import ASGIApp, Message

from digestry.registry.http1.connection import HttpConnection, WaitingClients
from digestry.registry.http1.cycle import Cycle

Drain: TypeAlias = Callable[[], Coroutine[None, None, None]]
"""Ends when the server is about to stop."""

log: Final = logging.getLogger("digestry.server")

_ABORTED_SECONDS: Final = 1.0
"""Seconds that cancelled requests may take to end."""
_ACCEPT_SECONDS: Final = 0.1
"""After a failure to accept, such as one for want of descriptors, it is tried again."""


class Server:
    """The connections of one process to ``app``, at most ``most`` at a time."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._listening: socket.socket | None = None
        self._accepting = False
        self._open: set[HttpConnection] = set()
        self._adopting: set[asyncio.Task[None]] = set()
        self._empty: asyncio.Event | None = None
        self._draining = False
        self._waiting = WaitingClients()

    def listen(self, listening: socket.socket) -> None:
        """Accept connections from now on."""
        listening.setblocking(False)
        self._listening = listening
        self._accept_again()

    def _accept_again(self) -> None:
        if self._listening is not None and not self._accepting and len(self._open) < self._most:
            self._accepting = True
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def _pause_accepting(self) -> None:
        if self._listening is not None and self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listening.fileno())

    def _accept(self) -> None:
        # One at a time: the other processes shall have some of those that wait.
        listening = self._listening
        if listening is None:
            return
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                return  # the network's error, of that connection alone (accept(2))
            log.error("no connection can be accepted: %s", error.strerror)
            self._pause_accepting()
            self._loop.call_later(_ACCEPT_SECONDS, self._accept_again)
            return
        connection = HttpConnection(self._begin, self._closed, self._waiting)
        connection.announces_end = self._draining
        self._open.add(connection)
        if len(self._open) >= self._most:
            self._pause_accepting()
        task = self._loop.create_task(self._adopt(connection, accepted))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, connection: HttpConnection, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            accepted.close()
            self._closed(connection)

    def _closed(self, connection: HttpConnection) -> None:
        self._open.discard(connection)
        self._accept_again()
        if self._empty is not None and not self._open:
            self._empty.set()

    def _begin(self, connection: HttpConnection, cycle: Cycle) -> None:
        connection.task = self._loop.create_task(self._answer(connection, cycle))

    async def _answer(self, connection: HttpConnection, cycle: Cycle) -> None:
        try:
            await self._app(cycle.scope(connection.client, connection.server), cycle.receive, cycle.send)
        except Exception as error:  # noqa: BLE001 - it is the application's, which has its own log
            log.debug("an answer was broken off: %s", error)
        finally:
            if not cycle.answered:
                cycle.fail()
            connection.ended(cycle)

    async def drain_after(self, begin: Awaitable[None]) -> None:
        """Let each response say that it is its connection's last, once ``begin`` has ended."""
        await begin
        self._draining = True
        for connection in self._open:
            connection.announces_end = True

    async def stop(self, *, patience: float) -> None:
        """Close the connections, those that are being answered after that, within ``patience`` seconds."""
        self._pause_accepting()
        self._listening = None
        self._empty = asyncio.Event()
        for connection in list(self._open):
            connection.close_when_idle()
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), patience)
        late = [connection for connection in self._open if connection.task is not None]
        for connection in list(self._open):
            connection.abort()
        tasks = [connection.task for connection in late if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_ABORTED_SECONDS)


class _Lifespan:
    """The application's start and end (ASGI, "Lifespan Protocol")."""

    def __init__(self, app: ASGIApp) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        self._task = asyncio.create_task(self._run(app(scope, self._messages.get, self._answers.put)))

    async def _run(self, lifespan: Awaitable[None]) -> None:
        try:
            await lifespan
        except Exception:
            log.exception("the application failed")
        # Nobody must wait for an answer for ever.
        await self._answers.put({"type": "lifespan.failed"})

    async def tell(self, what: str) -> bool:
        """Send the lifespan event ``what``, and return whether the application completed it."""
        await self._messages.put({"type": what})
        answer = await self._answers.get()
        if answer.get("message"):
            log.error("%s", answer["message"])
        return bool(answer["type"] == f"{what}.complete")


async def _serve(
    app: ASGIApp,
    listening: socket.socket,
    *,
    most: int,
    patience: float,
    drain: Drain,
) -> bool:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    lifespan = _Lifespan(app)
    if not await lifespan.tell("lifespan.startup"):
        return False
    server = Server(app, most=most)
    server.listen(listening)
    draining = loop.create_task(server.drain_after(drain()))
    await stopped.wait()
    draining.cancel()
    await server.stop(patience=patience)
    return await lifespan.tell("lifespan.shutdown")


def serve(
    app: ASGIApp,
    loop: asyncio.AbstractEventLoop,
    listening: socket.socket,
    *,
    most: int,
    patience: float,
    drain: Drain,
) -> None:
    """Serve ``app`` on ``listening``, at most ``most`` connections at a time, until SIGTERM or SIGINT; those
    that are being answered then have ``patience`` seconds to end. Once ``drain`` has ended, each response
    says that it is its connection's last. Exits with 1 if the application fails to start.
    """
    serving = _serve(app, listening, most=most, patience=patience, drain=drain)
    if not loop.run_until_complete(serving):
        sys.exit(1)
