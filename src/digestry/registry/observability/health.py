"""Health checks: the catalog is readable, the disk is writable, and there is room.

Every client may ask, so the result contains no name, path or number of stored content. It is cached for a
second, so that frequent requests cost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from digestry.blobs.protocols import BlobStore
from digestry.catalog.catalog import Catalog
from digestry.catalog.job_states import COLLECTION
from digestry.errors import DigestryError
from digestry.registry.config import RegistryConfig
from digestry.registry.disk_reserve import Reserve
from digestry.registry.observability.metrics_files import FOLDER

OK: Final = "ok"
ADVICE: Final = frozenset({"collection"})
"""Checks that are reported and do not fail: requests are answered anyway."""

_HOLDS_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 3.0

Checks = dict[str, str]


class Health:
    """The health checks of one worker, with the last results."""

    def __init__(
        self, config: RegistryConfig, catalog: Catalog, blobs: BlobStore, disk: Path | None, reserve: Reserve
    ) -> None:
        """``disk`` is a directory on the file system that the registry fills, if it fills one."""
        self._scratch = config.scratch
        self._disk = disk
        self._free = config.health.free
        self._reserve = reserve
        self._catalog = catalog
        self._found: Checks = {}
        self._until = 0.0
        self._refuses = False
        self._turn = asyncio.Lock()
        self._probes = [
            _Probe("catalog", self._read),
            _Probe("disk", self._write),
            _Probe("space", self._measure),
        ]
        if blobs.is_listed_in_catalog:  # else it is on the disk
            self._blobs = blobs
            self._probes.append(_Probe("store", self._ask_store))

    async def checks(self) -> Checks:
        """Return the results, from the last second or new."""
        async with self._turn:
            if time.monotonic() >= self._until:
                results = await asyncio.gather(*(probe.result() for probe in self._probes))
                self._found = {
                    probe.name: result for probe, result in zip(self._probes, results, strict=True)
                }
                if self._refuses:
                    self._found["collection"] = "it would remove most of the store"
                self._until = time.monotonic() + _HOLDS_SECONDS
        return self._found

    def _read(self) -> str:
        try:
            self._catalog.statistics.last_entry()
            last = self._catalog.jobs.state(COLLECTION)
            self._refuses = last is not None and bool(last.state.get("refuses"))
        except DigestryError:
            return "cannot be read"
        return OK

    def _write(self) -> str:
        # Where the server sweeps when it starts, should this be killed between the two.
        probe = self._scratch / FOLDER / f"probe-{os.getpid()}"
        try:
            probe.parent.mkdir(exist_ok=True)
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            return f"cannot be written: {os.strerror(error.errno) if error.errno else 'unknown'}"
        return OK

    def _ask_store(self) -> str:
        try:
            self._blobs.mark()
        except DigestryError:
            return "cannot be read"
        return OK

    def _measure(self) -> str:
        if self._reserve.spent():
            return "there is room for deletions only"
        if self._disk is None:
            return OK
        try:
            free = shutil.disk_usage(self._disk).free
        except OSError:
            return "cannot be measured"
        return OK if free >= self._free else f"less than the {self._free} bytes that are required are free"


class _Probe:
    """One check, in a thread of its own, so that one that hangs does not delay the others."""

    def __init__(self, name: str, look: Callable[[], str]) -> None:
        self.name = name
        self._look = look
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"health-{name}")
        self._running: asyncio.Future[str] | None = None
        self._since = 0.0

    async def result(self) -> str:
        """Return the check's result, within some seconds; at once while an earlier call still waits for
        it."""
        if self._running is None:
            self._since = time.monotonic()
            self._running = asyncio.get_running_loop().run_in_executor(self._thread, self._look)
        left = _CHECK_SECONDS - (time.monotonic() - self._since)
        if left > 0:
            await asyncio.wait([self._running], timeout=left)
        if not self._running.done():
            return f"no answer within {_CHECK_SECONDS:g} s"
        running, self._running = self._running, None
        with contextlib.suppress(Exception):  # any error means that it is not healthy
            return running.result()
        return "cannot be looked at"
