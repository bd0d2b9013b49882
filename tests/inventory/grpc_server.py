"""A gRPC server on a unix socket that answers what it is told to."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

RECORDED = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Status:
    """A refusal: gRPC's code, and what is said."""

    code: int
    said: str = ""


@dataclass(frozen=True)
class Live:
    """A stream: its messages come from the queue, and None ends it."""

    messages: queue.SimpleQueue[bytes | None]


Answer = list[bytes] | Status | Live
Answers = Callable[[str, str, bytes], Answer]
"""From a namespace, a method and a request's message."""


def recorded(name: str, **changed: Answer) -> Answers:
    """What a real runtime answered; ``changed`` answers instead of it, by the method's own name."""
    book: Mapping[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())

    def answer(namespace: str, method: str, message: bytes) -> Answer:
        instead = changed.get(method.rpartition("/")[2])
        if instead is not None:
            return instead
        found = book.get(f"{namespace or '-'} {method} {message.hex()}")
        if found is None:
            return Status(12, f"nothing was recorded for {method} {message!r}")
        if isinstance(found, dict):
            return Status(found["status"], found["said"])
        return [base64.b64decode(one) for one in found]

    return answer


@contextlib.contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """The path of a socket behind which ``answers`` answers."""
    with listening(lambda link: _serve(link, answers)) as path:
        yield path


@contextlib.contextmanager
def listening(each: Callable[[socket.socket], None]) -> Iterator[str]:
    """The path of a socket; ``each`` is given every connection, in a thread of its own."""
    with tempfile.TemporaryDirectory(prefix="digestry-grpc-") as directory:
        path = f"{directory}/grpc.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(path)
            server.listen()
            thread = threading.Thread(target=_accept, args=(server, each), daemon=True)
            thread.start()
            try:
                yield path
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join(5)


def _accept(server: socket.socket, each: Callable[[socket.socket], None]) -> None:
    def one(link: socket.socket) -> None:
        with link, contextlib.suppress(OSError):
            each(link)

    while True:
        try:
            link, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=one, args=(link,), daemon=True).start()


def _serve(link: socket.socket, answers: Answers) -> None:
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    http.initiate_connection()
    link.sendall(http.data_to_send())
    headers: dict[int, dict[str, str]] = {}
    bodies: dict[int, bytes] = {}
    waiting: dict[int, tuple[bytes, list[tuple[str, str]]]] = {}
    lock = threading.Lock()

    def stream(number: int, live: Live) -> None:
        with contextlib.suppress(OSError, h2.exceptions.H2Error):
            while (message := live.messages.get()) is not None:
                with lock:
                    http.send_data(number, b"\0" + len(message).to_bytes(4, "big") + message)
                    link.sendall(http.data_to_send())
            with lock:
                http.send_headers(number, [("grpc-status", "0")], end_stream=True)
                link.sendall(http.data_to_send())

    while received := link.recv(1 << 16):
        with lock:
            events = http.receive_data(received)
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                headers[event.stream_id] = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                said = headers[event.stream_id]
                answer = answers(
                    said.get("containerd-namespace", ""), said[":path"], bodies[event.stream_id][5:]
                )
                head = [(":status", "200"), ("content-type", "application/grpc")]
                if isinstance(answer, Status):
                    tail = [("grpc-status", str(answer.code)), ("grpc-message", answer.said)]
                    http.send_headers(event.stream_id, head + tail, end_stream=True)
                    continue
                http.send_headers(event.stream_id, head)
                if isinstance(answer, Live):
                    link.sendall(http.data_to_send())
                    threading.Thread(target=stream, args=(event.stream_id, answer), daemon=True).start()
                    continue
                body = b"".join(b"\0" + len(one).to_bytes(4, "big") + one for one in answer)
                waiting[event.stream_id] = body, [("grpc-status", "0")]
        _send_what_fits(http, waiting)
        link.sendall(http.data_to_send())


def _send_what_fits(
    http: h2.connection.H2Connection, waiting: dict[int, tuple[bytes, list[tuple[str, str]]]]
) -> None:
    for stream, (body, tail) in list(waiting.items()):
        rest = body
        while rest and (size := min(http.local_flow_control_window(stream), http.max_outbound_frame_size)):
            http.send_data(stream, rest[:size])
            rest = rest[size:]
        waiting[stream] = rest, tail
        if not rest:
            http.send_headers(stream, tail, end_stream=True)
            del waiting[stream]
