"""What must hold after any end of the server: the one place that says it.

Asked of a running registry (:class:`Reader`), and looked up in its files. ``tests/faults`` asks the
same of a registry that it runs without a socket.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
from pathlib import Path
from typing import Any, Final, Protocol

from digestry.blobs.registry_id_file import NAME as MARK_FILE
from digestry.catalog import clock
from digestry.model import media_types
from digestry.model.digest import ALGORITHMS, Digest
from digestry.registry.config import RegistryConfig
from tests.backends import collect, open_blobs, open_catalog
from tests.crash.load import Ledger
from tests.stores import needs_disk
from tests.support import RegistryServer, Response, wait_until

_ACCEPT: Final = {"Accept": ", ".join(sorted(media_types.MANIFESTS))}
_AGES: Final = 10 * 365 * 24 * 3600 * clock.SECOND
_WRONG_USAGE: Final = """
SELECT repositories.name, counted.bytes, counted.tags, usage.bytes, usage.tags
FROM repositories JOIN usage ON usage.repository_id = repositories.id
JOIN (
    SELECT id,
        (SELECT coalesce(sum(size), 0) FROM links WHERE repository_id = id)
        + (SELECT coalesce(sum(size), 0) FROM manifests
            WHERE repository_id = id AND deleted_at IS NULL) AS bytes,
        (SELECT count(*) FROM tags WHERE repository_id = id) AS tags
    FROM repositories
) AS counted ON counted.id = repositories.id
WHERE usage.bytes != counted.bytes OR usage.tags != counted.tags
"""


class Asks(Protocol):
    """Whoever can read from a running registry."""

    def get(self, path: str) -> Response: ...


class Reader:
    """Reads from a registry over one connection."""

    def __init__(self, registry: RegistryServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=30)

    def get(self, path: str) -> Response:
        self._connection.request("GET", path, headers=_ACCEPT)
        answer = self._connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, headers, answer.read())

    def close(self) -> None:
        self._connection.close()


def _digest(answer: Response) -> str:
    return answer.headers.get("docker-content-digest", "")


def check_all(registry: RegistryServer, ledger: Ledger) -> None:
    """Everything. The registry is running, and nobody else uses it."""
    reader = Reader(registry)
    try:
        assert ledger.wrong == []
        if ledger.lease is None:  # else what no tag holds may have gone
            check_acknowledged(reader, ledger)
        check_unanswered(reader, ledger)
        for repository in {name for name, _ in [*ledger.blobs, *ledger.attempted]}:
            check_repository(reader, repository, ledger)
        check_served(reader, registry.root)
    finally:
        reader.close()
    check_files(registry.root)
    check_journal(registry.root)
    check_usage(registry.root)


def check_acknowledged(reader: Asks, ledger: Ledger) -> None:
    """What was answered with 201 is there, whole."""
    for (repository, digest), content in ledger.blobs.items():
        answer = reader.get(f"/v2/{repository}/blobs/{digest}")
        assert (answer.status, _digest(answer)) == (200, str(digest)), f"blob {digest} of {repository}"
        assert answer.body == content, f"blob {digest} of {repository} is not what was pushed"
    for (repository, digest), raw in ledger.manifests.items():
        answer = reader.get(f"/v2/{repository}/manifests/{digest}")
        assert (answer.status, _digest(answer)) == (200, str(digest)), f"manifest {digest} of {repository}"
        assert answer.body == raw, f"manifest {digest} of {repository} is not what was pushed"


def check_unanswered(reader: Asks, ledger: Ledger) -> None:
    """What was cut off is there as a whole, or not at all."""
    for path, content in ledger.unanswered.items():
        answer = reader.get(path)
        assert answer.status in {200, 404}, f"{path}: {answer.status} {answer.body[:300]!r}"
        assert answer.status == 404 or answer.body == content, f"{path} is not what was pushed"


def check_repository(reader: Asks, repository: str, ledger: Ledger) -> None:
    """Tags and journal tell one story, with every acknowledged push in it; what a tag shows is whole."""
    history = check_story(reader, repository)
    for name, tag in ledger.tags:
        assert name != repository or tag in history, f"{repository}:{tag} forgot all of its pushes"
    for tag, moves in history.items():
        key = (repository, tag)
        moved_to = [move.get("toDigest") for move in moves]
        acknowledged = ledger.tags.get(key, [])
        assert set(acknowledged) <= set(moved_to), f"{repository}:{tag} forgot an acknowledged push"
        assert {digest or "" for digest in moved_to} <= ledger.attempted[key], f"{repository}:{tag}"
        if tag.startswith("own-"):  # one client pushed and deleted it, one request after the other
            assert moved_to[: len(acknowledged)] == acknowledged, f"the order of {repository}:{tag}"
            assert len(moved_to) <= len(acknowledged) + 1


def check_story(reader: Asks, repository: str) -> dict[str, list[dict[str, Any]]]:
    """Tags and journal agree: each tag is where its last entry says, and no entry is missing between.

    Returns the journal, the oldest entry first, for each tag.
    """
    history = _history(reader, repository)
    answer = reader.get(f"/v2/{repository}/tags/list")
    if answer.status == 404:  # nothing ever got in
        assert not history
        return history
    shown = set(json.loads(answer.body)["tags"])
    standing: set[str] = set()
    for tag, moves in history.items():
        expected = None
        for move in moves:
            assert move.get("fromDigest") == expected, f"the history of {repository}:{tag} has a gap"
            expected = move.get("toDigest")
        manifest = reader.get(f"/v2/{repository}/manifests/{tag}")
        if expected is None:
            assert manifest.status == 404, f"{repository}:{tag} was deleted"
            continue
        standing.add(tag)
        assert (manifest.status, _digest(manifest)) == (200, expected), f"{repository}:{tag}"
    assert shown == standing, f"tags of {repository}: {shown} are listed, {standing} in the journal"
    times = [move["at"] for moves in history.values() for move in moves]
    assert len(set(times)) == len(times)
    return history


def _history(reader: Asks, repository: str) -> dict[str, list[dict[str, Any]]]:
    """A repository's journal, the oldest entry first, for each tag."""
    entries: list[dict[str, Any]] = []
    path = f"/v2/{repository}/_digestry/journal?n=1000"
    while True:
        answer = reader.get(path)
        if answer.status == 404:
            return {}
        page = json.loads(answer.body)["entries"]
        entries += page
        if len(page) < 1000:
            break
        path = f"/v2/{repository}/_digestry/journal?n=1000&before={page[-1]['sequence']}"
    history: dict[str, list[dict[str, Any]]] = {}
    for entry in reversed(entries):
        history.setdefault(entry["tag"], []).append(entry)
    return history


