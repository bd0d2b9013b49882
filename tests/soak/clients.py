"""One client of the soak: it knows what was acknowledged to it, and asks for it again and again."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.support import descriptor

REPOSITORIES = ("golftrack", "team/golftrack", "team/other", "base")
_SHARED = 24
"""So many blobs are the same for all clients: each is pushed, dropped and pushed again all the time."""
_PART = 16 << 10


@dataclass
class Live:
    """A tag that was acknowledged, with all that can be pulled through it."""

    repository: str
    tag: str
    manifest: bytes
    media_type: str
    blobs: dict[str, bytes]
    children: list[bytes] = field(default_factory=list)
    referrers: list[Live] = field(default_factory=list)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)


class Wrong(AssertionError):
    """The registry broke a promise."""


class Client(threading.Thread):
    """Does random things until ``end`` (of the monotonic clock). ``wrong`` is what it complains of."""

    def __init__(self, port: int, number: int, seed: int, end: float, lease: float) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._random = random.Random(f"{seed} {number}")
        self._number = number
        self._end = end
        self._promised = lease / 2
        self._live: dict[tuple[str, str], Live] = {}
        self._lost: list[Live] = []  # whose tag this client just deleted
        self._made = 0
        self.wrong: list[str] = []
        self.did: Counter[str] = Counter()

    def run(self) -> None:
        actions = (
            *((self._push, 6), (self._pull, 8), (self._index, 3), (self._refer, 2), (self._delete_tag, 4)),
            *((self._delete_manifest, 1), (self._again, 4), (self._restore, 1), (self._abandon, 1)),
        )
        try:
            while time.monotonic() < self._end and not self.wrong:
                [action] = self._random.choices([a for a, _ in actions], [weight for _, weight in actions])
                action()
                self.did[action.__name__.strip("_")] += 1
            for live in self._live.values():
                self._check(live)
        except Wrong as error:
            self.wrong.append(f"{self.name}: {error}")
        except (OSError, http.client.HTTPException) as error:
            self.wrong.append(f"{self.name}: the connection broke: {error!r}")

    def drop_all(self) -> None:
        """Deletes every tag that this client still has."""
        for live in list(self._live.values()):
            self._want(202, "DELETE", f"/v2/{live.repository}/manifests/{live.tag}")
        self._live.clear()
        self._connection.close()

    # -- requests ----------------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        self._connection.request(method, path, body or None, dict(headers or {}))
        answer = self._connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def _want(
        self, status: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        found, answered, content = self._ask(method, path, body, headers)
        if found != status:
            raise Wrong(f"{method} {path}: {found}, not {status}: {content[:300]!r}")
        return answered, content

    # -- what it does --------------------------------------------------------------------------------

    def _blob(self) -> bytes:
        if self._random.random() < 0.6:
            number = self._random.randrange(_SHARED)
            return random.Random(number).randbytes(100 + number * 4000)
        return self._random.randbytes(self._random.randrange(1, 120_000))

    def _send(self, repository: str, content: bytes) -> None:
        """Pushes a blob in one of the ways there are."""
        digest = Digest.of(content)
        match self._random.randrange(5):
            case 0:
                self._want(201, "POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content)
                return
            case 1:
                source = self._random.choice(REPOSITORIES)
                path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
                status, answered, body = self._ask("POST", path)
                if status == 201:
                    self.did["mounted"] += 1
                    return
                if status != 202:
                    raise Wrong(f"POST {path}: {status}: {body[:300]!r}")
            case _:
                answered, _ = self._want(202, "POST", f"/v2/{repository}/blobs/uploads/")
        location = answered["location"]
        if self._random.random() < 0.5:
            for start in range(0, len(content), _PART):
                part = content[start : start + _PART]
                headers = {"Content-Range": f"{start}-{start + len(part) - 1}"}
                answered, _ = self._want(202, "PATCH", location, part, headers)
                location = answered["location"]
            content = b""
        mark = "&" if "?" in location else "?"
        self._want(201, "PUT", f"{location}{mark}digest={digest}", content)

    def _image(self, repository: str, extra: Mapping[str, Any] | None = None) -> Live:
        """An image whose blobs are in the repository, most of them pushed now; not itself pushed."""
        layers = [self._blob() for _ in range(self._random.randint(1, 3))]
        self._made += 1
        config = json.dumps({"made": f"{self._number} {self._made}", "salt": self._random.random()}).encode()
        body = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor(media_types.OCI_CONFIG, Digest.of(config), len(config)),
            "layers": [descriptor(media_types.OCI_LAYER, Digest.of(layer), len(layer)) for layer in layers],
            **(extra or {}),
        }
        blobs = {str(Digest.of(blob)): blob for blob in (config, *layers)}
        raw = json.dumps(body).encode()
        return Live(repository, "", raw, media_types.OCI_MANIFEST, blobs)

    def _put(self, image: Live, target: str) -> None:
        """Pushes an image as docker does: asks for each blob, sends those that are not there."""
        while True:
            began = time.monotonic()
            for digest, content in image.blobs.items():
                path = f"/v2/{image.repository}/blobs/{digest}"
                status, _, _ = self._ask("HEAD", path)
                if status == 404:
                    self._send(image.repository, content)
                elif status != 200:
                    raise Wrong(f"HEAD {path}: {status}")
            path = f"/v2/{image.repository}/manifests/{target}"
            sent = time.monotonic()
            status, _, body = self._ask("PUT", path, image.manifest, {"Content-Type": image.media_type})
            if status == 201:
                return
            if time.monotonic() - began < self._promised:
                raise Wrong(f"PUT {path} after {sent - began:.2f} s: {status}: {body[:300]!r}")
            self.did["too slow for the lease"] += 1

    def _tag(self) -> tuple[str, str]:
        return self._random.choice(REPOSITORIES), f"c{self._number}-{self._random.randrange(12)}"

    def _push(self) -> None:
        repository, tag = self._tag()
        image = self._image(repository)
        self._put(image, tag)
        self._keep(image, tag)

    def _keep(self, image: Live, tag: str) -> None:
        image.tag = tag
        if old := self._live.get((image.repository, tag)):
            self._lost.append(old)
        self._live[image.repository, tag] = image

    def _pull(self) -> None:
        if self._live:
            self._check(self._random.choice(list(self._live.values())))

    def _index(self) -> None:
        """An index of images that were pushed by digest alone: only it holds them."""
        repository, tag = self._tag()
        while True:
            began = time.monotonic()
            images = [self._image(repository) for _ in range(self._random.randint(1, 3))]
            for image in images:
                self._put(image, str(image.digest))
            body = {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_INDEX,
                "manifests": [
                    descriptor(image.media_type, image.digest, len(image.manifest)) for image in images
                ],
            }
            index = Live(repository, tag, json.dumps(body).encode(), media_types.OCI_INDEX, {})
            path = f"/v2/{repository}/manifests/{tag}"
            status, _, answer = self._ask("PUT", path, index.manifest, {"Content-Type": index.media_type})
            if status == 201:
                break
            if time.monotonic() - began < self._promised:
                raise Wrong(f"PUT {path} of an index: {status}: {answer[:300]!r}")
            self.did["too slow for the lease"] += 1
        for image in images:
            index.blobs.update(image.blobs)
            index.children.append(image.manifest)
        self._keep(index, tag)

    def _refer(self) -> None:
        """Something about an image: only its subject holds it."""
        if not self._live:
            return
        live = self._random.choice(list(self._live.values()))
        subject = descriptor(live.media_type, live.digest, len(live.manifest))
        about = self._image(live.repository, {"subject": subject, "artifactType": "application/x-soak"})
        self._put(about, str(about.digest))
        live.referrers.append(about)

    def _delete_tag(self) -> None:
        if self._live:
            live = self._live.pop(self._random.choice(list(self._live)))
            self._want(202, "DELETE", f"/v2/{live.repository}/manifests/{live.tag}")
            self._lost.append(live)

    def _delete_manifest(self) -> None:
        """By digest: all its tags go with it. The next thing is often to push it again."""
        if not self._live:
            return
        live = self._random.choice(list(self._live.values()))
        for key, other in list(self._live.items()):
            if (other.repository, other.digest) == (live.repository, live.digest):
                del self._live[key]
        self._want(202, "DELETE", f"/v2/{live.repository}/manifests/{live.digest}")
        live.referrers.clear()
        self._lost.append(live)

    def _again(self) -> None:
        """Pushes what was just deleted once more, or what is there."""
        if self._lost and self._random.random() < 0.8:
            image = self._lost.pop(self._random.randrange(len(self._lost)))
        elif self._live:
            image = self._random.choice(list(self._live.values()))
        else:
            return
        if image.children:
            return  # its children would have to be pushed first, as _index does
        _, tag = self._tag()
        again = Live(image.repository, tag, image.manifest, image.media_type, dict(image.blobs))
        self._put(again, tag)
        self._keep(again, tag)

    def _restore(self) -> None:
        """Asks for a tag that was just deleted back: it may be gone, but not by half."""
        if not self._lost:
            return
        image = self._lost.pop()
        if (image.repository, image.tag) in self._live or not image.tag:
            return
        path = f"/v2/{image.repository}/_digestry/restore/{image.tag}?to={image.digest}"
        status, _, answer = self._ask("POST", path)
        if status == 200:
            self.did["restored"] += 1
            image.referrers.clear()  # those may have gone with their subject, and have not come back
            self._live[image.repository, image.tag] = image
        elif status != 404:
            raise Wrong(f"POST {path}: {status}: {answer[:300]!r}")

    def _abandon(self) -> None:
        """An upload that nobody ends."""
        repository, _ = self._tag()
        answered, _ = self._want(202, "POST", f"/v2/{repository}/blobs/uploads/")
        self._want(202, "PATCH", answered["location"], self._random.randbytes(1000))

    # -- what it wants to see ------------------------------------------------------------------------

    def _check(self, live: Live) -> None:
        """Everything that can be pulled through a live tag is there, and right."""
        base = f"/v2/{live.repository}"
        self._same(f"{base}/manifests/{live.tag}", live.manifest)
        for image in (live, *live.referrers):
            for manifest in (image.manifest, *image.children):
                self._same(f"{base}/manifests/{Digest.of(manifest)}", manifest)
            for digest, content in image.blobs.items():
                self._same(f"{base}/blobs/{digest}", content)
        if live.referrers:
            _, body = self._want(200, "GET", f"{base}/referrers/{live.digest}")
            listed = {entry["digest"] for entry in json.loads(body)["manifests"]}
            wanted = {str(image.digest) for image in live.referrers}
            if not wanted <= listed:
                raise Wrong(f"referrers of {live.repository}:{live.tag}: {wanted - listed} are not listed")

    def _same(self, path: str, content: bytes) -> None:
        _, body = self._want(200, "GET", path)
        if body != content:
            raise Wrong(f"GET {path}: {len(body)} bytes that are not those that were pushed")


def totals(clients: Sequence[Client]) -> Counter[str]:
    """What all of them did."""
    return sum((client.did for client in clients), Counter())
