"""What is pushed and pulled: small images, and repositories with very many tags."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.support import RegistryServer, descriptor

from bench.load import Flow, Work, drive, path_of, request
from digestry.model import media_types
from digestry.model.digest import Digest

MANIFESTS = 1000
"""The most manifests of one repository: with more tags than that, as many tags point to each."""

BLOB = 1600
_LAYERS = 4
_CLIENTS = 4
_AT_ONCE = 100  # tags that one request of digestry's may bring


@dataclass(frozen=True)
class Image:
    """The blobs of a small image: a config and four layers. Its manifests differ in an annotation."""

    config: bytes
    layers: tuple[bytes, ...]

    def manifest(self, number: int | str) -> bytes:
        """About 1 KB."""
        described = [descriptor(media_types.OCI_LAYER, Digest.of(one), len(one)) for one in self.layers]
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_MANIFEST,
                "config": descriptor(media_types.OCI_CONFIG, Digest.of(self.config), len(self.config)),
                "layers": described,
                "annotations": {"org.opencontainers.image.version": str(number)},
            }
        ).encode()


IMAGE = Image(
    b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}',
    tuple(b"%d" % number * BLOB for number in range(_LAYERS)),
)


@dataclass(frozen=True)
class Repository:
    """A repository with so many tags, on every server alike."""

    name: str
    tags: int

    @classmethod
    def of(cls, tags: int) -> Repository:
        """The one with so many."""
        return cls(f"bench/tags-{tags}", tags)

    @property
    def manifests(self) -> int:
        return min(self.tags, MANIFESTS)

    def tag(self, number: int) -> str:
        return f"build-{number:06d}"

    def tag_paths(self) -> list[str]:
        """The manifests, by tag."""
        return [f"/v2/{self.name}/manifests/{self.tag(number)}" for number in range(self.tags)]

    def digest_paths(self) -> list[str]:
        """The manifests, by digest."""
        return [
            f"/v2/{self.name}/manifests/{Digest.of(IMAGE.manifest(number))}"
            for number in range(self.manifests)
        ]

    def blob_paths(self) -> list[str]:
        """The layers."""
        return [f"/v2/{self.name}/blobs/{Digest.of(one)}" for one in IMAGE.layers]


# -- pushing -----------------------------------------------------------------------------------


def put_blob(name: str, content: bytes, *, patch: bool = False) -> Flow:
    """POST and PUT, or as docker does it: POST, PATCH and PUT."""
    digest = Digest.of(content)
    answer = yield request("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202, answer
    path = path_of(answer.header("Location"))
    if patch:
        answer = yield request("PATCH", path, content, content_type="application/octet-stream")
        assert answer.status == 202, answer
        path, content = path_of(answer.header("Location")), b""
    path += f"{'&' if '?' in path else '?'}digest={digest}"
    answer = yield request("PUT", path, content, content_type="application/octet-stream")
    assert answer.status == 201, answer


def put_manifest(name: str, target: str, raw: bytes) -> Flow:
    """One PUT; ``target`` is a tag or a digest, with a query perhaps."""
    answer = yield request(
        "PUT", f"/v2/{name}/manifests/{target}", raw, content_type=media_types.OCI_MANIFEST
    )
    assert answer.status == 201, answer


def new_blobs(name: str, *, patch: bool) -> Work:
    """Blobs that the server has not seen."""
    return lambda _: put_blob(name, os.urandom(BLOB), patch=patch)


def new_manifests(name: str) -> Work:
    """Each client pushes a new image to the tag of its own, again and again."""
    numbers = count()
    salt = os.urandom(8).hex()
    return lambda client: put_manifest(name, f"client-{client}", IMAGE.manifest(f"{salt}-{next(numbers)}"))


# -- filling -----------------------------------------------------------------------------------


def fill_ours(server: RegistryServer, repository: Repository) -> None:
    """Pushes it all, through the API: up to 100 tags go with each PUT of a manifest by digest."""
    _push_blobs(server, repository)
    pieces = []
    for number in range(repository.manifests):
        raw = IMAGE.manifest(number)
        tags = [repository.tag(tag) for tag in range(number, repository.tags, repository.manifests)]
        for first in range(0, len(tags), _AT_ONCE):
            query = "&".join(f"tag={tag}" for tag in tags[first : first + _AT_ONCE])
            pieces.append(put_manifest(repository.name, f"{Digest.of(raw)}?{query}", raw))
    work_off(server, pieces)


def fill(server: RegistryServer, repository: Repository) -> None:
    """Pushes it all through the API that every registry has: a PUT for each tag."""
    _push_blobs(server, repository)
    targets = [(repository.tag(tag), IMAGE.manifest(tag % MANIFESTS)) for tag in range(repository.tags)]
    work_off(server, [put_manifest(repository.name, tag, raw) for tag, raw in targets])


def fill_peer(server: RegistryServer, repository: Repository) -> None:
    """Pushes blobs and manifests; its tags are written as the files that it would write, but for the
    index of each tag's past, which only a delete reads. By its API 100,000 of them take minutes."""
    _push_blobs(server, repository)
    manifests = [IMAGE.manifest(number) for number in range(repository.manifests)]
    digests = [str(Digest.of(raw)) for raw in manifests]
    pairs = zip(digests, manifests, strict=True)
    work_off(server, [put_manifest(repository.name, digest, raw) for digest, raw in pairs])
    tags = server.root / "docker/registry/v2/repositories" / repository.name / "_manifests/tags"
    for number in range(repository.tags):
        folder = tags / repository.tag(number) / "current"
        folder.mkdir(parents=True)
        Path(folder, "link").write_text(digests[number % repository.manifests], encoding="ascii")


def _push_blobs(server: RegistryServer, repository: Repository) -> None:
    work_off(server, [put_blob(repository.name, one) for one in (IMAGE.config, *IMAGE.layers)])


def work_off(server: RegistryServer, pieces: Sequence[Flow]) -> None:
    """Each piece once, whichever client is free for it."""
    waiting = iter(pieces)
    clients = min(_CLIENTS, len(pieces))
    drive(server.port, lambda _: next(waiting), clients=clients, seconds=math.inf, most=len(pieces))
