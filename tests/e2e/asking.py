"""What the tests ask a registry about, beside what they do to it with real clients."""

from __future__ import annotations

from typing import Any

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.support import RegistryServer

_ACCEPT = {"Accept": ", ".join(sorted(media_types.MANIFESTS))}


def head(registry: RegistryServer, repository: str, target: str) -> Digest:
    """The digest that a HEAD of a tag or digest answers."""
    answer = registry.request("HEAD", f"/v2/{repository}/manifests/{target}", headers=_ACCEPT)
    assert answer.status == 200
    return Digest.parse(answer.headers["docker-content-digest"])


def raw(registry: RegistryServer, repository: str, target: str) -> bytes:
    """A manifest's bytes, whose hash was compared with the digest that came with them."""
    answer = registry.request("GET", f"/v2/{repository}/manifests/{target}", headers=_ACCEPT)
    assert answer.status == 200
    assert str(Digest.of(answer.body)) == answer.headers["docker-content-digest"]
    return answer.body


def manifest(registry: RegistryServer, repository: str, target: str) -> dict[str, Any]:
    """A manifest, read."""
    answer = registry.request("GET", f"/v2/{repository}/manifests/{target}", headers=_ACCEPT)
    assert answer.status == 200
    content: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == content.get("mediaType", media_types.OCI_MANIFEST)
    return content


def journal(registry: RegistryServer, repository: str) -> list[dict[str, Any]]:
    """The repository's tag events, the oldest first."""
    answer = registry.request("GET", f"/v2/{repository}/_digestry/journal?n=1000")
    assert answer.status == 200
    entries: list[dict[str, Any]] = answer.json()["entries"]
    return entries[::-1]


def moves(registry: RegistryServer, repository: str, tag: str) -> list[tuple[str, str | None, str | None]]:
    """Each event of a tag, the oldest first: its kind, from where, to where."""
    return [
        (entry["event"], entry.get("fromDigest"), entry.get("toDigest"))
        for entry in journal(registry, repository)
        if entry["tag"] == tag
    ]
