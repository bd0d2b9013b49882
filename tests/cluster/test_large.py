"""A layer larger than one copy or part of an S3 store may be, and an upload of very many chunks."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from digestry.model.digest import Digest
from tests import seaweed
from tests.cluster.balancer import tcp_proxy
from tests.cluster.nodes import Nodes, campaign, registry_nodes
from tests.postgresql import Cluster
from tests.support import PATIENCE, RegistryServer

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("cluster")]

MIB: Final = 1 << 20
_MOST_GROWTH: Final = 120 * MIB
"""A process has five parts of 8 MiB in memory at most, what came of the body and is no part yet, and the
buffers of its connections. It would be thousands if anything kept the layer."""


class Resident:
    """Watches the largest resident memory of a node's processes, in bytes."""

    def __init__(self, *nodes: RegistryServer) -> None:
        self._nodes = nodes
        self._stop = threading.Event()
        self._most: dict[int, int] = {}
        self._before = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Resident:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """By how much the process has grown that grew most."""
        return max(most - self._before.get(process, most) for process, most in self._most.items())

    def _now(self) -> dict[int, int]:
        processes = [process for node in self._nodes for process in node.processes()]
        return {process: _resident(process) for process in processes}

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            for process, size in self._now().items():
                self._most[process] = max(size, self._most.get(process, 0))


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # it ended


@pytest.fixture
def nodes(tmp_path: Path, postgresql: Cluster) -> Iterator[Nodes]:
    """A registry whose store is thrown away with its large objects."""
    with seaweed.running_server() as s3, registry_nodes(tmp_path, postgresql, s3) as found:
        yield found


def pieces(size: int) -> Iterator[bytes]:
    """So many bytes, of which no two MiB are the same, and which cost little to make."""
    noise = os.urandom(MIB)
    for number in range(-(-size // MIB)):
        yield (number.to_bytes(8, "big") + noise[8:])[: size - number * MIB]


def upload(front: RegistryServer, name: str, size: int) -> Digest:
    """Push a blob in one PATCH, as docker does, and return its digest."""
    place = front.request("POST", f"/v2/{name}/blobs/uploads/").headers["location"]
    hasher = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in pieces(size):
            hasher.update(piece)
            yield piece

    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE)
    connection.request("PATCH", place, hashed(), {"Content-Length": str(size)})
    answer = connection.getresponse()
    assert answer.status == 202, answer.read()
    place = str(answer.getheader("location"))
    connection.close()
    digest = Digest("sha256", hasher.hexdigest())
    ended = front.request("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}")
    assert ended.status == 201, ended.body
    return digest


def download(front: RegistryServer, name: str, digest: Digest) -> Digest:
    """Pull a blob, following a redirect, and return the digest of what came."""
    host, path = front.host, f"/v2/{name}/blobs/{digest}"
    while True:
        connection = http.client.HTTPConnection(host, timeout=PATIENCE)
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 307:
            break
        parts = urlsplit(str(answer.getheader("location")))
        host, path = parts.netloc, f"{parts.path}?{parts.query}"
        connection.close()
    assert answer.status == 200
    hasher = hashlib.sha256()
    while piece := answer.read(MIB):
        hasher.update(piece)
    connection.close()
    return Digest("sha256", hasher.hexdigest())


@pytest.mark.parametrize("size", [campaign(300_000_000, 6_000_000_000)])
def test_a_large_layer_takes_little_memory(nodes: Nodes, tmp_path: Path, size: int) -> None:
    (tmp_path / "redirect.toml").write_text("[storage]\nredirect = true\n")
    running = [nodes.start(), nodes.start()]
    redirecting = nodes.start("--config", str(tmp_path / "redirect.toml"))
    with (
        tcp_proxy(*(("127.0.0.1", node.port) for node in running), one_request=True) as balancer,
        Resident(*running) as resident,
    ):
        front = RegistryServer(balancer.host, running[0].process, tmp_path)
        digest = upload(front, "large", size)
        after_push = resident.growth
        assert download(front, "large", digest) == digest
        assert download(redirecting, "large", digest) == digest
        pulled = resident.growth
        print(f"{size} bytes: a process grew by {after_push >> 20} MiB, with the pull {pulled >> 20} MiB")
        assert pulled < _MOST_GROWTH


@pytest.mark.parametrize("count", [campaign(200, 10_050)])
def test_an_upload_of_many_small_chunks_at_alternating_nodes(
    nodes: Nodes, tmp_path: Path, count: int
) -> None:
    running = [nodes.start(), nodes.start()]
    with tcp_proxy(*(("127.0.0.1", node.port) for node in running), one_request=True) as balancer:
        front = RegistryServer(balancer.host, running[0].process, tmp_path)
        place = front.request("POST", "/v2/chunks/blobs/uploads/").headers["location"]
        content = bytearray()
        for number in range(count):
            chunk = b"%07d " % number * 150
            headers = {"Content-Range": f"{len(content)}-{len(content) + len(chunk) - 1}"}
            answer = front.request("PATCH", place, chunk, headers)
            assert answer.status == 202, answer.body
            place = answer.headers["location"]
            content += chunk
        digest = Digest.of(bytes(content))
        ended = front.request("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}")
        assert ended.status == 201, ended.body
        assert front.request("GET", f"/v2/chunks/blobs/{digest}").body == content
