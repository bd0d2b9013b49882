"""Clients that vanish in the middle: with a FIN, with an RST, and without a word."""

from __future__ import annotations

import functools
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.crash.checks import Reader, check_files, check_served
from tests.registry.support import Upload, ingest_files, query, still_answers
from tests.stores import blob_file, ingest_file
from tests.support import PATIENCE, RegistryServer, start_registry, wait_until

End = Literal["FIN", "RST", "silence"]
ENDS: tuple[End, ...] = ("FIN", "RST", "silence")
CONTENT = os.urandom(700_000)
DIGEST = Digest.of(CONTENT)
SENT = 300_000


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryServer]:
    """A registry that waits for a second only for a client that says nothing."""
    with tempfile.TemporaryDirectory(prefix="digestry-dropped-") as directory:
        config = Path(directory, "registry.toml")
        config.write_text("[limits]\nheader-seconds = 1\nbody-seconds = 1\n")
        server = start_registry(Path(directory) / "root", "--config", str(config))
        try:
            yield server
            assert server.stop() == 0
        finally:
            if server.process.poll() is None:
                server.kill()


@pytest.fixture(autouse=True)
def _whole(registry: RegistryServer) -> Iterator[None]:
    for repository, upload in query(registry, "SELECT repository, id FROM uploads"):
        # A test that failed leaves its own, which are not this one's.
        registry.request("DELETE", f"/v2/{repository}/blobs/uploads/{upload}")
    yield
    still_answers(registry)
    reader = Reader(registry)
    check_served(reader, registry.root)
    reader.close()
    check_files(registry.root)
    assert ingest_files(registry) == set()
    assert query(registry, "SELECT id FROM uploads") == []


class Vanishing:
    """A client that sends some bytes and is gone. One that is silent keeps its connection open.

    It connects when it first sends: the server waits for a second only.
    """

    def __init__(self, server: RegistryServer, end: End) -> None:
        self.server = server
        self._end = end

    @functools.cached_property
    def _socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._socket.sendall(part)

    def vanish(self) -> None:
        if self._end == "RST":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._end != "silence":
            self._socket.close()

    def answered(self) -> bool:
        """Whether the server has answered: it has waited for its second."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=ENDS)
def client(registry: RegistryServer, request: pytest.FixtureRequest) -> Iterator[Vanishing]:
    vanishing = Vanishing(registry, request.param)
    yield vanishing
    vanishing.close()


def head(method: str, path: str, length: int, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


def vanish_from(client: Vanishing, upload: Upload, sent: bytes) -> None:
    """Sends, vanishes once the server is at the request, and waits until it has let the upload go.

    The request before may have been answered a moment before its file is closed.
    """
    file = str(ingest_file(client.server.root, upload.id))
    wait_until(lambda: _open_files(client.server, file) == 0, what="the end of the request before")
    client.send(sent)
    wait_until(lambda: _open_files(client.server, file) == 1 or client.answered(), what="the request")
    client.vanish()
    wait_until(lambda: _open_files(client.server, file) == 0, what="the request's end")


@pytest.mark.long
def test_in_the_middle_of_the_head(registry: RegistryServer, client: Vanishing) -> None:
    client.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthoriz")
    client.vanish()


def test_in_a_chunk_the_upload_goes_on_where_the_server_says(
    registry: RegistryServer, client: Vanishing
) -> None:
    upload = Upload.begin(registry, "a")
    assert upload.patch(CONTENT[:100_000], 0).status == 202
    span = f"Content-Range: 100000-{len(CONTENT) - 1}"
    request = head("PATCH", upload.path, len(CONTENT) - 100_000, span)
    vanish_from(client, upload, request + CONTENT[100_000:SENT])
    last = int(upload.status().headers["range"].removeprefix("0-"))
    assert 100_000 <= last + 1 <= SENT
    assert last + 1 == upload.offset()
    assert upload.patch(CONTENT[last + 1 :], last + 1).status == 202
    assert upload.put(DIGEST).status == 201
    assert registry.request("GET", f"/v2/a/blobs/{DIGEST}").body == CONTENT


def test_in_a_stream_without_ranges_its_bytes_do_not_count(
    registry: RegistryServer, client: Vanishing
) -> None:
    upload = Upload.begin(registry, "a")
    vanish_from(client, upload, head("PATCH", upload.path, len(CONTENT)) + CONTENT[:SENT])
    assert upload.offset() == 0
    assert upload.patch(CONTENT).status == 202
    assert upload.put(DIGEST).status == 201
    assert registry.request("GET", f"/v2/a/blobs/{DIGEST}").body == CONTENT


def test_in_the_last_request_of_an_upload_it_can_be_sent_again(
    registry: RegistryServer, client: Vanishing
) -> None:
    upload = Upload.begin(registry, "a")
    assert upload.patch(CONTENT[:100_000], 0).status == 202
    path = f"{upload.path}?digest={DIGEST}"
    request = head("PUT", path, len(CONTENT) - 100_000)
    vanish_from(client, upload, request + CONTENT[100_000:SENT])
    assert upload.offset() == 100_000
    assert upload.put(DIGEST, CONTENT[100_000:]).status == 201
    assert registry.request("GET", f"/v2/a/blobs/{DIGEST}").body == CONTENT


def test_in_a_push_of_one_request_nothing_is_left(registry: RegistryServer, client: Vanishing) -> None:
    path = f"/v2/one/blobs/uploads/?digest={DIGEST}"
    client.send(head("POST", path, len(CONTENT)), CONTENT[:SENT])
    wait_until(lambda: ingest_files(registry), what="the upload's file")
    client.vanish()
    wait_until(lambda: not ingest_files(registry), what="the end of the broken push")
    wait_until(lambda: not query(registry, "SELECT id FROM uploads"), what="the end of its upload")
    assert registry.request("GET", f"/v2/one/blobs/{DIGEST}").status == 404


def test_in_a_manifest_the_tag_stays_what_it_was(registry: RegistryServer, client: Vanishing) -> None:
    before = registry.push_image("m", "t")
    raw = registry.request("GET", "/v2/m/manifests/t").body + b" " * 1000
    kind = f"Content-Type: {media_types.OCI_MANIFEST}"
    client.send(head("PUT", "/v2/m/manifests/t", len(raw), kind), raw[:-500])
    client.vanish()
    answer = registry.request("GET", "/v2/m/manifests/t")
    assert answer.headers["docker-content-digest"] == str(before)
    assert registry.request("GET", f"/v2/m/manifests/{Digest.of(raw[:-500])}").status == 404


@pytest.mark.long
def test_in_a_large_answer_the_file_is_let_go(registry: RegistryServer, client: Vanishing) -> None:
    large = os.urandom(24 << 20)
    digest = registry.push_blob("big", large)
    client.send(head("GET", f"/v2/big/blobs/{digest}", 0))
    assert client._socket.recv(1 << 16).startswith(b"HTTP/1.1 200")
    path = str(blob_file(registry.root, digest))
    assert _open_files(registry, path) == 1
    client.vanish()
    if client._end == "silence":  # it still could read on: it does, to the end
        received = 0
        while received < len(large) and (part := client._socket.recv(1 << 20)):
            received += len(part)
    wait_until(lambda: _open_files(registry, path) == 0, what="the file's close")


def _open_files(server: RegistryServer, path: str) -> int:
    """How many descriptors of the server's processes are this file."""
    found = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if os.getpgid(int(process.name)) != server.process.pid:
                continue
            found += sum(str(link.readlink()) == path for link in (process / "fd").iterdir())
        except OSError:
            continue  # it has ended
    return found
