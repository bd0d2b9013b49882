"""A registry's intake of reports, in process: it decodes them strictly, and can be told to misbehave."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from digestry.model.descriptor import decode_hook
from digestry.model.fleet import Entry, FleetReceipt, FleetReport, Gap, Snapshot, Started, Stopped

TOKEN = "dgr_test"


@dataclass
class Intake:
    """What was received. ``answers`` are statuses (and headers) for the next reports, in place of 200."""

    url: str = ""
    reports: list[FleetReport] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    received: dict[str, int] = field(default_factory=dict)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    refused: int = 0
    largest: int = 8 << 20
    poison: str = ""
    tokens: set[str] = field(default_factory=set)
    again: bool = False
    ahead: datetime.timedelta = datetime.timedelta()
    """How far the registry's clock is ahead."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        with self.lock:
            if self.answers:
                self.refused += 1
                status, headers = self.answers.pop(0)
                return status, headers, b"{}"
            if len(body) > self.largest:
                self.refused += 1
                return 413, {}, b"{}"
            if self.poison and self.poison.encode() in body:
                self.refused += 1
                return 400, {}, b"{}"
            report = msgspec.json.decode(body, type=FleetReport, dec_hook=decode_hook)
            known = self.received.get(report.agent, 0)
            resynchronize = report.first > known + 1 or self.again
            self.again = False
            known = max(known, report.first - 1)
            for number, entry in enumerate(report.entries, report.first):
                if number > known:
                    self.entries.append(entry)
                    known = number
            self.received[report.agent] = known
            self.reports.append(report)
            receipt = FleetReceipt(known, datetime.datetime.now(datetime.UTC) + self.ahead, resynchronize)
            return 200, {}, msgspec.json.encode(receipt)

    def seen(self) -> list[str]:
        """The entries as short texts, in the order of their numbers."""
        with self.lock:
            return [short(entry) for entry in self.entries]


def short(entry: Entry) -> str:
    if isinstance(entry, Started):
        return f"+{entry.run.container}"
    if isinstance(entry, Stopped):
        return f"-{entry.container}"
    if isinstance(entry, Snapshot):
        return f"={','.join(run.container for run in entry.runs)}"
    assert isinstance(entry, Gap)
    return "gap"


@contextlib.contextmanager
def intake(port: int = 0, state: Intake | None = None) -> Iterator[Intake]:
    """An intake on loopback; with ``state`` and its port it is the same one again, after it was away."""
    found = state or Intake()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.tokens.add(self.headers["Authorization"])
            status, headers, answer = found.take(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield found
        finally:
            server.shutdown()
