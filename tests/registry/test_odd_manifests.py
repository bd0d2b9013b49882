"""Shapes of manifests that other tools push, and every Go client reads: taken, served as they are, kept."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.config import load
from tests.backends import collect
from tests.client.liar import Reply
from tests.registry.garbage_collection.support import AT_ONCE, gathered
from tests.registry.pull_through.support import Upstream, get, mirroring, upstream
from tests.registry.support import put_manifest
from tests.support import RegistryServer, descriptor, run_digestry, start_registry

LAYER, CONFIG = b"a layer", b'{"architecture":"amd64","os":"linux"}'
INDEX, IMAGE = media_types.OCI_INDEX, media_types.OCI_MANIFEST


def of(kind: str, content: bytes, **more: Any) -> dict[str, Any]:
    return descriptor(kind, Digest.of(content), len(content), **more)


def image(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": of(media_types.OCI_CONFIG, CONFIG),
        "layers": [of(media_types.OCI_LAYER, LAYER)],
        **more,
    }


CHILD = json.dumps(image(annotations={"the": "child"})).encode()


def index(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries), **more}


def platform(value: Any) -> dict[str, Any]:
    return index(of(IMAGE, CHILD, platform=value))


def with_layer(**more: Any) -> dict[str, Any]:
    return image(layers=[of(media_types.OCI_LAYER, LAYER, **more)])


CACHE = [
    of(media_types.OCI_LAYER, LAYER, annotations={"buildkit/createdat": "2026-01-02T03:04:05Z"}),
    of("application/vnd.buildkit.cacheconfig.v0", CONFIG),
]
DOCUMENTS: dict[str, dict[str, Any]] = {
    "a build cache": index(*CACHE),
    "a build cache as docker's list": {
        "schemaVersion": 2,
        "mediaType": media_types.DOCKER_LIST,
        "manifests": CACHE,
    },
    "a config without a byte": image(config=of(media_types.OCI_CONFIG, b"")),
    "an artifact's config without a byte": image(config=of("application/vnd.devcontainers", b"")),
    "a null annotation": image(annotations={"a": None}),
    "null annotations": image(annotations=None),
    "a null annotation of a layer": with_layer(annotations={"a": None}),
    "null URLs": with_layer(urls=None),
    "a null URL": with_layer(urls=[None]),
    "null data and platform": with_layer(data=None, platform=None, artifactType=None),
    "no layers": {name: value for name, value in image().items() if name != "layers"},
    "null layers": image(layers=None),
    "a null subject and type": image(subject=None, artifactType=None),
    "a null kind": image(mediaType=None),
    "an empty kind": image(mediaType=""),
    "null manifests": {"schemaVersion": 2, "mediaType": INDEX, "manifests": None},
    "an index of nothing": index(),
    "null annotations of an index": index(of(IMAGE, CHILD, annotations={"a": None}), annotations={"b": None}),
    "an empty platform": platform({}),
    "a null platform": platform(None),
    "a platform without a system": platform({"architecture": "amd64"}),
    "a platform without a processor": platform({"os": "linux"}),
    "a platform of nulls": platform({"architecture": None, "os": None, "variant": None, "os.version": None}),
    "null features": platform({"architecture": "amd64", "os": "linux", "os.features": None}),
    "a null feature": platform({"architecture": "amd64", "os": "linux", "os.features": [None]}),
    "names in another case": {
        "SchemaVersion": 2,
        "MediaType": IMAGE,
        "Config": of(media_types.OCI_CONFIG, CONFIG),
        "LAYERS": [{"MediaType": media_types.OCI_LAYER, "Digest": str(Digest.of(LAYER)), "SIZE": 7}],
    },
}
RAW: dict[str, bytes] = {
    **{name: json.dumps(document).encode() for name, document in DOCUMENTS.items()},
    "text that is not UTF-8": json.dumps(image(annotations={"a": "X"})).encode().replace(b'"X"', b'"\xff"'),
    "half a character": json.dumps(image(annotations={"a": "X"})).encode().replace(b'"X"', b'"\\ud800"'),
    "space around it": b"\n\t " + json.dumps(image()).encode() + b"\r\n\n",
}
REFUSED: dict[str, tuple[bytes, str]] = {
    "an entry that is nowhere": (
        json.dumps(index(of(media_types.OCI_LAYER, b"nowhere"))).encode(),
        "MANIFEST_BLOB_UNKNOWN",
    ),
    "a manifest that is nowhere": (
        json.dumps(index(of(IMAGE, b"nowhere"))).encode(),
        "MANIFEST_BLOB_UNKNOWN",
    ),
    "a config without a byte that is nowhere": (
        json.dumps(image(config=of(media_types.OCI_CONFIG, b"nowhere"))).encode(),
        "MANIFEST_BLOB_UNKNOWN",
    ),
    "layers in another case that are nowhere": (
        json.dumps({**image(), "Layers": [of(media_types.OCI_LAYER, b"nowhere")]}).encode(),
        "MANIFEST_BLOB_UNKNOWN",
    ),
    "a null config": (json.dumps(image(config=None)).encode(), "MANIFEST_INVALID"),
    "a null layer": (json.dumps(image(layers=[None])).encode(), "MANIFEST_INVALID"),
    "a number for a processor": (json.dumps(platform({"architecture": 5})).encode(), "MANIFEST_INVALID"),
    "both kinds in two cases": (
        json.dumps({**image(), "Manifests": [of(IMAGE, CHILD)]}).encode(),
        "MANIFEST_INVALID",
    ),
    "not a number": (json.dumps(image(annotations={"a": float("nan")})).encode(), "MANIFEST_INVALID"),
    "depth": (
        json.dumps(image()).encode()[:-1] + b', "X": ' + b"[" * 100_000 + b"]" * 100_000 + b', "Size": 1}',
        "MANIFEST_INVALID",
    ),
    "a number of many digits": (
        json.dumps(image()).encode()[:-1] + b', "Size": null, "annotations": {"a": ' + b"9" * 9999 + b"}}",
        "MANIFEST_INVALID",
    ),
}


def kind_of(raw: bytes) -> str:
    if b"manifest.list" in raw:
        return media_types.DOCKER_LIST
    return INDEX if b'"manifests"' in raw else IMAGE


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("odd") / "registry.toml"
    file.write_text(AT_ONCE + '[[sparse]]\nrepository = "sparse/**"\n')
    return file


@pytest.fixture(scope="module")
def server(settings: Path) -> Iterator[RegistryServer]:
    running = start_registry(settings.with_name("root"), "--config", str(settings))
    push_parts(running)
    yield running
    running.stop()


def push_parts(server: RegistryServer) -> None:
    for name in ("odd/x", "sparse/x"):
        for content in (LAYER, CONFIG, b""):
            server.push_blob(name, content)
    server.push_manifest("odd/x", str(Digest.of(CHILD)), CHILD)


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_it_is_taken_and_comes_back_as_it_was(server: RegistryServer, raw: bytes) -> None:
    answer = put_manifest(server, "odd/x", "tag", raw, kind_of(raw))
    assert answer.status == 201, answer.body
    assert answer.headers["docker-content-digest"] == str(Digest.of(raw))
    found = server.request("GET", "/v2/odd/x/manifests/tag")
    assert (found.status, found.body, found.headers["content-type"]) == (200, raw, kind_of(raw))


@pytest.mark.parametrize(("raw", "code"), REFUSED.values(), ids=REFUSED)
def test_what_nobody_can_use_is_refused(server: RegistryServer, raw: bytes, code: str) -> None:
    answer = put_manifest(server, "odd/x", "refused", raw, kind_of(raw))
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.long
def test_a_mirror_takes_what_a_push_may_be(tmp_path: Path) -> None:
    with upstream() as hub:
        for number, raw in enumerate(RAW.values()):
            hub.manifests["x", str(Digest.of(raw))] = raw
            hub.tags["x", f"t{number}"] = str(Digest.of(raw))
        hub.liar.answer = lambda request: _typed(hub, request)
        with mirroring(tmp_path / "mirror", f'[mirror."up.test"]\nurl = "{hub.url}"\n') as mirror:
            for number, (name, raw) in enumerate(RAW.items()):
                answer = get(mirror, "up.test/x", f"t{number}")
                assert (answer.status, answer.body) == (200, raw), name


def _typed(hub: Upstream, request: Any) -> Any:
    """As the upstream of the tests answers, whose manifests say in one case what they are."""
    target = request.path.rpartition("/")[2]
    raw = hub.manifests.get(("x", hub.tags.get(("x", target), target)))
    if raw is None:
        return hub.answer(request)
    return Reply(200, raw, {"Content-Type": kind_of(raw), "Docker-Content-Digest": str(Digest.of(raw))})


@pytest.mark.long
def test_the_blobs_of_a_build_cache_are_kept_as_long_as_it(
    tmp_path: Path, settings: Path, server: RegistryServer
) -> None:
    layer, config = os.urandom(50), os.urandom(50)
    for content in (layer, config):
        server.push_blob("cache/x", content)
    raw = json.dumps(index(of(media_types.OCI_LAYER, layer), of("application/vnd.x", config))).encode()
    assert put_manifest(server, "cache/x", "cache", raw, INDEX).status == 201
    loaded = load(settings, {"root": server.root})
    gathered(collect, loaded)
    for content in (layer, config):
        path = f"/v2/cache/x/blobs/{Digest.of(content)}"
        assert server.request("GET", path).body == content
        refused = server.request("DELETE", path)
        assert (refused.status, refused.code) == (409, "DENIED")
    assert server.request("DELETE", "/v2/cache/x/manifests/cache").status == 202
    gathered(collect, loaded)
    assert server.request("HEAD", f"/v2/cache/x/blobs/{Digest.of(layer)}").status == 404


def test_an_index_of_some_platforms_where_that_is_allowed(server: RegistryServer) -> None:
    raw = json.dumps(
        index(
            of(IMAGE, b"another platform's", platform={"architecture": "arm64", "os": "linux"}),
            of(media_types.DOCKER_MANIFEST, b"a third's"),
        )
    ).encode()
    assert put_manifest(server, "sparse/x", "1", raw, INDEX).status == 201
    refused = put_manifest(server, "odd/x", "1", raw, INDEX)
    assert (refused.status, refused.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    # A blob, and what an image is made of, must be there all the same.
    for document in (
        index(of(media_types.OCI_LAYER, b"nowhere")),
        image(layers=[of(media_types.OCI_LAYER, b"nowhere")]),
    ):
        content = json.dumps(document).encode()
        answer = put_manifest(server, "sparse/x", "2", content, document["mediaType"])
        assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.long
def test_the_client_pulls_lists_and_pushes_them(server: RegistryServer, tmp_path: Path) -> None:
    """Each command ends in words; what can be pulled is listed, and can be pushed elsewhere."""
    push_parts(server)
    raws = {f"t{number}": raw for number, raw in enumerate(RAW.values())}
    for tag, raw in raws.items():
        assert put_manifest(server, "odd/x", tag, raw, kind_of(raw)).status == 201
    environment = {**os.environ, "DIGESTRY_HOME": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = run_digestry(*arguments, env=environment, timeout=60)
        assert done.returncode in {0, 4}, (arguments, done)
        assert "Traceback" not in done.stderr
        return done

    pulled = []
    chosen = ["a build cache", "a config without a byte", "a null annotation", "an empty platform"]
    for name in (*chosen, "names in another case"):
        tag = f"t{list(RAW).index(name)}"
        if run("pull", f"{server.host}/odd/x:{tag}").returncode == 0:
            pulled.append(tag)
        run("inspect", f"{server.host}/odd/x:{tag}")
    assert len(pulled) == 4  # a build cache has no image
    listed = run("images", "--digests")
    assert listed.returncode == 0
    assert all(str(Digest.of(raws[tag])) in listed.stdout for tag in pulled)
    for tag in pulled:
        assert run("tag", f"{server.host}/odd/x:{tag}", f"{server.host}/odd/y:{tag}").returncode == 0
        assert run("push", f"{server.host}/odd/y:{tag}").returncode == 0