def check_served(reader: Asks, root: Path) -> None:
    """All that the catalog shows is served, is what its digest says, and lacks nothing it refers to."""
    shown, linked = _shown(root)
    for repository, manifest, media_type in shown:
        answer = reader.get(f"/v2/{repository}/manifests/{manifest}")
        if answer.status == 404 and (repository, manifest) not in {row[:2] for row in _shown(root)[0]}:
            continue  # collected meanwhile
        assert (answer.status, _digest(answer)) == (200, manifest), (
            f"{repository}@{manifest}: {answer.status}"
        )
        assert str(Digest.of(answer.body, Digest.parse(manifest).algorithm)) == manifest
        content = json.loads(answer.body)
        assert answer.headers["content-type"] == media_type
        for child in content.get("manifests", []):
            assert (repository, child["digest"]) in {(name, digest) for name, digest, _ in shown}, (
                f"{repository}@{manifest} lacks the manifest {child['digest']}"
            )
        for blob in [content["config"], *content["layers"]] if "layers" in content else []:
            assert linked.get((repository, blob["digest"])) == blob["size"], (
                f"{repository}@{manifest} lacks {blob['digest']}"
            )
    for (repository, text), size in sorted(linked.items()):
        digest = Digest.parse(text)
        answer = reader.get(f"/v2/{repository}/blobs/{digest}")
        if answer.status == 404 and (repository, text) not in _shown(root)[1]:
            continue  # collected meanwhile
        assert answer.status == 200, f"blob {digest} of {repository}: {answer.status}"
        assert len(answer.body) == size
        assert Digest.of(answer.body, digest.algorithm) == digest, f"{digest} of {repository} is wrong"


