"""The registry's application, asked without a socket: one process, its own event loop, real stores.

What runs is what a worker runs, from the request's first byte to the answer's last; only the HTTP
server is missing. A start costs some milliseconds, so that a fault can be tried at every step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from digestry.catalog import clock
from digestry.model import media_types
from digestry.registry.app import RegistryApp
from digestry.registry.config import RegistryConfig
from digestry.registry.server import prepare
from digestry.registry.service import Service, open_service
from tests.support import Response


class Unanswered(Exception):
    """The request ended without an answer, as it does for a client that left."""


class Inside:
    """A running registry in this process. Not for several threads at once."""

    def __init__(self, root: Path, *, now: clock.Clock = clock.now, **options: Any) -> None:
        self.root = root
        self.config = RegistryConfig(root=root, **options)
        self._runner = asyncio.Runner()
        self._app = RegistryApp(lambda: open_service(self.config, now=now))
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._life: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        async def start() -> None:
            self._life = asyncio.create_task(
                self._app({"type": "lifespan"}, self._events.get, self._said.put)
            )
            await self._events.put({"type": "lifespan.startup"})
            assert (await self._said.get())["type"] == "lifespan.startup.complete"

        self._runner.run(start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def stop() -> None:
            await self._events.put({"type": "lifespan.shutdown"})
            await self._said.get()
            assert self._life is not None
            await self._life

        self._runner.run(stop())
        self._runner.close()

    @property
    def service(self) -> Service:
        return self._app.service

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        leaves: bool = False,
    ) -> Response:
        """One request and its answer. A client that ``leaves`` is gone when the body's parts are sent.

        Raises :class:`Unanswered`.
        """
        return self._runner.run(self.ask(method, path, body, headers, leaves=leaves))

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        leaves: bool = False,
    ) -> Response:
        """As :meth:`request`, on the running loop."""
        parts = [body] if isinstance(body, bytes) else list(body)
        accepted = ", ".join(sorted(media_types.MANIFESTS))
        sent = {"Host": "localhost", "Accept": accepted, **(headers or {})}
        if parts != [b""] and not leaves:
            sent.setdefault("Content-Length", str(sum(map(len, parts))))
        where, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(where),
            "raw_path": where.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        left = [
            {"type": "http.request", "body": part, "more_body": leaves or number < len(parts)}
            for number, part in enumerate(parts, 1)
        ]
        answer: list[Mapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if left:
                return left.pop(0)
            if leaves:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Mapping[str, Any]) -> None:
            answer.append(message)

        await self._app(scope, receive, send)
        if not answer:
            raise Unanswered
        told = {name.decode(): value.decode() for name, value in answer[0]["headers"]}
        return Response(answer[0]["status"], told, b"".join(part["body"] for part in answer[1:]))

    def get(self, path: str) -> Response:
        return self.request("GET", path)


def prepared(root: Path) -> Path:
    """Makes the files of an empty registry."""
    prepare(RegistryConfig(root=root))
    return root
