"""The process that forks digestry's commands, so that none of them has to import what they all need.

``python -m tests.fork_server FD``: test processes connect to the listening socket FD, and ask for commands by
:mod:`tests.forked_process`. Each command runs in a process of its own, with its own environment, directory,
umask and standard streams, and ends as the console script would. Only the interpreter's start and the imports
are shared.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import selectors
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any, TextIO, cast

import digestry.cli.main
from tests import new_catalogs, spare_processes
from tests.blobs import memory_server
from tests.blobs.s3 import registries
from tests.catalog import slow_reads

SPAWNED = 2
"""How many processes a server spawns: the tracker of resources, and the one for its own work."""
LAZILY = (
    "alembic.command", "alembic.runtime.migration", "asyncio", "encodings.idna", "http.server", "rich.live",
    "rich.progress", "rich.table", "sqlalchemy.dialects.sqlite", "uvloop",
)  # fmt: skip
"""What digestry imports where it first needs it, of other projects."""


def import_all() -> None:
    """Imports all of digestry, and what it imports later."""
    for module in pkgutil.walk_packages(digestry.__path__, "digestry."):
        if not module.name.startswith("digestry.catalog.migrations"):
            importlib.import_module(module.name)
    for name in LAZILY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def serve(listener: socket.socket) -> Mapping[str, Any] | None:
    """Forks a process for each request until all who have connected to ``listener`` are gone.

    Returns the request in each forked process, and None in this one at the end. A request comes with four
    descriptors: where to tell its process's ID and then its status, and its three standard streams.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        clients: set[socket.socket] = set()
        running: dict[int, tuple[int, socket.socket]] = {}
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    client, _ = listener.accept()
                    clients.add(client)
                    selector.register(client, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket):
                    client = key.fileobj
                    raw, descriptors = _receive(client)
                    if not raw:
                        selector.unregister(client)
                        clients.remove(client)
                        client.close()
                        if not clients and not any(key.fileobj is listener for key, _ in selector.select(0)):
                            return None
                        continue
                    told = socket.socket(fileno=descriptors[0])
                    process = os.fork()
                    if process == 0:
                        for descriptor, (_, other) in running.items():
                            os.close(descriptor)
                            other.close()
                        for one in (listener, *clients, told):
                            one.close()
                        _take_streams(descriptors[1:])
                        return cast("Mapping[str, Any]", json.loads(raw))
                    for descriptor in descriptors[1:]:
                        os.close(descriptor)
                    told.sendall(b"%d\n" % process)
                    ended = os.pidfd_open(process)
                    running[ended] = process, told
                    selector.register(ended, selectors.EVENT_READ)
                else:
                    ended = cast("int", key.fileobj)
                    process, told = running.pop(ended)
                    selector.unregister(ended)
                    os.close(ended)
                    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                    with contextlib.suppress(OSError), told:  # who asked may be gone
                        told.sendall(b"%d\n" % status)


def _receive(client: socket.socket) -> tuple[bytes, list[int]]:
    """A request with its descriptors; empty if ``client`` is gone."""
    try:
        raw, descriptors, _, _ = socket.recv_fds(client, spare_processes.MESSAGE_BYTES, 4)
    except ConnectionError:
        return b"", []
    return raw, descriptors


def _take_streams(descriptors: list[int]) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)


def become(request: Mapping[str, Any]) -> None:
    """Makes this process what the request asks for."""
    if request["session"]:
        os.setsid()
    os.chdir(request["directory"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv[:] = request["arguments"]
    sys.modules["__main__"] = types.ModuleType("__main__")  # multiprocessing would import this file
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = _text(0, "r", "surrogateescape")
    sys.stdout = _text(1, "w", "surrogateescape", through=unbuffered)
    sys.stderr = _text(2, "w", "backslashreplace", through=unbuffered)


def _text(descriptor: int, mode: str, errors: str, *, through: bool = False) -> TextIO:
    """A standard stream, as the interpreter makes it."""
    raw = cast("io.RawIOBase", open(descriptor, mode + "b", buffering=0, closefd=False))  # noqa: SIM115
    buffer: Any = raw if through else io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    lines = raw.isatty() or descriptor == 2
    return io.TextIOWrapper(buffer, "utf-8", errors, line_buffering=lines, write_through=through)


def run(program: Callable[[], object]) -> int:
    """Runs a program as the interpreter would, to its end; returns the exit code."""
    try:
        program()
        status: Any = 0
    except SystemExit as error:
        status = error.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        status = 1
    cast("Any", threading)._shutdown()
    cast("Any", atexit)._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return status if isinstance(status, int) else 0 if status is None else 1


def main() -> None:
    import_all()
    if not os.environ.get(new_catalogs.VARIABLE):
        new_catalogs.install()
    if address := os.environ.get(memory_server.VARIABLE):
        memory_server.install(address)
    if os.environ.get(slow_reads.VARIABLE):
        slow_reads.install()
    if endpoint := os.environ.get(registries.VARIABLE):
        registries.install(endpoint)
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(request)
        if request["arguments"][1:2] == ["serve"]:
            spare_processes.prepare(SPAWNED, run)
        os._exit(run(digestry.cli.main.main))


if __name__ == "__main__":
    main()
