"""Tags that stay, over HTTP: what clients are answered, and who wins when many push at once."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.catalog.tag_policy import TagPolicy, TagRule
from digestry.errors import InvalidConfiguration
from digestry.model.digest import Digest
from digestry.registry.config import load
from tests.registry.support import events, on_disk, put_manifest
from tests.support import RegistryServer, Response, running_registry

RULES = """
[[immutability]]
repository = "forward/**"
mode = "forward-only"

[[immutability]]
repository = "once/*"
mode = "write-once"
deletable = true

[[immutability]]
tag = ["*"]
exclude = ["latest", "edge-*"]
mode = "immutable"
"""


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with rules, and two worker processes."""
    file = tmp_path_factory.mktemp("rules") / "registry.toml"
    file.write_text(RULES)
    with running_registry("--config", str(file), "--workers", "2") as server:
        yield server


def new(registry: RegistryServer, name: str) -> bytes:
    return json.dumps(registry.image(name, os.urandom(10))).encode()


def refused(answer: Response, holder: Digest) -> str:
    """A refusal that docker shows, and does not repeat."""
    assert (answer.status, answer.code) == (409, "DENIED"), answer.body
    error = answer.json()["errors"][0]
    assert str(holder) in error["message"]
    assert error["detail"]["digest"] == str(holder)
    return str(error["message"])


@pytest.mark.long
def test_an_immutable_tag(ruled: RegistryServer) -> None:
    name = "immutable"
    first, second = new(ruled, name), new(ruled, name)
    digest = Digest.of(first)
    for _ in range(2):
        assert put_manifest(ruled, name, "1.5", first).status == 201
    message = refused(put_manifest(ruled, name, "1.5", second), digest)
    assert message.startswith(f"tag 1.5 of {name} is immutable and points to {digest}")
    assert not on_disk(ruled, Digest.of(second))
    for free in ("latest", "edge-1"):
        for raw in (first, second):
            assert put_manifest(ruled, name, free, raw).status == 201
    refused(ruled.request("DELETE", f"/v2/{name}/manifests/1.5"), digest)
    refused(ruled.request("DELETE", f"/v2/{name}/manifests/{digest}"), digest)
    assert ruled.request("DELETE", f"/v2/{name}/manifests/edge-1").status == 202
    assert ruled.request("GET", f"/v2/{name}/manifests/1.5").body == first
    assert [event["tag"] for event in events(ruled, name) if event["tag"] == "1.5"] == ["1.5"]


def test_all_tags_of_a_push_or_none(ruled: RegistryServer) -> None:
    name = "several"
    first, second = new(ruled, name), new(ruled, name)
    assert put_manifest(ruled, name, "v1", first).status == 201
    target = f"{Digest.of(second)}?tag=latest&tag=v1&tag=v2"
    refused(put_manifest(ruled, name, target, second), Digest.of(first))
    assert ruled.request("GET", f"/v2/{name}/tags/list").json()["tags"] == ["v1"]
    assert ruled.request("HEAD", f"/v2/{name}/manifests/{Digest.of(second)}").status == 404
    assert put_manifest(ruled, name, f"{Digest.of(first)}?tag=latest&tag=v1&tag=v2", first).status == 201


def test_write_once(ruled: RegistryServer) -> None:
    name = "once/app"
    first, second = new(ruled, name), new(ruled, name)
    assert put_manifest(ruled, name, "v1", first).status == 201
    refused(put_manifest(ruled, name, "v1", second), Digest.of(first))
    assert ruled.request("DELETE", f"/v2/{name}/manifests/{Digest.of(first)}").status == 202
    assert "until it was deleted" in refused(put_manifest(ruled, name, "v1", second), Digest.of(first))
    assert put_manifest(ruled, name, "v1", first).status == 201


def test_forward_only_and_restore(ruled: RegistryServer) -> None:
    name = "forward/app"
    first, second = new(ruled, name), new(ruled, name)
    for raw in (first, second):
        assert put_manifest(ruled, name, "main", raw).status == 201
    assert "forward-only" in refused(put_manifest(ruled, name, "main", first), Digest.of(second))
    path = f"/v2/{name}/_digestry/restore/main?to={Digest.of(first)}"
    refused(ruled.request("POST", path), Digest.of(second))
    assert len(events(ruled, name)) == 2


@pytest.mark.long
def test_a_hundred_pushers(ruled: RegistryServer) -> None:
    name = "race"
    images = [new(ruled, name) for _ in range(100)]
    barrier = threading.Barrier(len(images))
    answers: dict[Digest, Response] = {}

    def push(raw: bytes) -> None:
        barrier.wait()
        answers[Digest.of(raw)] = put_manifest(ruled, name, "1.0", raw)

    threads = [threading.Thread(target=push, args=(raw,)) for raw in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (digest for digest, answer in answers.items() if answer.status == 201)
    for digest, answer in answers.items():
        if digest != winner:
            refused(answer, winner)
    (event,) = events(ruled, name)
    assert (event["event"], event["toDigest"]) == ("created", str(winner))


# -- the configuration ----------------------------------------------------------------------------


def policy(tmp_path: Path, text: str) -> TagPolicy:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    return load(file, {"root": tmp_path}).tags


def test_rules_are_read(tmp_path: Path) -> None:
    assert policy(tmp_path, "") == TagPolicy()
    assert policy(tmp_path, RULES) == TagPolicy(
        (
            TagRule("forward-only", repositories=("forward/**",)),
            TagRule("write-once", repositories=("once/*",), deletable=True),
            TagRule("immutable", exclude=("latest", "edge-*")),
        )
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[immutability]]", "mode is missing"),
        ("[[immutability]]\nmode = 'frozen'", "mutable, immutable, write-once, forward-only"),
        ("[[immutability]]\nmode = 'immutable'\ntags = '*'", "unknown key 'tags'"),
        ("[[immutability]]\nmode = 'immutable'\ntag = 1", "tag: a list of strings"),
        ("[[immutability]]\nmode = 'immutable'\ntag = 'v[0-9]'", "tag: pattern 'v\\[0-9\\]' matches no name"),
        ("[[immutability]]\nmode = 'immutable'\ndeletable = 'no'", "deletable: true or false"),
        ("[immutability]\nmode = 'immutable'", r"write \[\[immutability\]\]"),
        (f"{RULES}[[immutability]]\nmode = 1", "immutability 4"),
    ],
)
def test_rules_that_are_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidConfiguration, match=complaint):
        policy(tmp_path, text)
