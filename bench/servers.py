"""The registries that are measured, and what they need of the machine."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import RegistryServer, free_port, start_registry, wait_until

PEER = "docker-registry"
_INTERVAL = 0.1


@contextlib.contextmanager
def ours(root: Path, *arguments: str) -> Iterator[RegistryServer]:
    """``digestry serve`` over ``root``."""
    server = start_registry(root, *arguments)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def peer(root: Path, *, cores: int | None = None) -> Iterator[RegistryServer]:
    """docker-registry with the storage of its package's own configuration: files, descriptors cached
    in memory. ``cores`` is its GOMAXPROCS; without one it takes all."""
    port = free_port()
    root.mkdir(exist_ok=True)
    config = root / f"config-{port}.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {accesslog: {disabled: true}, level: error}\n"
        "storage:\n"
        "  cache: {blobdescriptor: inmemory}\n"
        f"  filesystem: {{rootdirectory: {root}}}\n"
        "  delete: {enabled: true}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    environment = os.environ | ({} if cores is None else {"GOMAXPROCS": str(cores)})
    log = root / f"log-{port}"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [PEER, "serve", str(config)], stdout=file, stderr=file, env=environment, start_new_session=True
        )
    server = RegistryServer(f"127.0.0.1:{port}", process, root, log)

    def answers() -> bool:
        try:
            return server.request("GET", "/v2/").status == 200
        except OSError:
            return False

    wait_until(answers, what="docker-registry's start")
    try:
        yield server
    finally:
        process.terminate()
        process.wait()


def processes(server: RegistryServer) -> Iterator[Path]:
    """The ``/proc`` folders of a server's processes: it leads a group of its own."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(entry.name)) == server.process.pid:
                yield entry


def megabytes(server: RegistryServer) -> float:
    """The memory of all of a server's processes; what they share is counted once (PSS, proc(5))."""
    total = 0
    for entry in processes(server):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+) kB", (entry / "smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total / 1024


def processor_seconds(server: RegistryServer) -> float:
    """What the server's processes have used of the processor: other work on the machine does not count."""
    ticks = 0
    for entry in processes(server):
        with contextlib.suppress(OSError):
            # proc(5): the name ends with the last bracket; utime is the 14th field of all.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class MemoryWatch:
    """Looks at a server's memory again and again during a block; ``seen`` are seconds and MB."""

    def __init__(self, server: RegistryServer, interval: float = _INTERVAL) -> None:
        self._server = server
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.seen: list[tuple[float, float]] = []

    @property
    def peak(self) -> float:
        """The most of it."""
        return max(amount for _, amount in self.seen)

    def _watch(self) -> None:
        began = time.perf_counter()
        while not self._done.is_set():
            self.seen.append((time.perf_counter() - began, megabytes(self._server)))
            self._done.wait(self._interval)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
