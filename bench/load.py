"""Load: so many clients, each with one connection, each asking again as soon as it was answered.

GETs are ``wrk``'s, which is no bottleneck. What wrk cannot do is done here: read the answer to a HEAD,
follow a ``Location``, wait for an answer that takes longer than the load. An event loop of raw sockets,
some 10 µs a request.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from digestry.errors import RemoteError

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_RECEIVED = 256 << 10
_SILENCE = 120.0
_LAST_CHUNK = b"\r\n0\r\n\r\n"
"""Ends a body in chunks; it could be in the middle of one, but not of JSON."""

_SCRIPT = """
-- Any of the paths in a file, at random, the same ones in every run.
local requests, paths = {}, {}
function init(arguments)
  for line in io.lines(arguments[1]) do paths[#paths + 1] = line end
  math.randomseed(1505)
end
function request()
  local at = math.random(#paths)
  local made = requests[at]
  if made == nil then
    made = wrk.format("GET", paths[at])
    requests[at] = made
  end
  return made
end
"""


@dataclass(frozen=True)
class Load:
    """What came of a load: answers a second, and milliseconds that half, and 99 of 100, took at most."""

    rate: float
    p50: float
    p99: float
    refused: float = 0.0
    """The share of the answers that were errors."""
    pieces: int = 0
    """How many answers, or pieces of work, there were."""


# -- wrk ---------------------------------------------------------------------------------------


def get(
    host: str, paths: Sequence[str], *, clients: int, seconds: float, headers: Mapping[str, str] | None = None
) -> Load:
    """GETs of ``paths``, in no order, by ``wrk -t1``."""
    with tempfile.TemporaryDirectory(prefix="digestry-bench-") as name:
        script, listed = Path(name, "any.lua"), Path(name, "paths")
        script.write_text(_SCRIPT, encoding="ascii")
        listed.write_text("\n".join(paths) + "\n", encoding="ascii")
        command = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--latency"]
        for key, value in (headers or {}).items():
            command += ["-H", f"{key}: {value}"]
        command += ["-s", str(script), f"http://{host}", "--", str(listed)]
        return parse_wrk(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse_wrk(output: str) -> Load:
    """What ``wrk --latency`` printed."""

    def found(pattern: str) -> re.Match[str]:
        match = re.search(pattern, output)
        assert match is not None, output
        return match

    def milliseconds(percent: int) -> float:
        match = found(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b")
        return float(match[1]) * _UNITS[match[2]]

    total = int(found(r"(\d+) requests in")[1])
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return Load(
        float(found(r"Requests/sec:\s+([\d.]+)")[1]),
        milliseconds(50),
        milliseconds(99),
        int(refused[1]) / total if refused and total else 0.0,
        total,
    )


# -- our own -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """An answer's head; its body was read away."""

    status: int
    head: bytes

    def header(self, name: str) -> str:
        """One header. Raises :class:`RemoteError` if it is not there."""
        match = re.search(rb"\r\n" + name.encode() + rb":[ \t]*([^\r]*)", self.head, re.IGNORECASE)
        if match is None:
            raise RemoteError(f"the answer has no {name}: {self.head!r}")
        return match[1].decode("latin-1")


Flow = Generator[bytes, Answer, None]
"""One piece of work, in one or more requests: it yields each, and is sent the answer."""

Work = Callable[[int], Flow]
"""Makes the next piece of a client's work; it is given the client's number."""


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request's bytes. ``content_type`` is the header Content-Type."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if method not in {"GET", "HEAD"}:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def path_of(location: str) -> str:
    """The path and query of a ``Location``, which may be whole or not."""
    return location[location.index("/v2/") :]


@dataclass
class _Client:
    number: int
    connection: socket.socket
    flow: Flow = field(init=False)
    began: float = 0.0
    head_only: bool = False
    unsent: bytes = b""
    received: bytearray = field(default_factory=bytearray)


def drive(port: int, work: Work, *, clients: int, seconds: float, most: int | None = None) -> Load:
    """Has ``clients`` do pieces of ``work`` for so long, or until ``most`` are done.

    The rate is of pieces, and their times are from the first request to the last answer.
    Raises :class:`RemoteError` if a piece fails.
    """
    took: list[float] = []
    begun = busy = 0
    began = time.perf_counter()
    end = began + seconds
    with contextlib.ExitStack() as opened:
        selector = opened.enter_context(selectors.DefaultSelector())

        def next_piece(client: _Client) -> bool:
            nonlocal begun
            client.began = time.perf_counter()
            if client.began >= end or (most is not None and begun >= most):
                selector.unregister(client.connection)
                return False
            begun += 1
            client.flow = work(client.number)
            _begin(selector, client, next(client.flow))
            return True

        for number in range(clients):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            client = _Client(number, connection)
            selector.register(connection, selectors.EVENT_READ, client)
            busy += next_piece(client)
        while busy:
            ready = selector.select(_SILENCE)
            if not ready:
                raise RemoteError(f"the server on port {port} said nothing for {_SILENCE:.0f} s")
            for key, events in ready:
                client = key.data
                if events & selectors.EVENT_WRITE:
                    _send(selector, client)
                answer = _receive(client) if events & selectors.EVENT_READ else None
                if answer is None:
                    continue
                try:
                    _begin(selector, client, client.flow.send(answer))
                except StopIteration:
                    took.append(time.perf_counter() - client.began)
                    busy -= not next_piece(client)
        elapsed = time.perf_counter() - began
    half, most_of_them = quantile(took, 0.5) * 1000, quantile(took, 0.99) * 1000
    return Load(len(took) / elapsed, half, most_of_them, pieces=len(took))


def _begin(selector: selectors.BaseSelector, client: _Client, data: bytes) -> None:
    client.head_only = data.startswith(b"HEAD ")
    client.unsent = data
    _send(selector, client)


def _send(selector: selectors.BaseSelector, client: _Client) -> None:
    with contextlib.suppress(BlockingIOError):  # the rest when there is room
        client.unsent = client.unsent[client.connection.send(client.unsent) :]
    waiting = selectors.EVENT_WRITE if client.unsent else 0
    if selector.get_key(client.connection).events != selectors.EVENT_READ | waiting:
        selector.modify(client.connection, selectors.EVENT_READ | waiting, client)


def _receive(client: _Client) -> Answer | None:
    """The answer, when it is whole."""
    part = client.connection.recv(_RECEIVED)
    if not part:
        raise RemoteError(f"the connection was closed after {bytes(client.received)!r}")
    client.received += part
    end = client.received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(client.received[: end + 2])
    answer = Answer(int(head[9:12]), head)
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        if not client.received.endswith(_LAST_CHUNK):
            return None
    elif not client.head_only and answer.status != 204:
        length = int(answer.header("Content-Length"))
        if len(client.received) - end - 4 < length:
            return None
    client.received.clear()
    return answer


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not exceed; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0
