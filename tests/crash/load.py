"""Clients that push until the server dies, and remember every answer they got."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.support import PATIENCE, descriptor

REPOSITORIES = ("golftrack", "team/golftrack", "team/other")
MOVING = "latest"
"""The tag that all clients push to."""

_LOST = (OSError, http.client.HTTPException)


class _Slow(Exception):
    """This image's first blobs may have gone before its manifest came: that took longer than a lease."""


@dataclass
class Upload:
    """An upload whose end was never acknowledged; ``acknowledged`` counts bytes."""

    repository: str
    location: str
    content: bytes
    acknowledged: int = 0


@dataclass
class Ledger:
    """What was sent, and what the server said 201 (or 202) to. Shared by all clients."""

    blobs: dict[tuple[str, Digest], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, Digest], bytes] = field(default_factory=dict)
    tags: dict[tuple[str, str], list[str | None]] = field(default_factory=dict)
    """The acknowledged digests of each tag, None for its deletion; of a tag of one client's own, in
    their order."""
    attempted: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """All that was ever sent for a tag."""
    unanswered: dict[str, bytes] = field(default_factory=dict)
    """What was sent without an answer, by its path: it may be there, but then it must be whole."""
    uploads: dict[str, Upload] = field(default_factory=dict)
    lease: float | None = None
    dropped: set[tuple[str, Digest]] = field(default_factory=set)
    """Manifests that were deleted by their digest at some time."""
    """A collection is running, and content that no manifest holds stays for so many seconds."""
    wrong: list[str] = field(default_factory=list)
    """Answers that no healthy server gives."""


