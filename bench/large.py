"""Large blobs: how fast one goes up and down, and what memory twenty at once need."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.support import RegistryServer

from bench.compare import Line, Options, measure
from bench.load import Load, path_of
from bench.servers import MemoryWatch, megabytes
from digestry.model.digest import Digest

PUT_GOAL = 2.3
GET_GOAL = 1.3
FLAT = 1.1
"""How much more memory the later part of the uploads may need than their beginning."""

NAME = "bench/large"
_PART = 1 << 20
_FIFTHS = 5
_PULLS = 9


class Body:
    """Bytes that no other body has, without holding them all: a random start, and then one block
    again and again."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._start = os.urandom(_PART)
        self._block = os.urandom(_PART)
        hasher = hashlib.sha256()
        for part in self:
            hasher.update(part)
        self.digest = Digest("sha256", hasher.hexdigest())

    def __iter__(self) -> Iterator[bytes]:
        yield self._start[: self.size]
        left = self.size - _PART
        while left > 0:
            yield self._block[:left]
            left -= _PART


def push(server: RegistryServer, body: Body, *, patch: bool) -> float:
    """POST and PUT or, as docker does it, POST, PATCH and PUT; the seconds after the POST."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)

    def send(method: str, path: str, parts: Body | None = None) -> http.client.HTTPResponse:
        length = {"Content-Length": str(parts.size if parts else 0)}
        connection.request(
            method,
            path,
            iter(parts) if parts else None,
            {"Content-Type": "application/octet-stream"} | length,
        )
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status in {201, 202}, text
        return answer

    path = path_of(send("POST", f"/v2/{NAME}/blobs/uploads/").headers["Location"])
    began = time.perf_counter()
    if patch:
        path = path_of(send("PATCH", path, body).headers["Location"])
    path += f"{'&' if '?' in path else '?'}digest={body.digest}"
    send("PUT", path, None if patch else body)
    took = time.perf_counter() - began
    connection.close()
    return took


def pull(server: RegistryServer, body: Body) -> float:
    """Seconds to receive a blob, by a client that does nothing else: it must not be what is measured."""
    buffer = memoryview(bytearray(_PART))
    request = f"GET /v2/{NAME}/blobs/{body.digest} HTTP/1.1\r\nHost: {server.host}\r\n\r\n"
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(_PART)
        received = len(head) - head.index(b"\r\n\r\n") - 4
        assert head.startswith(b"HTTP/1.1 200 "), head[:200]
        while received < body.size and (count := connection.recv_into(buffer)):
            received += count
        took = time.perf_counter() - began
    assert received == body.size, f"{received} bytes came"
    return took


def large(
    pair: Mapping[str, RegistryServer],
    options: Options,
    *,
    put_goal: float = PUT_GOAL,
    get_goal: float = GET_GOAL,
) -> list[Line]:
    """One large blob at a time, new for each push."""
    size = options.large
    what = f"blob of {size >> 20} MB"
    pushed: dict[str, Body] = {}

    def put(server: RegistryServer, *, patch: bool) -> Load:
        body = pushed[server.host] = Body(size)
        took = push(server, body, patch=patch)
        return Load(size / took / 1e9, took * 1000, 0.0, pieces=1)

    def get(server: RegistryServer) -> Load:
        # A twentieth of a second each: one alone says little.
        took = statistics.median(pull(server, pushed[server.host]) for _ in range(_PULLS))
        return Load(size / took / 1e9, took * 1000, 0.0, pieces=_PULLS)

    lines = []
    for name, load, goal in (
        (f"PUT {what}", lambda server: put(server, patch=False), put_goal),
        (f"PATCH {what}", lambda server: put(server, patch=True), put_goal),
        (f"GET {what}", get, get_goal),
    ):
        ours, theirs = measure(pair, options.rounds, load).values()
        lines.append(Line(name, "1 client", "GB/s", ours, theirs, goal))
    return lines


@dataclass(frozen=True)
class Growth:
    """A server's memory in MB before the uploads, and the most in each fifth of their time."""

    before: float
    fifths: tuple[float, ...]
    seconds: float
    bytes: int

    @property
    def more(self) -> float:
        """How many MB more than before at the most."""
        return max(self.fifths) - self.before

    @property
    def ratio(self) -> float:
        """The last three fifths to the first two."""
        return max(self.fifths[2:]) / max(self.fifths[:2])


def at_once(server: RegistryServer, options: Options) -> Growth:
    """``options.uploads`` blobs, as docker pushes them, all at the same time."""
    bodies = [Body(options.upload) for _ in range(options.uploads)]
    return growth(server, bodies, lambda body: push(server, body, patch=True))


def pulls_at_once(server: RegistryServer, body: Body, options: Options) -> Growth:
    """One blob that is there, pulled by so many clients at the same time."""
    return growth(server, [body] * options.uploads, lambda body: pull(server, body))


def growth(server: RegistryServer, bodies: Sequence[Body], move: Callable[[Body], float]) -> Growth:
    """What memory a server takes while all ``bodies`` are moved at the same time."""
    before = megabytes(server)
    began = time.perf_counter()
    with MemoryWatch(server) as memory, ThreadPoolExecutor(len(bodies)) as pool:
        list(pool.map(move, bodies))
    took = time.perf_counter() - began
    seen = memory.seen
    fifths = tuple(
        max(
            (amount for at, amount in seen if number <= at / took * _FIFTHS < number + 1),
            default=before,
        )
        for number in range(_FIFTHS)
    )
    return Growth(before, fifths, took, sum(body.size for body in bodies))
