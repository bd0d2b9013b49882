"""Reloading the configuration of a running server: what can change, and how its workers learn of it.

The parent reads and checks the file, and writes the whole new configuration to a file in memory that it and
its workers share. Each worker adopts it between two requests, and reports that. A file with a mistake changes
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import struct
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import fields, replace
from typing import Final

from digestry.errors import DigestryError
from digestry.registry.config import RegistryConfig
from digestry.registry.pull_through.config import MirrorConfig

log: Final = logging.getLogger("digestry.registry")

RELOADED: Final = frozenset(
    {
        "access",
        "ages",
        "allow_anonymous",
        "collection",
        "cors",
        "health",
        "hosts",
        "manifest_limit",
        "observe",
        "quotas",
        "scan",
        "scrub",
        "sparse",
        "tags",
        "trust",
        "upload_limit",
        "upload_timeout",
        "uploads",
        "uploads_per_user",
        "webhooks",
    }
)
"""The fields of :class:`RegistryConfig` that change in a running server."""

_NAMES: Final = {
    "drain_seconds": "drain-seconds",
    "group_access": "group-access",
    "host": "listen",
    "port": "listen",
    "read_only": "read-only",
    "socket": "listen",
    "socket_mode": "socket-mode",
    "connections": "the connections of [limits]",
    "log": "[log]",
    "metrics": "[metrics]",
    "mirrors": "[mirror]",
    "proxy": "[proxy]",
    "storage": "[storage]",
    "tls": "[tls]",
    "transparency": "[transparency]",
    "web": "[web]",
    "upload_limit": "upload of [limits]",
}
"""The names in the file of fields that need a restart, where they differ."""

_LOOK_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 30.0
_LENGTH: Final = struct.Struct("=Q")
_REPORT: Final = struct.Struct("=qq")
_READ: Final = 512 * _REPORT.size


def reloaded(served: RegistryConfig, read: RegistryConfig) -> tuple[RegistryConfig, list[str]]:
    """Return the configuration to serve after ``read`` was read while ``served`` is served, and the other
    changes, which need a restart."""
    kept = {field.name for field in fields(RegistryConfig)} - RELOADED
    if served.storage.stores.blobs is not None:
        kept.add("upload_limit")  # the size of an upload's parts goes by it
    if _without_ages(served) == _without_ages(read):
        kept.discard("mirrors")
    changed = {name for name in kept if getattr(served, name) != getattr(read, name)}
    if read.root is None:
        changed.discard("root")  # the served configuration has a scratch directory
    config = replace(read, **{name: getattr(served, name) for name in kept})
    return config, sorted({_NAMES.get(name, name) for name in changed})


def _without_ages(config: RegistryConfig) -> list[MirrorConfig]:
    """Return the mirrors without what is in ``ages`` as well, which is reloaded."""
    return [replace(mirror, min_age=None, advisories="signed") for mirror in config.mirrors]


def _open_shared() -> int:
    """Open a file that forked processes share, in memory where that is possible: it has secrets."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("digestry-configuration", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Announcements:
    """The configurations that the parent announces. Created in the parent, before it forks workers."""

    def __init__(self, config: RegistryConfig) -> None:
        self.served = config
        """The last announced configuration. A worker begins with the one that this process has when it is
        forked."""
        self.number = 0
        self._file = _open_shared()
        self._end = 0
        self._reports, self._report = os.pipe()
        for end in (self._reports, self._report):
            os.set_blocking(end, False)
        self._adopted: dict[int, int] = {}

    def announce(self, config: RegistryConfig) -> None:
        """Announce ``config`` to all workers, and to those that are forked from now on."""
        content = pickle.dumps(config)
        frame = _LENGTH.pack(len(content)) + content
        os.pwrite(self._file, frame, self._end)
        self.served = config
        self.number += 1
        self._end += len(frame)

    def wait(self, workers: Callable[[], Iterable[int]]) -> list[int]:
        """Wait until all ``workers`` have reported that they adopted the last one, for 30 s at most; return
        those that have not. ``workers`` gives the processes that there are now."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                while content := os.read(self._reports, _READ):
                    self._adopted.update(_REPORT.iter_unpack(content))
            late = [process for process in workers() if self._adopted.get(process, -1) < self.number]
            if not late or time.monotonic() > end:
                return late
            time.sleep(_LOOK_SECONDS / 4)

    async def follow(self, adopt: Callable[[RegistryConfig], Awaitable[None]]) -> None:
        """Call ``adopt`` with each new configuration, for ever. Runs in a worker, on its event loop."""
        self._say(self.number)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            config = self._next()
            if config is None:
                continue
            while True:
                try:
                    await adopt(config)
                    break
                except DigestryError as error:
                    log.error("the new configuration cannot be adopted yet: %s", error.message)
                except Exception:
                    log.exception("the new configuration cannot be adopted yet")
                await asyncio.sleep(_RETRY_SECONDS)
            self._say(self.number)

    def _next(self) -> RegistryConfig | None:
        """Return the newest configuration that was announced since the last call."""
        newest = None
        while os.fstat(self._file).st_size >= self._end + _LENGTH.size:
            (length,) = _LENGTH.unpack(os.pread(self._file, _LENGTH.size, self._end))
            content = os.pread(self._file, length, self._end + _LENGTH.size)
            if len(content) < length:
                break  # it is being written
            self._end += _LENGTH.size + length
            self.number += 1
            newest = content
        return None if newest is None else pickle.loads(newest)  # noqa: S301 - the parent's own

    def _say(self, number: int) -> None:
        with contextlib.suppress(OSError):  # full: the parent has stopped waiting
            os.write(self._report, _REPORT.pack(os.getpid(), number))


class Reloader:
    """Reloads the configuration whenever :meth:`want` was called. Runs in the parent, in a thread."""

    def __init__(
        self,
        announcements: Announcements,
        read: Callable[[], RegistryConfig] | None,
        *,
        prepare: Callable[[RegistryConfig], None],
        changed: Callable[[RegistryConfig], None],
        workers: Callable[[], Iterable[int]],
    ) -> None:
        """``read`` reads the configuration and checks the files that it names; ``prepare`` is called before
        workers adopt it, and ``changed`` afterwards; ``workers`` returns the processes of the workers."""
        self._announcements = announcements
        self._read = read
        self._prepare = prepare
        self._changed = changed
        self._workers = workers
        self._wanted = threading.Event()

    def want(self, *_: object) -> None:
        """Reload soon. Callable as the handler of a signal."""
        self._wanted.set()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="reload", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                self._reload()
            except DigestryError as error:
                advice = f" ({error.hint})" if error.hint else ""
                log.error("the configuration stays as it was: %s%s", error.message, advice)
            except Exception:
                log.exception("the configuration could not be reloaded")

    def _reload(self) -> None:
        if self._read is None:
            log.warning("there is no configuration file to read again")
            return
        served = self._announcements.served
        config, restart = reloaded(served, self._read())
        if restart:
            log.warning("these have changed, and need a restart of the server: %s", ", ".join(restart))
        if config == served:
            log.info("the configuration was read again; nothing that can be reloaded has changed")
            return
        self._prepare(config)
        self._announcements.announce(config)
        self._changed(config)
        late = self._announcements.wait(self._workers)
        if late:
            log.error("%d workers have not adopted the new configuration yet, and go on trying", len(late))
        else:
            log.info("the configuration was reloaded by all workers")
