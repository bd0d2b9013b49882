"""Containers as a source would show them, and an engine that answers from a recording."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from digestry.inventory.observation import Claim, ContainerObservation, FoundBy, ImageFacts, Note
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference

RECORDED = Path(__file__).parent / "recorded"
AMD64 = Platform("amd64", "linux")
ARM64 = Platform("arm64", "linux")
START = datetime.datetime(2026, 11, 21, 10, tzinfo=datetime.UTC)

_OF_IMAGES = {field.name for field in fields(ImageFacts)}


def recording(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text())


def claim(
    digest: Digest,
    repository: str | None = None,
    *,
    found_by: FoundBy = "repo-digest",
    obtained: bool = True,
    **more: Any,
) -> Claim:
    where = None if repository is None else Reference.parse(repository)
    return Claim(digest, more.get("kind", "unknown"), where, "RepoDigests", found_by, obtained)


def image_id(digest: Digest, *, kind: Any = "config") -> Claim:
    return Claim(digest, kind, None, "the image ID", "image-id", obtained=False)


def sighted(reference: str | None, *claims: Claim, name: str = "web", **more: Any) -> ContainerObservation:
    """A container as the classic docker store would show it, on amd64."""
    identity = next((one.digest for one in claims if one.found_by == "image-id"), None)
    facts: dict[str, Any] = {"platform": AMD64, "image_id": identity}
    facts |= {key: more.pop(key) for key in list(more) if key in _OF_IMAGES}
    image = ImageFacts(reference, tuple(claims), **facts)
    values: dict[str, Any] = {
        "source": "test",
        "host": "node",
        "namespace": "",
        "id": f"id-{name}",
        "seen_at": START,
    } | more
    return ContainerObservation(name=name, image=image, **values)


def changed(seen: ContainerObservation, **values: Any) -> ContainerObservation:
    """``seen`` with other values, of its own or of its image."""
    facts = {key: values.pop(key) for key in list(values) if key in _OF_IMAGES}
    return replace(seen, image=replace(seen.image, **facts), **values)


class Listed:
    """A source that saw what it is given."""

    name = "test"

    def __init__(self, *observations: Any) -> None:
        self._observations = observations

    def observe(self) -> Iterator[Any]:
        return iter(self._observations)


# -- engines ------------------------------------------------------------------------------------


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    answers: dict[str, Any]
    seen: list[str]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        answer = self.server.answers.get(self.path, {"status": 404, "body": {"message": "no such thing"}})
        if callable(answer):
            with contextlib.suppress(OSError):
                answer(self.wfile)
            return
        body = answer["raw"] if "raw" in answer else json.dumps(answer["body"]).encode()
        self.send_response(answer["status"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


@contextlib.contextmanager
def engine(answers: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """An engine on a unix socket: its URL, and the list of the paths that it was asked for."""
    with tempfile.TemporaryDirectory(prefix="digestry-engine-") as directory:
        path = f"{directory}/engine.sock"
        with _Server(path, _Handler) as server:
            server.answers, server.seen = answers, []
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            try:
                yield f"unix://{path}", server.seen
            finally:
                server.shutdown()


def dripping(out: BinaryIO) -> None:
    """An answer that never ends, and never pauses for long."""
    out.write(b"HTTP/1.1 200 OK\r\n\r\n[")
    while True:
        out.write(b" ")
        time.sleep(0.02)


def flooding(out: BinaryIO) -> None:
    """An answer that never ends, at full speed."""
    out.write(b"HTTP/1.1 200 OK\r\n\r\n[")
    while True:
        out.write(b" " * 65536)


def without_notes(observations: Iterable[Any]) -> list[Any]:
    """What was seen and what could not be, without what a file was read as."""
    return [one for one in observations if not isinstance(one, Note)]


def names(observations: Sequence[Any]) -> dict[str, ContainerObservation]:
    return {one.name: one for one in observations if isinstance(one, ContainerObservation)}