def _shown(root: Path) -> tuple[list[tuple[str, str, str]], dict[tuple[str, str], int]]:
    """The manifests and the blobs that the catalog shows."""
    connection = sqlite3.connect(root / "catalog.db", timeout=30)
    try:
        manifests = connection.execute(
            "SELECT r.name, m.digest, m.media_type FROM manifests m"
            " JOIN repositories r ON r.id = m.repository_id WHERE m.deleted_at IS NULL"
        ).fetchall()
        links = connection.execute(
            "SELECT r.name, l.digest, l.size FROM links l JOIN repositories r ON r.id = l.repository_id"
        ).fetchall()
    finally:
        connection.close()
    return manifests, {(name, digest): size for name, digest, size in links}


def check_files(root: Path) -> None:
    """A name in ``blobs`` means: complete, checked. Nobody's temporary files are left beside it."""
    needs_disk(root)
    directories = [
        path for path in (root / "blobs").iterdir() if path.name != MARK_FILE and path.name[0] != "."
    ]
    assert {directory.name for directory in directories} <= set(ALGORITHMS)
    for directory in directories:
        for path in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a collection that runs may take it away
                assert str(Digest.of(path.read_bytes(), directory.name)) == f"{directory.name}:{path.name}"
    # While a registry is served, its jobs replace files now and then: by one that is renamed.
    wait_until(lambda: not _temporaries(root), what="the end of a file on its way")


def _temporaries(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if not path.name.startswith(".gc-dry-run-")]


def check_nothing_under_way(root: Path) -> None:
    """After a sweep of all uploads: no bytes on their way in that nobody owns, no upload that never ends."""
    assert list(open_blobs(root).ingests()) == []
    connection = sqlite3.connect(root / "catalog.db", timeout=30)
    try:
        assert connection.execute("SELECT id, repository FROM uploads").fetchall() == []
    finally:
        connection.close()


def check_nothing_unheld(root: Path) -> None:
    """Collected when all leases and times of grace are over: not one file left that nothing holds."""
    config = RegistryConfig(root=root)
    # What was never tagged may be most of what there is.
    assert collect(config, now=lambda: clock.now() + _AGES, really=True).stayed == 0
    shown, linked = _shown(root)
    held = {digest for _, digest in linked} | {digest for _, digest, _ in shown}
    present = {f"{path.parent.name}:{path.name}" for path in (root / "blobs").glob("*/*")}
    assert present == held, f"{present - held} are held by nothing; {held - present} are gone"


def check_journal(root: Path) -> None:
    """The chains of hashes hold, each repository's times only rise, and the registry's order has no gap."""
    catalog = open_catalog(root)
    try:
        assert catalog.verify_journal() is None
    finally:
        catalog.close()
    connection = sqlite3.connect(root / "catalog.db", timeout=30)
    try:
        entries = connection.execute(
            "SELECT sequence, repository, at FROM journal ORDER BY sequence"
        ).fetchall()
    finally:
        connection.close()
    assert [sequence for sequence, _, _ in entries] == list(range(1, len(entries) + 1))
    last: dict[str, int] = {}
    for _, repository, at in entries:
        assert at > last.get(repository, 0)
        last[repository] = at


def check_usage(root: Path) -> None:
    """What quotas go by is what each repository has."""
    connection = sqlite3.connect(root / "catalog.db", timeout=30)
    try:
        wrong = connection.execute(_WRONG_USAGE).fetchall()
    finally:
        connection.close()
    assert wrong == []
