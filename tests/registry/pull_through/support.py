"""Another registry, made up and not always honest, and a registry that stands in front of it."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.client.liar import Liar, Reply, Request, lying, not_found
from tests.support import RegistryServer, Response, descriptor, start_registry

_PATH = re.compile(r"/v2/(.+)/(manifests|blobs|tags|referrers)/([^/]+)")
KIND = media_types.OCI_MANIFEST


@dataclass
class Upstream:
    """A registry in memory. ``trouble`` may answer a request instead; ``seen`` has what was asked."""

    liar: Liar
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    referrers: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    troubles: dict[str, Callable[[Request], Reply | None]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://{self.liar.host}"

    def asked(self, repository: str) -> list[str]:
        """What was asked about a repository: ``GET manifests/latest`` and so on."""
        start = f"/v2/{repository}/"
        return [
            f"{request.method} {request.path.removeprefix(start)}"
            for request in list(self.liar.seen)
            if request.path.startswith(start)
        ]

    # -- what it has ---------------------------------------------------------------------------

    def blob(self, repository: str, content: bytes) -> Digest:
        digest = Digest.of(content)
        self.blobs[repository, str(digest)] = content
        return digest

    def manifest(self, repository: str, document: Mapping[str, Any], *tags: str) -> Digest:
        raw = json.dumps(document, indent=2).encode()
        digest = Digest.of(raw)
        self.manifests[repository, str(digest)] = raw
        for tag in tags:
            self.tags[repository, tag] = str(digest)
        return digest

    def image(self, repository: str, *tags: str, layer: bytes = b"layer", **extra: Any) -> Digest:
        """A small image; its manifest's digest."""
        config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": KIND,
            "config": descriptor(media_types.OCI_CONFIG, self.blob(repository, config), len(config)),
            "layers": [descriptor(media_types.OCI_LAYER, self.blob(repository, layer), len(layer))],
            **extra,
        }
        return self.manifest(repository, document, *tags)

    # -- what it answers -----------------------------------------------------------------------

    def answer(self, request: Request) -> Reply:
        found = _PATH.fullmatch(request.path)
        if found is None:
            return not_found(request)
        repository, resource, target = found.groups()
        trouble = self.troubles.get(repository)
        reply = None if trouble is None else trouble(request)
        return reply or self.honest(request, repository, resource, target)

    def honest(self, request: Request, repository: str, resource: str, target: str) -> Reply:
        """What it has, as a registry answers."""
        if resource == "manifests":
            digest = self.tags.get((repository, target), target)
            raw = self.manifests.get((repository, digest))
            if raw is None:
                return not_found(request)
            kind = json.loads(raw)["mediaType"]
            return Reply(200, raw, {"Content-Type": kind, "Docker-Content-Digest": digest})
        if resource == "blobs":
            content = self.blobs.get((repository, target))
            if content is None:
                return not_found(request)
            start = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
            if start is None:
                return Reply(200, content)
            first = int(start[1])
            if first >= len(content):
                return Reply(416)
            said = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
            return Reply(206, content[first:], said)
        if resource == "tags":
            names = sorted(tag for name, tag in self.tags if name == repository)
            body = json.dumps({"name": repository, "tags": names}).encode()
            return Reply(200, body, {"Content-Type": "application/json"}) if names else not_found(request)
        index = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": self.referrers.get((repository, target), []),
        }
        return Reply(200, json.dumps(index).encode(), {"Content-Type": media_types.OCI_INDEX})


@contextlib.contextmanager
def upstream() -> Iterator[Upstream]:
    with lying() as liar:
        made = Upstream(liar)
        liar.answer = made.answer
        yield made


@contextlib.contextmanager
def mirroring(directory: Path, configuration: str, *arguments: str) -> Iterator[RegistryServer]:
    """A registry with a configuration, for the block."""
    directory.mkdir(exist_ok=True)
    file = directory / "registry.toml"
    file.write_text(configuration)
    server = start_registry(directory / "root", "--config", str(file), *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def get(server: RegistryServer, name: str, target: str, method: str = "GET", **headers: str) -> Response:
    return server.request(method, f"/v2/{name}/manifests/{target}", headers=headers)


def get_blob(
    server: RegistryServer, name: str, digest: Digest, method: str = "GET", **headers: str
) -> Response:
    return server.request(method, f"/v2/{name}/blobs/{digest}", headers=headers)


def moves(server: RegistryServer, name: str, tag: str) -> list[tuple[str, str | None, str | None, str]]:
    """The journal of a tag, oldest first: event, from, to, by whom."""
    answer = server.request("GET", f"/v2/{name}/_digestry/journal?tag={tag}")
    assert answer.status == 200, answer.body
    return [
        (entry["event"], entry.get("fromDigest"), entry.get("toDigest"), entry["actor"])
        for entry in reversed(answer.json()["entries"])
    ]


def state(answer: Response) -> str:
    """The word of ``Digestry-Upstream``."""
    return answer.headers["digestry-upstream"].partition(";")[0]
