"""Manifests and indexes: what real tools write is read, what no reader can be sure of is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from digestry.errors import InvalidDigest, InvalidManifest
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest, encode
from digestry.model.platform import Platform
from tests.model.documents import OTHER, SOME, descriptor, index, manifest, without

EMPTY = b"{}"


def refusal(raw: bytes, media_type: str | None = None) -> str:
    with pytest.raises(InvalidManifest) as raised:
        Manifest.parse(raw, media_type)
    return raised.value.message


def test_an_image_manifest() -> None:
    raw = manifest(annotations={"a": "b"})
    parsed = Manifest.parse(raw)
    assert parsed.raw is raw
    assert parsed.digest == Digest.of(raw)
    assert parsed.size == len(raw)
    assert parsed.media_type == media_types.OCI_MANIFEST
    assert not parsed.is_index
    assert parsed.config is not None
    assert parsed.config.media_type == media_types.OCI_CONFIG
    assert parsed.blobs() == (parsed.config, *parsed.layers)
    assert parsed.annotations == {"a": "b"}
    assert parsed.manifests == ()
    own = parsed.descriptor()
    assert (own.media_type, own.digest, own.size) == (parsed.media_type, parsed.digest, parsed.size)


def test_an_index() -> None:
    platform = {
        "architecture": "amd64",
        "os": "windows",
        "os.version": "10.0.17763.1",
        "os.features": ["win32k"],
        "features": ["sse4"],
        "variant": "",
    }
    parsed = Manifest.parse(index(manifests=[descriptor(platform=platform), descriptor(platform=None)]))
    assert parsed.is_index
    assert parsed.blobs() == ()
    first, second = parsed.manifests
    assert first.platform == Platform("amd64", "windows", "", "10.0.17763.1", ("win32k",))
    assert second.platform is None


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_digest_is_of_the_exact_bytes(algorithm: str) -> None:
    # Spaces, the order of keys, escapes and unknown fields all count.
    compact = manifest()
    spaced = json.dumps(json.loads(compact), indent=3, sort_keys=True).encode() + b"\n\n"
    extended = compact[:-1] + rb', "\u0078-unknown": {"a": [1, 2.50, null, "\u00e9"]}}'
    for raw in (compact, spaced, extended):
        parsed = Manifest.parse(raw, algorithm=algorithm)
        assert parsed.raw == raw
        assert parsed.digest == Digest.of(raw, algorithm)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InvalidDigest, match="md5"):
        Manifest.parse(manifest(), algorithm="md5")


@pytest.mark.parametrize("media_type", sorted(media_types.MANIFESTS))
def test_every_kind_by_what_it_says_and_by_what_it_came_as(media_type: str) -> None:
    document = index if media_type in media_types.INDEXES else manifest
    assert Manifest.parse(document(mediaType=media_type)).media_type == media_type
    for silent in (without(document(), "mediaType"), document(mediaType=None)):
        parsed = Manifest.parse(silent, media_type)
        assert parsed.media_type == media_type
        assert parsed.is_index == (media_type in media_types.INDEXES)


def test_without_a_media_type_the_fields_tell() -> None:
    assert Manifest.parse(without(manifest(), "mediaType")).media_type == media_types.OCI_MANIFEST
    assert Manifest.parse(without(index(), "mediaType")).media_type == media_types.OCI_INDEX
    assert 'neither "config" nor "manifests"' in refusal(b'{"schemaVersion": 2}')


def test_a_kind_that_disagrees_is_refused() -> None:
    said = refusal(manifest(), media_types.DOCKER_MANIFEST)
    assert media_types.OCI_MANIFEST in said
    assert media_types.DOCKER_MANIFEST in said
    assert "text/plain" in refusal(manifest(), "text/plain")
    assert "text/plain" in refusal(manifest(mediaType="text/plain"))
    assert "config" in refusal(without(index(), "mediaType"), media_types.OCI_MANIFEST)
    assert "manifests" in refusal(without(manifest(), "mediaType"), media_types.OCI_INDEX)


def test_a_document_that_is_both_kinds_is_refused() -> None:
    both = json.loads(index())["manifests"]
    assert "ambiguous" in refusal(manifest(manifests=both))
    assert "ambiguous" in refusal(index(layers=[]))
    assert "ambiguous" in refusal(index(config=descriptor()))
    assert "ambiguous" in refusal(without(manifest(manifests=both), "mediaType"))


# -- what real tools write ----------------------------------------------------------------------


def test_an_image_from_scratch_has_no_layers() -> None:
    assert Manifest.parse(manifest(layers=[])).layers == ()
    # A list that was never set is null in Go, and every client written in Go reads it as empty.
    assert Manifest.parse(manifest(layers=None)).layers == ()
    # Nor has it, as some build it, the key.
    assert Manifest.parse(without(manifest(), "layers")).layers == ()
    assert Manifest.parse(index(manifests=[])).manifests == ()
    assert Manifest.parse(index(manifests=None)).manifests == ()


def test_optional_fields_may_be_null() -> None:
    nothing = dict.fromkeys(("urls", "annotations", "data", "platform", "artifactType"))
    parsed = Manifest.parse(
        manifest(config=descriptor(**nothing), annotations=None, subject=None, artifactType=None)
    )
    assert parsed.config is not None
    assert parsed.config.annotations is None
    assert parsed.annotations == {}
    assert parsed.subject is None


@pytest.mark.parametrize(
    "media_type",
    ["", "application/octet-stream", "text/plain; charset=utf-8", "application/vnd.cncf.helm.config.v1+json"],
)
def test_what_a_registry_does_not_know_it_carries(media_type: str) -> None:
    parsed = Manifest.parse(manifest(config=descriptor(mediaType=media_type)))
    assert parsed.config is not None
    assert parsed.config.media_type == media_type


def test_a_manifest_list_of_docker_with_an_attestation() -> None:
    attestation = descriptor(
        mediaType=media_types.OCI_MANIFEST,
        platform={"architecture": "unknown", "os": "unknown"},
        annotations={"vnd.docker.reference.digest": str(SOME)},
    )
    raw = index(mediaType=media_types.DOCKER_LIST, manifests=[descriptor(), attestation])
    parsed = Manifest.parse(raw, media_types.DOCKER_LIST)
    assert str(parsed.manifests[1].platform) == "unknown/unknown"
    assert parsed.manifests[1].annotations == {"vnd.docker.reference.digest": str(SOME)}


def test_an_artifact_with_a_subject() -> None:
    subject = descriptor(mediaType=media_types.OCI_MANIFEST, digest=str(OTHER))
    parsed = Manifest.parse(manifest(artifactType="application/vnd.example", subject=subject))
    assert parsed.artifact_type == "application/vnd.example"
    assert parsed.subject is not None
    assert parsed.subject.digest == OTHER
    assert Manifest.parse(index(subject=subject, artifactType="a/b")).artifact_type == "a/b"


@pytest.mark.parametrize("absent", [None, ""])
def test_a_manifests_artifact_type_falls_back_to_its_configs(absent: str | None) -> None:
    assert Manifest.parse(manifest(artifactType=absent)).artifact_type == media_types.OCI_CONFIG
    assert Manifest.parse(index(artifactType=absent)).artifact_type is None


# -- embedded content ---------------------------------------------------------------------------


def embedded(content: bytes, **changes: Any) -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    return descriptor(digest=str(Digest.of(content)), size=len(content), data=data) | changes


@pytest.mark.parametrize("content", [b"", EMPTY, bytes(range(256))])
def test_embedded_data_is_the_content(content: bytes) -> None:
    parsed = Manifest.parse(manifest(config=embedded(content)))
    assert parsed.config is not None
    assert parsed.config.data == content


def test_embedded_data_by_sha512() -> None:
    strong = embedded(EMPTY, digest=str(Digest.of(EMPTY, "sha512")))
    assert Manifest.parse(manifest(layers=[strong])).layers[0].data == EMPTY


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"size": 3}, "has 2 bytes, but the size is 3"),
        ({"digest": str(SOME)}, f"does not match the digest {SOME}"),
        ({"data": "e30"}, "base64"),
        ({"data": "e3\n0="}, "base64"),
        ({"data": 5}, "$.layers[1].data"),
    ],
)
def test_other_embedded_data_is_refused(changes: dict[str, Any], complaint: str) -> None:
    said = refusal(manifest(layers=[embedded(EMPTY), embedded(EMPTY, **changes)]))
    assert complaint in said
    assert "$.layers[1]" in said


# -- what is refused, and where it says so ------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (manifest(schemaVersion="2"), "$.schemaVersion"),
        (manifest(schemaVersion=3), "$.schemaVersion"),
        (manifest(schemaVersion=True), "$.schemaVersion"),
        (manifest(schemaVersion=None), "$.schemaVersion"),
        (without(manifest(), "schemaVersion"), "`schemaVersion`"),
        (manifest(mediaType=5), "$.mediaType"),
        (without(manifest(), "config"), "`config`"),
        (manifest(config=None), "$.config"),
        (manifest(config=[]), "$.config"),
        (manifest(layers={}), "$.layers"),
        (manifest(layers=[None]), "$.layers[0]"),
        (manifest(layers=[descriptor(), descriptor(size=-1)]), "$.layers[1].size"),
        (manifest(layers=[descriptor(size=2**63)]), "$.layers[0].size"),
        (manifest(layers=[descriptor(size=2**64)]), "$.layers[0].size"),
        (manifest(layers=[descriptor(size=12.5)]), "$.layers[0].size"),
        (manifest(layers=[descriptor(size="12")]), "$.layers[0].size"),
        (manifest(layers=[descriptor(size=True)]), "$.layers[0].size"),
        (manifest(layers=[descriptor(size=None)]), "$.layers[0].size"),
        (manifest(layers=[descriptor(digest=None)]), "$.layers[0].digest"),
        (manifest(layers=[descriptor(digest="sha256:abc")]), "$.layers[0].digest"),
        (manifest(layers=[descriptor(digest="blake3:" + "a" * 64)]), "$.layers[0].digest"),
        (manifest(layers=[{"digest": str(SOME), "size": 1}]), "$.layers[0]"),
        (manifest(layers=[descriptor(mediaType=None)]), "$.layers[0].mediaType"),
        # These would go out in a header of the client's.
        (manifest(layers=[descriptor(mediaType="a/b\r\nX: y")]), "$.layers[0].mediaType"),
        (manifest(layers=[descriptor(mediaType="a/b\n")]), "$.layers[0].mediaType"),
        (manifest(layers=[descriptor(artifactType="a/b\x1b")]), "$.layers[0].artifactType"),
        (manifest(artifactType="a/\N{KELVIN SIGN}"), "$.artifactType"),
        (manifest(layers=[descriptor(urls="https://example.com")]), "$.layers[0].urls"),
        (manifest(annotations={"a": 1}), "$.annotations"),
        (manifest(annotations=["a"]), "$.annotations"),
        (manifest(subject="nope"), "$.subject"),
        (manifest(subject={}), "$.subject"),
        (without(index(), "manifests"), "`manifests`"),
        (index(manifests=[descriptor(platform={"os": 5})]), "$.manifests[0].platform"),
        (index(manifests=[descriptor(platform="linux/amd64")]), "$.manifests[0].platform"),
        (b"[]", "`array`"),
        (b"null", "`null`"),
        (b'"' + manifest()[1:-1].replace(b'"', b"'") + b'"', "`str`"),
    ],
)
def test_a_wrong_field_is_named(raw: bytes, place: str) -> None:
    assert place in refusal(raw)


def test_the_largest_size_is_an_int64() -> None:
    assert Manifest.parse(manifest(layers=[descriptor(size=2**63 - 1)])).layers[0].size == 2**63 - 1


@pytest.mark.parametrize("number", [b"9" * 5000, b"1e999", b"-0.0", b"1E400"])
def test_absurd_numbers_are_refused(number: bytes) -> None:
    assert "$.layers[0].size" in refusal(manifest(layers=[descriptor()]).replace(b"12}]", number + b"}]"))


def test_docker_schema_1_is_named() -> None:
    assert "schema 1" in refusal(b'{"schemaVersion": 1, "name": "a", "fsLayers": []}')
    assert "schema 1" in refusal(manifest(schemaVersion=1), media_types.OCI_MANIFEST)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"garbage",
        manifest() + b"x",
        manifest()[:-1],
        b"\xef\xbb\xbf" + manifest(),
        manifest().decode().encode("utf-16"),
        manifest()[:-1] + b', "x": NaN}',
        manifest()[:-1] + b', "artifactType": "\xff"}',
        manifest()[:-1] + b', "artifactType": "\\ud800"}',
    ],
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    assert "is not JSON" in refusal(raw)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused(opening: bytes, closing: bytes) -> None:
    depth = 100_000
    deep = b', "x": ' + opening * depth + b"1" + closing * depth + b"}"
    assert "nested too deeply" in refusal(manifest()[:-1] + deep)


def test_of_a_repeated_key_the_last_counts_as_in_go() -> None:
    raw = manifest(layers=[descriptor()])[:-1] + b', "layers": []}'
    assert Manifest.parse(raw).layers == ()
    raw = manifest(mediaType=media_types.OCI_INDEX)[:-1]
    raw += b', "mediaType": "' + media_types.OCI_MANIFEST.encode() + b'"}'
    assert Manifest.parse(raw).media_type == media_types.OCI_MANIFEST


def test_messages_are_printable_whatever_came() -> None:
    assert refusal(manifest(mediaType="\x1b[31m")).isprintable()
    assert refusal(manifest(), "\x1b[31m").isprintable()
    assert refusal(manifest(config=descriptor(digest="\x1b[31m"))).isprintable()
    assert refusal(manifest(annotations={"\x1b[31m": 1})).isprintable()


def test_encoding_new_content_repeats() -> None:
    descriptors = Manifest.parse(manifest(config=embedded(EMPTY))).blobs()
    once = encode({"schemaVersion": 2, "config": descriptors[0], "layers": descriptors[1:]})
    assert once == encode({"schemaVersion": 2, "config": descriptors[0], "layers": descriptors[1:]})
    assert b" " not in once
    again = Manifest.parse(once)
    assert again.blobs() == descriptors
    with pytest.raises(NotImplementedError):
        encode({"a": object()})


def test_a_null_beside_wrong_types_is_explained() -> None:
    raw = b'{"mediaType": null, "manifests": 2, "config": {"platform": null}}'
    with pytest.raises(InvalidManifest):
        Manifest.parse(raw)


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ({}, Platform()),
        ({"architecture": "arm64"}, Platform("arm64")),
        ({"os": "linux"}, Platform("", "linux")),
        ({"os": None, "architecture": "arm64", "variant": None, "features": None}, Platform("arm64")),
        ({"os": "linux", "architecture": "arm64", "what": {"is": ["this"]}}, Platform("arm64", "linux")),
        (None, None),
    ],
)
def test_platforms_that_say_little(platform: object, expected: Platform | None) -> None:
    raw = index(manifests=[descriptor(platform=platform)])
    parsed = Manifest.parse(raw)
    assert parsed.manifests[0].platform == expected
    assert parsed.raw == raw


@pytest.mark.long
@pytest.mark.parametrize("words", [0, 20_000])
def test_names_in_another_case_are_read_as_go_reads_them(words: int) -> None:
    """In large documents as in small ones; the last of two counts."""
    known = {"annotations": {str(number): "Words" for number in range(words)}}
    layers = [descriptor()]
    found = Manifest.parse(manifest(Layers=layers * 2, **known))
    assert len(found.layers) == 2
    assert len(Manifest.parse(manifest(LAYERS=None, **known)).layers) == len(
        Manifest.parse(manifest()).layers
    )
    assert len(found.annotations) == words
