"""A receiver of webhooks, which checks each message's signature."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SECRET = "a secret that is long enough"


class Receiver(http.server.ThreadingHTTPServer):
    """Takes messages; ``behave`` may answer otherwise, and returns whether it did."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: list[dict[str, Any]] = []
        self.asked = 0
        self.behave: Callable[[http.server.BaseHTTPRequestHandler, int], bool] = lambda *_: False
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?x=1"

    def ids(self) -> list[int]:
        with self.lock:
            return [int(message["id"]) for message in self.taken]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.asked += 1
            number = self.server.asked
        if self.server.behave(self, number):
            return
        message = json.loads(body)
        signed = f"{self.headers['Webhook-Id']}.{self.headers['Webhook-Timestamp']}.".encode() + body
        wanted = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        assert self.headers["Webhook-Signature"] == f"v1,{wanted}"
        assert self.headers["Content-Type"] == "application/cloudevents+json"
        assert self.headers["Webhook-Id"] == message["id"]
        assert abs(int(self.headers["Webhook-Timestamp"]) - time.time()) < 60
        with self.server.lock:
            self.server.taken.append({**message, "path": self.path})
        self.answer(204)

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library names it
        pass


@contextlib.contextmanager
def running_receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
