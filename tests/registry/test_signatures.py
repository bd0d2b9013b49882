"""Signatures are no releases: the tags that collect them may grow where tags do not move, and only grow."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.support import events, put_manifest
from tests.support import RegistryServer, descriptor, start_registry

KIND = "application/vnd.dev.cosign.simplesigning.v1+json"


@pytest.fixture(scope="module", params=["immutable", "write-once"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryServer]:
    directory = tmp_path_factory.mktemp("signed")
    (directory / "registry.toml").write_text(f'[[immutability]]\nmode = "{request.param}"\n')
    running = start_registry(directory / "root", "--config", str(directory / "registry.toml"))
    yield running
    running.stop()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "rel/" + str(Digest.of(request.node.name.encode()).encoded[:12])


def entry(server: RegistryServer, name: str, content: bytes, **more: Any) -> dict[str, Any]:
    return descriptor(KIND, server.push_blob(name, content), len(content), **more)


def signatures(server: RegistryServer, name: str, *entries: dict[str, Any]) -> bytes:
    config = descriptor(media_types.OCI_CONFIG, server.push_blob(name, b"{}"), 2)
    return json.dumps({"schemaVersion": 2, "config": config, "layers": list(entries)}).encode()


def put(server: RegistryServer, name: str, tag: str, raw: bytes) -> int:
    kind = media_types.OCI_INDEX if b'"manifests"' in raw else media_types.OCI_MANIFEST
    return put_manifest(server, name, tag, raw, kind).status


def tag_of(digest: Digest, suffix: str = ".sig") -> str:
    return f"{digest.algorithm}-{digest.encoded[:64]}{suffix}"


@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom"])
def test_they_grow_and_lose_nothing(server: RegistryServer, name: str, suffix: str) -> None:
    tag = tag_of(server.push_image(name, "v1"), suffix)
    one = entry(server, name, b"one", annotations={"signature": "MEUC", "chain": "x"})
    two = entry(server, name, b"two", annotations={"signature": "MEQC"})
    stripped = {key: value for key, value in one.items() if key != "annotations"}
    first, second = signatures(server, name, one), signatures(server, name, two, one)
    assert put(server, name, tag, first) == 201
    assert put(server, name, tag, second) == 201
    assert put(server, name, tag, second) == 201
    for less in (
        first,
        signatures(server, name, two),
        signatures(server, name, two, stripped),
        signatures(server, name, two, {**one, "annotations": {"signature": "forged"}}),
        signatures(server, name),
        json.dumps({"schemaVersion": 2, "manifests": [one, two]}).encode(),
    ):
        assert put(server, name, tag, less) == 409
    assert server.request("DELETE", f"/v2/{name}/manifests/{tag}").status == 409
    assert server.request("GET", f"/v2/{name}/manifests/{Digest.of(first)}").body == first
    moves = [(event["event"], event.get("toDigest")) for event in events(server, name) if event["tag"] == tag]
    assert moves == [("created", str(Digest.of(first))), ("moved", str(Digest.of(second)))]


def test_the_referrers_tag_grows(server: RegistryServer, name: str) -> None:
    subject = server.push_image(name, "v1")
    about = [server.push_image(name, f"about{number}", b"about %d" % number) for number in range(3)]
    sizes = [len(server.request("GET", f"/v2/{name}/manifests/{digest}").body) for digest in about]
    listed = [
        descriptor(media_types.OCI_MANIFEST, digest, size) for digest, size in zip(about, sizes, strict=True)
    ]

    def index(*entries: dict[str, Any]) -> bytes:
        return json.dumps({"schemaVersion": 2, "manifests": list(entries)}).encode()

    for count in (1, 2, 3):
        assert put(server, name, tag_of(subject, ""), index(*listed[:count])) == 201
    assert put(server, name, tag_of(subject, ""), index(*listed[1:])) == 409


@pytest.mark.parametrize(
    "form", ["v1", "{}.sh", "{}-1", "{}.sig.x", "x{}.sig", "{}0.sig", "sha256-" + "0" * 64 + ".sig"]
)
def test_other_tags_do_not_move(server: RegistryServer, name: str, form: str) -> None:
    subject = server.push_image(name, "release")
    tag = form.format(tag_of(subject, ""))
    one, two = entry(server, name, b"one"), entry(server, name, b"two")
    assert put(server, name, tag, signatures(server, name, one)) == 201
    assert put(server, name, tag, signatures(server, name, one, two)) == 409


def test_of_a_longer_digest(server: RegistryServer, name: str) -> None:
    raw = json.dumps(server.image(name)).encode()
    subject = Digest.of(raw, "sha512")
    assert put(server, name, str(subject), raw) == 201
    one, two = entry(server, name, b"one"), entry(server, name, b"two")
    for suffix in ("", ".sig"):
        assert put(server, name, tag_of(subject, suffix), signatures(server, name, one)) == 201
        assert put(server, name, tag_of(subject, suffix), signatures(server, name, one, two)) == 201


def test_a_subject_that_was_deleted_is_none(server: RegistryServer, name: str) -> None:
    raw = json.dumps(server.image(name)).encode()
    subject = Digest.of(raw)
    assert put(server, name, str(subject), raw) == 201
    one, two = entry(server, name, b"one"), entry(server, name, b"two")
    assert put(server, name, tag_of(subject), signatures(server, name, one)) == 201
    assert server.request("DELETE", f"/v2/{name}/manifests/{subject}").status == 202
    assert put(server, name, tag_of(subject), signatures(server, name, one, two)) == 409


def test_two_that_sign_at_once_do_not_lose_each_others(server: RegistryServer, name: str) -> None:
    tag = tag_of(server.push_image(name, "v1"))
    first = entry(server, name, b"first")
    assert put(server, name, tag, signatures(server, name, first)) == 201
    start = threading.Barrier(8)

    def sign(number: int) -> int:
        raw = signatures(server, name, first, entry(server, name, b"signer %d" % number))
        start.wait()
        return put(server, name, tag, raw)

    with ThreadPoolExecutor(8) as pool:
        results = sorted(pool.map(sign, range(8)))
    assert results == [201] + [409] * 7


def image_with(server: RegistryServer, name: str, earlier: dict[str, Any], content: bytes) -> bytes:
    """An image with all layers of another one, one more, and a config of its own."""
    more = descriptor(media_types.OCI_LAYER, server.push_blob(name, content), len(content))
    config = descriptor(media_types.OCI_CONFIG, server.push_blob(name, b'{"os":"linux"}'), 14)
    return json.dumps({**earlier, "config": config, "layers": [*earlier["layers"], more]}).encode()


@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom"])
def test_an_image_is_no_signature_whatever_its_tag_is_called(
    server: RegistryServer, name: str, suffix: str
) -> None:
    release = server.push_image(name, "v1")
    image = server.image(name, b"another")
    grown = image_with(server, name, image, b"malware")
    assert put(server, name, tag_of(release, suffix), json.dumps(image).encode()) == 201
    assert put(server, name, tag_of(release, suffix), grown) == 409


def test_a_tag_that_names_what_it_points_to_does_not_move(server: RegistryServer, name: str) -> None:
    one, two = entry(server, name, b"one"), entry(server, name, b"two")
    raw, grown = signatures(server, name, one), signatures(server, name, one, two)
    named, signed = tag_of(Digest.of(raw), ""), tag_of(Digest.of(raw))
    assert put(server, name, named, raw) == put(server, name, signed, raw) == 201
    assert put(server, name, named, grown) == 409
    # Nor in the company of one that could.
    by_digest = f"/v2/{name}/manifests/{Digest.of(grown)}?tag={named}&tag="
    for other in (signed, "sha256-" + "0" * 64):
        answer = server.request("PUT", by_digest + other, grown, {"Content-Type": media_types.OCI_MANIFEST})
        assert answer.status == 409
    assert server.request("GET", f"/v2/{name}/manifests/{named}").body == raw


def test_what_is_said_of_all_entries_stays(server: RegistryServer, name: str) -> None:
    tag = tag_of(server.push_image(name, "v1"))
    one, two = entry(server, name, b"one"), entry(server, name, b"two")

    def said(*entries: dict[str, Any], **fields: Any) -> bytes:
        return json.dumps({**json.loads(signatures(server, name, *entries)), **fields}).encode()

    assert put(server, name, tag, said(one, annotations={"signature": "MEUC"}, artifactType="a/b")) == 201
    for less in (
        said(one, two),
        said(one, two, artifactType="a/b"),
        said(one, two, annotations={"signature": "MEUC"}),
        said(one, two, annotations={"signature": "forged"}, artifactType="a/b"),
        said(one, annotations={"signature": "MEUC", "more": "x"}, artifactType="a/b"),
    ):
        assert put(server, name, tag, less) == 409
    more = said(one, two, annotations={"signature": "MEUC"}, artifactType="a/b")
    assert put(server, name, tag, more) == 201


def test_what_lists_nothing_is_its_config(server: RegistryServer, name: str) -> None:
    tag = tag_of(server.push_image(name, "v1"), ".att")
    assert put(server, name, tag, signatures(server, name)) == 201
    assert put(server, name, tag, signatures(server, name, entry(server, name, b"one"))) == 409
