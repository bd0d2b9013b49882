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

from tests import seaweed
from tests.seaweed import S3Server
from tests.support import RegistryServer, digestry, free_port, start_registry, wait_until

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
def node(directory: Path, database: str, s3: S3Server, *arguments: str) -> Iterator[RegistryServer]:
    """``digestry serve`` without a root: a node on a PostgreSQL database and an S3 store."""
    environment = {
        **os.environ,
        **seaweed.environment(s3.endpoint),
        "DIGESTRY_DATABASE": database,
        "DIGESTRY_BLOBS": f"s3://{s3.bucket}/node",
    }
    log = directory / f"node-{free_port()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            digestry("serve", "--listen", "127.0.0.1:0", *arguments),
            stdout=subprocess.PIPE,
            stderr=file,
            env=environment,
            start_new_session=True,
        )
    assert process.stdout is not None
    url = process.stdout.readline().decode().strip()
    process.stdout.close()
    assert url.startswith("http://"), log.read_text()
    try:
        yield RegistryServer(url.partition("://")[2], process, directory, log)
    finally:
        process.terminate()
        process.wait()


def files(root: Path) -> str:
    """docker-registry's storage in files."""
    return f"  filesystem: {{rootdirectory: {root}}}\n"


def objects(s3: S3Server) -> str:
    """docker-registry's storage in an S3 store. Its clients get the bytes from it, as digestry's do."""
    return (
        f"  s3: {{accesskey: {seaweed.ACCESS_KEY}, secretkey: {seaweed.SECRET_KEY}, region: us-east-1,"
        f" regionendpoint: '{s3.endpoint}', bucket: {s3.bucket}, rootdirectory: /peer, secure: false,"
        " v4auth: true}\n"
        "  redirect: {disable: true}\n"
    )


@contextlib.contextmanager
def peer(
    root: Path, *, storage: str = "", cores: int | None = None, program: str = PEER
) -> Iterator[RegistryServer]:
    """docker-registry as its package's own configuration has it: descriptors cached in memory, and files
    unless ``storage`` says otherwise. ``cores`` is its GOMAXPROCS; without one it takes all. ``program`` may
    be another version of it."""
    port = free_port()
    root.mkdir(exist_ok=True)
    config = root / f"config-{port}.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {accesslog: {disabled: true}, level: error}\n"
        "storage:\n"
        "  cache: {blobdescriptor: inmemory}\n"
        f"{storage or files(root)}"
        "  delete: {enabled: true}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    # It cannot use a file of certificate authorities that AWS_CA_BUNDLE names.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {} if cores is None else {"GOMAXPROCS": str(cores)}
    log = root / f"log-{port}"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [program, "serve", str(config)], stdout=file, stderr=file, env=environment, start_new_session=True
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
