"""Processes forked ahead, which become the first ones that multiprocessing spawns.

A process that is spawned starts an interpreter and imports all it needs. A server spawns one for its own
work, and one that tracks resources. A spare has what the fork server imported, is a child of the server as
they are, and takes over the umask, the environment and the limits that the server has by then.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing.util
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

MESSAGE_BYTES = 128 << 10
"""The most that a request for a process may have."""
NAME = "multiprocessing"
"""What such a process is called in ``/proc/PID/comm``; one that is spawned has it in its command line."""
_HIGH = 500
"""Descriptors that nobody asks for begin here."""


def umask() -> int:
    """This process's umask; to ask the system would be to change it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("\nUmask:")[2].split(maxsplit=1)[0], 8)


def prepare(number: int, run: Callable[[Callable[[], object]], int]) -> None:
    """Forks ``number`` spares of this process, which has one thread.

    ``run`` runs a program to its end and returns the exit code.
    """
    spares: list[tuple[int, socket.socket]] = []
    for _ in range(number):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = os.fork()
        if process == 0:
            for _, other in [*spares, (0, ours)]:
                other.close()
            Path("/proc/self/comm").write_text(NAME)
            text = _wait(theirs)
            os._exit(0 if text is None else run(partial(exec, text, {"__name__": "__main__"})))
        theirs.close()
        spares.append((process, ours))

    util: Any = multiprocessing.util
    spawn = util.spawnv_passfds

    def spawnv_passfds(path: bytes, arguments: Sequence[str | bytes], descriptors: Sequence[int]) -> int:
        if not spares:
            return int(spawn(path, arguments, descriptors))
        process, told = spares.pop(0)
        resource.prlimit(process, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
        request = {
            "arguments": [os.fsdecode(argument) for argument in arguments],
            "descriptors": sorted(descriptors),
            "environment": dict(os.environ),
            "umask": umask(),
        }
        with told:
            socket.send_fds(told, [json.dumps(request).encode()], sorted(descriptors))
        return process

    util.spawnv_passfds = spawnv_passfds


def _wait(told: socket.socket) -> str | None:
    """Waits for what to become, and becomes it; returns the program that is then to run."""
    with told:
        raw, received, _, _ = socket.recv_fds(told, MESSAGE_BYTES, 16)
    if not raw:
        return None
    request = json.loads(raw)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH) for descriptor in received]
    for descriptor in received:
        os.close(descriptor)
    for descriptor, number in zip(moved, request["descriptors"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    arguments = request["arguments"]
    program = arguments.index("-c") + 1
    sys.argv[:] = ["-c", *arguments[program + 1 :]]
    return str(arguments[program])
