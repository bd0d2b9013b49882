"""The drain of a server that is about to stop: it still answers, and tells balancers and clients to go."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOK_SECONDS: Final = 0.2
_CLOSE: Final = (b"connection", b"close")


class Drain:
    """Whether the server is about to stop. Made in the parent, before it forks workers, which all see it."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` is how long the drain takes; 0 if there is none."""
        self.seconds = seconds
        self._begun = mmap.mmap(-1, 1)  # forked processes share it

    def begin(self) -> bool:
        """Begin; return False if it had begun, or if there is no drain."""
        if not self.seconds or self.has_begun():
            return False
        self._begun[0] = 1
        return True

    def has_begun(self) -> bool:
        """Return whether the server is about to stop."""
        return self._begun[0] == 1

    async def wait(self) -> None:
        """Return when it has begun."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.has_begun():
                return


def closing(app: ASGIApp, drain: Callable[[], bool]) -> ASGIApp:
    """Return ``app`` with the header ``Connection: close`` in its responses once the ``drain`` has begun, for
    a server that goes by it. HTTP/2 has no such header."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["http_version"] == "2" or not drain():
            await app(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], _CLOSE]}
            await send(message)

        await app(scope, receive, send_last)

    return answer
