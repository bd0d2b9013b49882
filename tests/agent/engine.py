"""A small engine with Docker's API on a unix socket, in process: containers, images and a bounded memory of
events."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import queue
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ZERO = "0001-01-01T00:00:00Z"


def text_of(nanoseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(nanoseconds // 10**9, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09d}Z"


@dataclass
class Engine:
    """The engine; ``memory`` is how many events it still tells. Times go on by themselves."""

    url: str = ""
    memory: int = 256
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    streams: list[queue.SimpleQueue[bytes | None]] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    reads: int = 0
    """How many lines of events were sent."""
    ahead: int = 0
    """How many seconds the host's clock is ahead."""
    late: Callable[[], float] = lambda: 0.0
    """Returns the seconds between a change of a container and its event."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """All events, those included that are forgotten."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def now(self) -> int:
        return time.time_ns() + self.ahead * 10**9

    def tag(self, name: str, digit: str) -> None:
        with self.lock:
            identity = f"sha256:{digit * 64}"
            now = self.now()
            self.images[identity] = {
                "Id": identity,
                "RepoTags": [name],
                "RepoDigests": [],
                "Architecture": "amd64",
                "Os": "linux",
                "GraphDriver": {"Name": "overlay2"},
                "Metadata": {"LastTagTime": text_of(now)},
            }
            self.names[name] = identity
            self._tell("image", "tag", identity, {"name": name})

    def create(self, identity: str, image: str = "localhost:5000/app:1", **labels: str) -> None:
        with self.lock:
            now = self.now()
            self.containers[identity] = {
                "Id": identity,
                "Name": f"/name-{identity}",
                "Image": self.names[image],
                "Created": text_of(now),
                "Driver": "overlay2",
                "Config": {"Image": image, "Labels": labels},
                "State": {"Status": "created", "Running": False, "StartedAt": ZERO, "FinishedAt": ZERO},
            }
            self._tell("container", "create", identity)

    def start(self, identity: str) -> None:
        with self.lock:
            state = self.containers[identity]["State"]
            state |= {"Status": "running", "Running": True, "StartedAt": text_of(self.now())}
        time.sleep(self.late())
        with self.lock:
            self._tell("container", "start", identity)

    def die(self, identity: str) -> None:
        with self.lock:
            state = self.containers[identity]["State"]
            state |= {"Status": "exited", "Running": False, "FinishedAt": text_of(self.now())}
        time.sleep(self.late())
        with self.lock:
            self._tell("container", "die", identity)

    def destroy(self, identity: str) -> None:
        with self.lock:
            self._tell("container", "destroy", identity)
            del self.containers[identity]

    def run(self, identity: str, image: str = "localhost:5000/app:1", **labels: str) -> None:
        self.create(identity, image, **labels)
        self.start(identity)

    def flash(self, identity: str, image: str = "localhost:5000/app:1") -> None:
        """A container that is gone before anybody can ask about it."""
        with self.lock:
            self.run(identity, image)
            self.die(identity)
            self.destroy(identity)

    def _tell(self, kind: str, action: str, identity: str, more: dict[str, str] | None = None) -> None:
        found = self.containers.get(identity, {})
        attributes = dict(more or {})
        if found:
            config = found["Config"]
            attributes |= {"name": found["Name"][1:], "image": config["Image"], **config["Labels"]}
        event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": identity, "Attributes": attributes},
            "time": self.now() // 10**9,
            "timeNano": self.now(),
        }
        self.events = [*self.events, event][-self.memory :]
        self.history.append(event)
        for stream in self.streams:
            stream.put(json.dumps(event).encode() + b"\n")

    def waiting(self) -> int:
        """Return how many lines of events are not sent yet, in the stream that has the most."""
        with self.lock:
            return max((stream.qsize() for stream in self.streams), default=0)

    def restart(self) -> None:
        """End all streams, and forget all events, as an engine that starts again does."""
        with self.lock:
            self.events = []
            for stream in self.streams:
                stream.put(None)

    def subscribe(self, since: int) -> queue.SimpleQueue[bytes | None]:
        with self.lock:
            stream: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            if since:
                for event in self.events:
                    if event["timeNano"] >= since:
                        stream.put(json.dumps(event).encode() + b"\n")
            self.streams.append(stream)
            return stream

    def answer(self, path: str, query: dict[str, list[str]]) -> Any:
        with self.lock:
            self.asked.append(path)
            if path == "/info":
                return {"Name": "host", "Architecture": "x86_64", "OSType": "linux"}
            if path == "/containers/json":
                return [
                    {
                        "Id": one["Id"],
                        "Names": [one["Name"]],
                        "Image": one["Config"]["Image"],
                        "ImageID": one["Image"],
                        "State": one["State"]["Status"],
                        "Labels": one["Config"]["Labels"],
                    }
                    for one in self.containers.values()
                    if one["State"]["Running"] or "all" in query
                ]
            kind, _, rest = path.removeprefix("/").partition("/")
            name = unquote(rest.removesuffix("/json"))
            if kind == "containers" and name not in self.hidden:
                return self.containers.get(name)
            return self.images.get(self.names.get(name, name)) if kind == "images" else None


@contextlib.contextmanager
def engine(**more: Any) -> Iterator[Engine]:
    found = Engine(**more)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(found.now() / 1e9 if timestamp is None else timestamp)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            if parts.path == "/events":
                with contextlib.suppress(OSError):
                    self._stream(query)
                return
            value = found.answer(parts.path, query)
            body = json.dumps({"message": "no such thing"} if value is None else value).encode()
            self.send_response(404 if value is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, query: dict[str, list[str]]) -> None:
            seconds, _, rest = query.get("since", ["0"])[0].partition(".")
            stream = found.subscribe(int(seconds) * 10**9 + int(rest or 0))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            try:
                while (line := stream.get()) is not None:
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                    found.reads += 1
                self.wfile.write(b"0\r\n\r\n")
            finally:  # its reader may be gone
                with found.lock:
                    found.streams.remove(stream)

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

    with tempfile.TemporaryDirectory(prefix="digestry-engine-") as directory:
        path = f"{directory}/engine.sock"
        with Server(path, Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            found.url = f"unix://{path}"
            found.tag("localhost:5000/app:1", "a")
            try:
                yield found
            finally:
                found.restart()
                server.shutdown()
