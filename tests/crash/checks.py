"""What must hold after any end of the server, asked over HTTP and looked up in its files."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digestry.catalog.catalog import Catalog
from digestry.model import media_types
from digestry.model.digest import ALGORITHMS, Digest
from tests.crash.load import Ledger
from tests.support import RegistryServer

_ACCEPT = {"Accept": ", ".join(sorted(media_types.MANIFESTS))}


@dataclass(frozen=True)
class Answer:
    status: int
    digest: str
    body: bytes


class Reader:
    """Reads from a registry over one connection."""

    def __init__(self, registry: RegistryServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=30)

    def get(self, path: str) -> Answer:
        self._connection.request("GET", path, headers=_ACCEPT)
        answer = self._connection.getresponse()
        return Answer(answer.status, answer.headers.get("docker-content-digest", ""), answer.read())

    def close(self) -> None:
        self._connection.close()


def check_all(registry: RegistryServer, ledger: Ledger) -> None:
    """Everything. The registry is running, and nobody else uses it."""
    reader = Reader(registry)
    try:
        check_acknowledged(reader, ledger)
        check_unanswered(reader, ledger)
        for repository in {name for name, _ in [*ledger.blobs, *ledger.attempted]}:
            check_repository(reader, repository, ledger)
    finally:
        reader.close()
    check_files(registry.root)
    check_journal(registry.root)


def check_acknowledged(reader: Reader, ledger: Ledger) -> None:
    """What was answered with 201 is there, whole."""
    assert ledger.wrong == []
    for (repository, digest), content in ledger.blobs.items():
        answer = reader.get(f"/v2/{repository}/blobs/{digest}")
        assert (answer.status, answer.digest) == (200, str(digest)), f"blob {digest} of {repository}"
        assert answer.body == content, f"blob {digest} of {repository} is not what was pushed"
    for (repository, digest), raw in ledger.manifests.items():
        answer = reader.get(f"/v2/{repository}/manifests/{digest}")
        assert (answer.status, answer.digest) == (200, str(digest)), f"manifest {digest} of {repository}"
        assert answer.body == raw, f"manifest {digest} of {repository} is not what was pushed"


def check_unanswered(reader: Reader, ledger: Ledger) -> None:
    """What was cut off is there as a whole, or not at all."""
    for path, content in ledger.unanswered.items():
        answer = reader.get(path)
        assert answer.status in {200, 404}, f"{path}: {answer.status} {answer.body[:300]!r}"
        assert answer.status == 404 or answer.body == content, f"{path} is not what was pushed"


def check_repository(reader: Reader, repository: str, ledger: Ledger) -> None:
    """Tags and journal tell one story, with every acknowledged push in it; what a tag shows is whole."""
    answer = reader.get(f"/v2/{repository}/tags/list")
    if answer.status == 404:  # nothing ever got in
        assert not any(name == repository for name, _ in [*ledger.blobs, *ledger.tags])
        return
    shown = set(json.loads(answer.body)["tags"])
    history = _history(reader, repository)
    assert shown == set(history)
    assert shown >= {tag for name, tag in ledger.tags if name == repository}
    for tag, moves in history.items():
        key = (repository, tag)
        expected = None
        for move in moves:
            assert move.get("fromDigest") == expected, f"the history of {repository}:{tag} has a gap"
            expected = move["toDigest"]
        moved_to = [move["toDigest"] for move in moves]
        acknowledged = ledger.tags.get(key, [])
        assert set(acknowledged) <= set(moved_to), f"{repository}:{tag} forgot an acknowledged push"
        assert set(moved_to) <= ledger.attempted[key], f"{repository}:{tag} has what nobody pushed"
        if tag.startswith("own-"):  # one client pushed it, one push after the other
            assert [digest for digest in moved_to if digest in set(acknowledged)] == acknowledged
            assert len(moved_to) <= len(acknowledged) + 1
        manifest = reader.get(f"/v2/{repository}/manifests/{tag}")
        assert (manifest.status, manifest.digest) == (200, expected), f"{repository}:{tag}"
        for digest in moved_to:
            check_image(reader, repository, digest)


def _history(reader: Reader, repository: str) -> dict[str, list[dict[str, Any]]]:
    """A repository's journal, the oldest entry first, for each tag."""
    entries: list[dict[str, Any]] = []
    path = f"/v2/{repository}/_digestry/journal?n=1000"
    while True:
        page = json.loads(reader.get(path).body)["entries"]
        entries += page
        if len(page) < 1000:
            break
        path = f"/v2/{repository}/_digestry/journal?n=1000&before={page[-1]['sequence']}"
    history: dict[str, list[dict[str, Any]]] = {}
    for entry in reversed(entries):
        history.setdefault(entry["tag"], []).append(entry)
    return history


def check_image(reader: Reader, repository: str, target: str) -> None:
    """A manifest that can be seen has all that it refers to, and all of it is what its digest says."""
    answer = reader.get(f"/v2/{repository}/manifests/{target}")
    assert answer.status == 200
    assert str(Digest.of(answer.body)) == answer.digest
    content = json.loads(answer.body)
    for child in content.get("manifests", []):
        check_image(reader, repository, child["digest"])
    for blob in [content["config"], *content["layers"]] if "layers" in content else []:
        digest = Digest.parse(blob["digest"])
        part = reader.get(f"/v2/{repository}/blobs/{digest}")
        assert part.status == 200, f"{repository}@{answer.digest} lacks {digest}"
        assert Digest.of(part.body, digest.algorithm) == digest
        assert len(part.body) == blob["size"]


def check_files(root: Path) -> None:
    """A name in ``blobs`` means: complete, checked."""
    directories = list((root / "blobs").iterdir())
    assert {directory.name for directory in directories} <= set(ALGORITHMS)
    for directory in directories:
        for path in directory.iterdir():
            assert str(Digest.of(path.read_bytes(), directory.name)) == f"{directory.name}:{path.name}"


def check_journal(root: Path) -> None:
    """The chain of hashes over all repositories holds."""
    catalog = Catalog(root)
    try:
        assert catalog.verify_journal() is None
    finally:
        catalog.close()
