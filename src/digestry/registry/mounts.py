"""Other applications beside the API: which one a path belongs to, and how it answers a request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message

from digestry.registry.error_responses import ClientGone
from digestry.registry.exchange import Exchange
from digestry.registry.route import NOTHING, OTHER, Route

log: Final = logging.getLogger("digestry.registry")

MOUNTED: Final = Route("", OTHER, {}, NOTHING, identified=False, changes=False, audited=False)
"""The route of all that a mounted application answers."""

EXCHANGE: Final = "digestry.exchange"
"""The key of a scope under which a mounted application finds the request's :class:`Exchange`."""

Mounts = Mapping[str, ASGIApp]
"""Applications by the path that they are mounted at: ``/pages``, or ``/`` for all but the API's own paths."""


class MountTable:
    """The mounted applications of one worker process.

    The registry's rules for hosts, pages of other origins, proxies and slow clients hold for them too. Logins
    and rights are theirs to check, and their lifespan is their composer's to run.
    """

    def __init__(self, mounts: Mapping[str, ASGIApp]) -> None:
        self._mounts = sorted(
            ((path.rstrip("/"), app) for path, app in mounts.items()),
            key=lambda mount: len(mount[0]),
            reverse=True,
        )

    def find(self, path: str) -> tuple[str, ASGIApp] | None:
        """Return the application for a path, with the path that it is mounted at; None if there is none."""
        for at, app in self._mounts:
            if path == at or path.startswith(f"{at}/"):
                return at, app
        return None


async def relay(exchange: Exchange, at: str, app: ASGIApp) -> None:
    """Let the application that is mounted at ``at`` answer the request.

    Raises :class:`BrokenOff` and :class:`ClientSilent` for clients that are too slow.
    """
    patience: float | None = exchange.limits.body_seconds
    complete = False

    async def receive() -> Message:
        nonlocal patience
        try:
            body, more = await exchange.read_part(patience)
        except ClientGone:
            return {"type": "http.disconnect"}
        if not more:
            patience = None  # from now on it only waits for the client to leave
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(message: Message) -> None:
        nonlocal complete
        if message["type"] == "http.response.start":
            exchange.api_headers = ()
            await exchange.start_response(message["status"], list(message.get("headers", ())), None)
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            await exchange.send_body(message.get("body", b""), more=more)
            complete = not more

    scope = {**exchange.scope, "root_path": exchange.scope.get("root_path", "") + at, EXCHANGE: exchange}
    try:
        await app(scope, receive, send)
    except Exception:
        if not complete:
            raise
        log.exception("%s %s failed after its answer", exchange.method, exchange.scope["path"])