class Client(threading.Thread):
    """One pushing client. Ends when its connection breaks, or after ``enough`` is set."""

    def __init__(self, port: int, name: str, seed: str, ledger: Ledger, enough: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._random = random.Random(seed)
        self._ledger = ledger
        self._enough = enough
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._made = 0
        self._began = 0.0
        self._last: tuple[str, str, bytes, list[bytes]] | None = None
        self._seed = seed.replace("/", "-")

    def run(self) -> None:
        try:
            while not self._enough.is_set():
                self._began = time.monotonic()
                try:
                    self._push_image()
                    if self._random.random() < 0.3:
                        self._drop_last()
                except _Slow:
                    continue
        except _LOST:
            pass
        except AssertionError as error:
            self._ledger.wrong.append(str(error))
        finally:
            self._connection.close()

    # -- one request -----------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        expect: int,
    ) -> Mapping[str, str]:
        self._connection.request(method, path, body, dict(headers or {}))
        answer = self._connection.getresponse()
        content = answer.read()
        lease = self._ledger.lease
        if answer.status in {400, 404} and lease is not None and time.monotonic() - self._began > lease:
            raise _Slow
        assert answer.status == expect, f"{method} {path}: {answer.status} {content[:300]!r}"
        return {key.lower(): value for key, value in answer.getheaders()}

    # -- blobs -----------------------------------------------------------------------------------

    def _bytes(self) -> bytes:
        size = self._random.choice((20, 3_000, 70_000, 300_000, 2_500_000))
        return self._random.randbytes(size + self._random.randrange(100))

    def _push_blob(self, repository: str, content: bytes) -> Digest:
        digest = Digest.of(content, self._random.choice(("sha256", "sha256", "sha512")))
        way = self._random.choice((self._whole, self._post_and_put, self._in_chunks))
        path = f"/v2/{repository}/blobs/{digest}"
        self._ledger.unanswered[path] = content
        way(repository, content, digest)
        del self._ledger.unanswered[path]
        self._ledger.blobs[repository, digest] = content
        if self._random.random() < 0.2 and self._ledger.lease is None:
            other = self._random.choice(REPOSITORIES)
            mount = f"/v2/{other}/blobs/uploads/?mount={digest}&from={repository}"
            self._ask("POST", mount, expect=201)
            self._ledger.blobs[other, digest] = content
        return digest

    def _whole(self, repository: str, content: bytes, digest: Digest) -> None:
        self._ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content, expect=201)

    def _begin(self, repository: str, content: bytes) -> Upload:
        location = self._ask("POST", f"/v2/{repository}/blobs/uploads/", expect=202)["location"]
        upload = self._ledger.uploads[location] = Upload(repository, location, content)
        return upload

    def _post_and_put(self, repository: str, content: bytes, digest: Digest) -> None:
        upload = self._begin(repository, content)
        self._ask("PUT", f"{upload.location}?digest={digest}", content, expect=201)
        del self._ledger.uploads[upload.location]

    def _in_chunks(self, repository: str, content: bytes, digest: Digest) -> None:
        upload = self._begin(repository, content)
        pieces = self._random.choice((1, 1, 2, 5))
        step = len(content) // pieces + 1
        for start in range(0, len(content), step):
            piece = content[start : start + step]
            headers = {"Content-Range": f"{start}-{start + len(piece) - 1}"} if pieces > 1 else {}
            self._ask("PATCH", upload.location, piece, headers, expect=202)
            upload.acknowledged += len(piece)
        self._ask("PUT", f"{upload.location}?digest={digest}", expect=201)
        del self._ledger.uploads[upload.location]

    # -- images ----------------------------------------------------------------------------------

    def _push_image(self) -> None:
        repository = self._random.choice(REPOSITORIES)
        self._made += 1
        config = json.dumps({"architecture": "amd64", "os": "linux", "by": f"{self._seed} {self._made}"})
        layers = [self._bytes() for _ in range(self._random.randint(1, 3))]
        config_digest = self._push_blob(repository, config.encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor(media_types.OCI_CONFIG, config_digest, len(config)),
            "layers": [
                descriptor(media_types.OCI_LAYER, self._push_blob(repository, layer), len(layer))
                for layer in layers
            ],
        }
        raw = json.dumps(manifest).encode()
        own = f"own-{self._seed}-{self._random.randrange(3)}"
        way = self._random.random()
        if way < 0.4:
            self._push_manifest(repository, raw, [MOVING], by_digest=False)
        elif way < 0.7:
            self._push_manifest(repository, raw, [own], by_digest=False)
            self._last = repository, own, raw, [config.encode(), *layers]
        elif way < 0.85:
            self._push_manifest(repository, raw, [own, MOVING], by_digest=True)
        else:
            digest = self._push_manifest(repository, raw, [], by_digest=True)
            index = {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_INDEX,
                "manifests": [descriptor(media_types.OCI_MANIFEST, digest, len(raw))],
                "annotations": {"by": f"{self._seed} {self._made}"},
            }
            self._push_manifest(repository, json.dumps(index).encode(), [own], by_digest=False)

    def _drop_last(self) -> None:
        """Deletes what this client pushed last, in one of two ways, and mostly pushes it again."""
        if self._last is None:
            return
        repository, own, raw, blobs = self._last
        self._last = None
        digest = Digest.of(raw)
        key = repository, own
        if self._ledger.tags[key][-1] != str(digest):
            return
        self._ledger.attempted[key].add("")  # its deletion
        if self._random.random() < 0.5:
            self._ask("DELETE", f"/v2/{repository}/manifests/{own}", expect=202)
        else:
            path = f"/v2/{repository}/manifests/{digest}"
            del self._ledger.manifests[repository, digest]
            self._ledger.dropped.add((repository, digest))
            self._ledger.unanswered[path] = raw
            self._ask("DELETE", path, expect=202)
        self._ledger.tags[key].append(None)
        if self._random.random() < 0.7:
            self._began = time.monotonic()
            for content in blobs:
                self._whole(repository, content, Digest.of(content))
            self._push_manifest(repository, raw, [own], by_digest=False)

    def _push_manifest(self, repository: str, raw: bytes, tags: list[str], *, by_digest: bool) -> Digest:
        digest = Digest.of(raw)
        for tag in tags:
            self._ledger.attempted.setdefault((repository, tag), set()).add(str(digest))
        target = str(digest) if by_digest else tags[0]
        query = "?" + "&".join(f"tag={tag}" for tag in tags) if by_digest and tags else ""
        headers = {"Content-Type": str(json.loads(raw)["mediaType"])}
        path = f"/v2/{repository}/manifests/{digest}"
        self._ledger.unanswered[path] = raw
        self._ask("PUT", f"/v2/{repository}/manifests/{target}{query}", raw, headers, expect=201)
        del self._ledger.unanswered[path]
        self._ledger.manifests[repository, digest] = raw
        for tag in tags:
            self._ledger.tags.setdefault((repository, tag), []).append(str(digest))
        return digest


def push_for(
    port: int, seconds: float, seed: str, ledger: Ledger, *, clients: int = 4
) -> tuple[list[Client], threading.Event]:
    """Starts ``clients`` and returns after ``seconds``, while they still push."""
    stop = threading.Event()
    started = [Client(port, f"client-{n}", f"{seed}/{n}", ledger, stop) for n in range(clients)]
    for client in started:
        client.start()
    time.sleep(seconds)
    return started, stop
