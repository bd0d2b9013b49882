"""``/livez``, ``/readyz`` and ``/healthz``: whether this registry works, for who decides where requests go.

Anybody may ask, and so the answers tell no name, path or number of what is stored. What is found out
holds for a second: to be asked often costs nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from digestry.errors import DigestryError
from digestry.registry.exchange import JSON, Exchange
from digestry.registry.observing.slots import FOLDER
from digestry.registry.problems import not_allowed

if TYPE_CHECKING:
    from digestry.registry.service import Service

LIVE: Final = "/livez"
READY: Final = "/readyz"
READY_TOO: Final = "/healthz"

_HOLDS_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 5.0
_OK: Final = "ok"

Checks = dict[str, str]


async def handle(service: Service, exchange: Exchange, path: str) -> None:
    """200 and what was looked at, or 503 and what is wrong with it."""
    if exchange.method not in {"GET", "HEAD"}:
        raise not_allowed(exchange.method, "GET, HEAD")
    checks = {} if path == LIVE else await service.health.checks()
    good = all(result == _OK for result in checks.values())
    body = msgspec.json.encode({"status": _OK if good else "unavailable", "checks": checks})
    headers = [("Content-Type", JSON), ("Cache-Control", "no-store")]
    await exchange.answer(200 if good else 503, headers, body)


class Health:
    """What one worker found out last."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._found: Checks = {}
        self._until = 0.0
        self._turn = asyncio.Lock()
        # A thread of its own: the disk's threads may all be waiting for that disk.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="health")

    async def checks(self) -> Checks:
        """Looks, unless it just did."""
        async with self._turn:
            if time.monotonic() >= self._until:
                self._found = await self._look()
                self._until = time.monotonic() + _HOLDS_SECONDS
        return self._found

    async def _look(self) -> Checks:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._check)
        except TimeoutError:
            slow = f"no answer within {_CHECK_SECONDS:g} s"
            return {"catalog": slow, "disk": slow, "space": slow}

    def _check(self) -> Checks:
        config = self._service.config
        return {
            "catalog": self._catalog(),
            "disk": _disk(config.root),
            "space": _space(config.root, config.health.free),
        }

    def _catalog(self) -> str:
        try:
            self._service.catalog.figures.last_entry()
        except DigestryError:
            return "cannot be read"
        return _OK


def _disk(root: Path) -> str:
    # Where the server sweeps when it starts, should this be killed between the two.
    probe = root / FOLDER / f"probe-{os.getpid()}"
    try:
        probe.parent.mkdir(exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        return f"cannot be written: {os.strerror(error.errno) if error.errno else 'unknown'}"
    return _OK


def _space(root: Path, wanted: int) -> str:
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return "cannot be measured"
    return _OK if free >= wanted else f"less than the {wanted} bytes that are wanted are free"
