"""Clients that push through a balancer while nodes and stores fail, and remember what was acknowledged.

They keep no bytes: what has a digest is right if it hashes to it.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from dataclasses import dataclass, field

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.support import RegistryServer, descriptor

_PAUSE = 0.05
_SIZES = (500, 80_000)
_LARGE = 9_000_000
"""The size of a layer that takes more than one part at the store."""
_LARGE_EVERY = 16
TAG = "n"
"""The beginning of the tags of which each image gets one, with the number of the attempt."""


@dataclass
class Acknowledged:
    """What one client knows: content that must be there, and what its tag may point to."""

    content: list[Digest] = field(default_factory=list)
    manifests: list[Digest] = field(default_factory=list)
    tag: set[Digest] = field(default_factory=set)
    refused: int = 0
    tried: int = 0


class Load:
    """Pushes images by several clients, each in a repository of its own, until the end of a block."""

    def __init__(self, front: RegistryServer, clients: int = 4) -> None:
        self._front = front
        self._stop = threading.Event()
        self.known = [Acknowledged() for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._push_forever, args=(number,), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def pushed(self) -> int:
        """How many images were acknowledged."""
        return sum(len(known.manifests) for known in self.known)

    @property
    def refused(self) -> int:
        """How many pushes failed."""
        return sum(known.refused for known in self.known)

    def wait_for_pushes(self, count: int, *, seconds: float) -> float:
        """Wait for so many more images; return after how many seconds the first of them came."""
        begun, before = time.monotonic(), self.pushed
        first = 0.0
        while self.pushed < before + count:
            if not first and self.pushed > before:
                first = time.monotonic() - begun
            assert time.monotonic() < begun + seconds, f"no push was acknowledged within {seconds} s"
            time.sleep(0.01)
        return first or time.monotonic() - begun

    def _push_forever(self, number: int) -> None:
        known = self.known[number]
        while not self._stop.is_set():
            try:
                if not self._push(f"load/{number}", known):
                    raise ConnectionError
            except (OSError, http.client.HTTPException):
                known.refused += 1
                self._stop.wait(_PAUSE)

    def _push(self, name: str, known: Acknowledged) -> bool:
        known.tried += 1
        sizes = (*_SIZES, _LARGE) if known.tried % _LARGE_EVERY == 0 else _SIZES
        layers = []
        for size in sizes:
            content = os.urandom(size)
            digest = Digest.of(content)
            # Small ones in one request, others in as many as most clients take.
            put = self._put_at_once if size < 1000 else self._put_in_pieces
            if not put(name, digest, content):
                return False
            known.content.append(digest)
            layers.append(descriptor(media_types.OCI_LAYER, digest, size))
        raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_MANIFEST,
                "config": {**layers[0], "mediaType": media_types.OCI_CONFIG},
                "layers": layers,
            }
        ).encode()
        digest = Digest.of(raw)
        known.tag.add(digest)  # from now on it may point there
        headers = {"Content-Type": media_types.OCI_MANIFEST}
        if self._front.request("PUT", f"/v2/{name}/manifests/latest", raw, headers).status != 201:
            return False
        known.manifests.append(digest)
        known.tag = {digest}
        path = f"/v2/{name}/manifests/{TAG}{known.tried}"
        return self._front.request("PUT", path, raw, headers).status == 201

    def _put_at_once(self, name: str, digest: Digest, content: bytes) -> bool:
        path = f"/v2/{name}/blobs/uploads/?digest={digest}"
        return self._front.request("POST", path, content).status == 201

    def _put_in_pieces(self, name: str, digest: Digest, content: bytes) -> bool:
        begun = self._front.request("POST", f"/v2/{name}/blobs/uploads/")
        if begun.status != 202:
            return False
        sent = self._front.request("PATCH", begun.headers["location"], content)
        if sent.status != 202:
            return False
        place = sent.headers["location"]
        return (
            self._front.request("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}").status == 201
        )

    def check(self, *nodes: RegistryServer) -> None:
        """Fail unless each node has all that was acknowledged, byte for byte."""
        for number, known in enumerate(self.known):
            name = f"load/{number}"
            for node in nodes:
                tag = node.request("GET", f"/v2/{name}/manifests/latest")
                assert Digest.parse(tag.headers["docker-content-digest"]) in known.tag
            for kind, digests in (("manifests", known.manifests), ("blobs", known.content)):
                for turn, digest in enumerate(digests):
                    found = nodes[turn % len(nodes)].request("GET", f"/v2/{name}/{kind}/{digest}")
                    assert (found.status, Digest.of(found.body)) == (200, digest)
