"""A relay between agents and a registry that keeps each report with its answer, and can be cut."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Recorder:
    """The relay. ``told`` has each report: when it came, what came back, and its body."""

    host: str = ""
    told: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    cut: threading.Event = field(default_factory=threading.Event)
    """Whether connections are dropped: those that are open, and new ones."""


@contextlib.contextmanager
def recorder(registry: str) -> Iterator[Recorder]:
    """Relay to ``registry``, a host and port, until the end of the block."""
    found = Recorder()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            at = time.time()
            if found.cut.is_set():
                self.close_connection = True
                return
            upstream = http.client.HTTPConnection(registry, timeout=30)
            try:
                names = ("Content-Type", "Authorization", "Content-Encoding")
                headers = {name: self.headers[name] for name in names if self.headers[name]}
                upstream.request("POST", self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                status, kind = answer.status, answer.getheader("Content-Type", "")
            except (OSError, http.client.HTTPException) as error:
                found.told.append((at, f"{type(error).__name__}", _read(body)))
                self.close_connection = True
                return
            finally:
                upstream.close()
            found.told.append((at, f"{status} {content.decode(errors='replace')[:300]}", _read(body)))
            if found.cut.is_set():
                self.close_connection = True
                return
            with contextlib.suppress(OSError):  # an agent that was killed
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # an agent that was killed

    with Server(("127.0.0.1", 0), Handler) as server:
        found.host = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield found
        finally:
            server.shutdown()


def _read(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def entries_about(told: list[tuple[float, str, dict[str, Any]]], container: str) -> Iterator[str]:
    """Yield what the reports said of a container, and each gap, in the order in which they came."""
    for at, answer, report in told:
        for number, entry in enumerate(report.get("entries", ()), report.get("first", 1)):
            kind, runs = entry["type"], [*entry.get("runs", ()), *([entry["run"]] if "run" in entry else [])]
            mine = [run for run in runs if run["container"] == container]
            if kind in {"gap", "snapshot"} or mine or entry.get("container") == container:
                said = {
                    **{k: v for k, v in entry.items() if k not in {"run", "runs", "source"}},
                    "of it": mine,
                }
                yield f"{at:.3f} agent {report['agent'][:6]} entry {number}: {said}; {answer[:60]}"
