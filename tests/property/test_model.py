"""What holds for every value of the model, and for every input that is none."""

from __future__ import annotations

import json
import pickle
import string
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from digestry.errors import (
    DigestryError,
    InvalidConfiguration,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
)
from digestry.model import media_types
from digestry.model.descriptor import LARGEST_SIZE, Descriptor, decode_hook, encode_hook
from digestry.model.digest import ALGORITHMS, Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Manifest, encode
from digestry.model.platform import Platform
from digestry.model.reference import Reference, check_repository, check_tag

# -- good values --------------------------------------------------------------------------------

digests = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(sorted(ALGORITHMS)))

_alphanumeric = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6)
_separators = st.sampled_from([".", "_", "__", "-", "--", "----"])


@st.composite
def components(draw: st.DrawFn) -> str:
    text = draw(_alphanumeric)
    for part in draw(st.lists(_alphanumeric, max_size=3)):
        text += draw(_separators) + part
    return text


repositories = st.one_of(
    st.lists(components(), min_size=1, max_size=4).map("/".join),
    st.sampled_from(["a" * 255, "a/" * 127 + "a", "library/a", "library/library/a", "localhost/a", "a.b/c"]),
    st.sampled_from(["sha256", "sha512", "f" * 64, "library/" + "f" * 64, "library/sha256"]),
)

_label = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,5}[A-Za-z0-9])?", fullmatch=True)
_ports = st.integers(1, 65535).map(lambda port: f":{port}")
_ipv6 = st.ip_addresses(v=6).map(lambda address: f"[{address.exploded}]")
hosts = st.one_of(
    st.lists(_label, min_size=2, max_size=4).map(".".join),
    st.builds("{}{}".format, _label, _ports),
    st.builds("{}{}".format, _ipv6, st.one_of(st.just(""), _ports)),
    st.builds("{}{}".format, st.ip_addresses(v=4).map(str), _ports),
    st.sampled_from(["docker.io", "index.docker.io", "localhost", "LOCALHOST", "Registry", "DOCKER.IO"]),
)
tags = st.one_of(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,10}", fullmatch=True),
    st.sampled_from(["latest", "T" * 128, "f" * 64]),
)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    host, repository = draw(hosts), draw(repositories)
    if host in {"docker.io", "index.docker.io"} and "/" not in repository:
        repository = repository[:247]  # "library/" is put before it
    return Reference(host, repository, draw(st.none() | tags), draw(st.none() | digests))


platforms = st.builds(
    Platform,
    st.sampled_from(["amd64", "arm64", "arm", "386", "aarch64", "x86_64", "armhf", "ppc64le", "wasm"]),
    st.sampled_from(["linux", "windows", "unknown"]),
    st.sampled_from([None, "", "v1", "v6", "v7", "v8", "7", "8", "power9"]),
    st.none() | st.text(max_size=5),
    st.none() | st.lists(st.text(max_size=5), max_size=2).map(tuple),
)


@st.composite
def descriptors(draw: st.DrawFn) -> Descriptor:
    content = draw(st.none() | st.binary(max_size=8))
    digest = draw(digests)
    if content is not None:
        digest = Digest.of(content, digest.algorithm)
    return Descriptor(
        draw(st.text(string.printable[:95], max_size=20)),
        digest,
        draw(st.integers(0, LARGEST_SIZE)) if content is None else len(content),
        urls=draw(st.none() | st.lists(st.text(max_size=5), max_size=2).map(tuple)),
        annotations=draw(st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)),
        data=content,
        platform=draw(st.none() | platforms),
    )


# -- there and back -----------------------------------------------------------------------------


@given(digests)
def test_a_digest_reads_back(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert hash(Digest.parse(str(digest))) == hash(digest)
    assert pickle.loads(pickle.dumps(digest)) == digest  # noqa: S301


@given(references())
def test_a_reference_reads_back_in_full_and_in_short(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
    assert Reference(reference.host, reference.repository, reference.tag, reference.digest) == reference
    # The full name means the same whatever the default is.
    assert Reference.parse(str(reference), default_host="localhost:5000") == reference


@given(repositories, hosts, st.none() | tags)
def test_a_name_without_a_host_is_the_default_hosts(repository: str, host: str, tag: str | None) -> None:
    assume("/" not in repository or "." not in repository.partition("/")[0])
    assume(not repository.startswith("localhost/"))
    text = repository if tag is None else f"{repository}:{tag}"
    try:
        parsed = Reference.parse(text, default_host=host)
    except InvalidReference:
        # It would be taken for a digest or an ID, or library/ makes it too long.
        assert repository in {"sha256", "sha512"} or len(repository) in {64, 255}
    else:
        assert parsed.tag == tag
        assert str(parsed).endswith(text)
        assert Reference.parse(str(parsed)) == parsed


@given(platforms)
def test_a_platform_reads_back(platform: Platform) -> None:
    text = msgspec.json.encode(platform)
    assert msgspec.json.decode(text, type=Platform) == platform
    once = platform.normalized()
    assert once.normalized() == once
    assert str(Platform.parse(str(platform)).normalized()) == str(once)


@given(descriptors())
def test_a_descriptor_reads_back(descriptor: Descriptor) -> None:
    text = msgspec.json.encode(descriptor, enc_hook=encode_hook)
    assert msgspec.json.decode(text, type=Descriptor, dec_hook=decode_hook) == descriptor


# -- documents: the bytes survive ---------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_known = {
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "subject",
    "artifactType",
    "annotations",
}
_unknown = st.dictionaries(st.text(max_size=8).filter(lambda key: key not in _known), _json, max_size=3)


@given(descriptors(), st.lists(descriptors(), max_size=3), _unknown, st.integers(0, 3), st.data())
def test_a_manifest_keeps_its_bytes_and_unknown_fields(
    config: Descriptor, layers: list[Descriptor], unknown: dict[str, Any], indent: int, data: st.DataObject
) -> None:
    fields = {"schemaVersion": 2, "config": config, "layers": layers, **unknown}
    shuffled = {key: fields[key] for key in data.draw(st.permutations(list(fields)))}
    raw = msgspec.json.format(encode(shuffled), indent=indent)
    manifest = Manifest.parse(raw)
    assert manifest.raw == raw
    assert manifest.digest == Digest.of(raw)
    assert manifest.config == config
    assert list(manifest.layers) == layers
    assert {key: value for key, value in json.loads(manifest.raw).items() if key in unknown} == unknown


@given(st.lists(descriptors(), max_size=3), _unknown, st.sampled_from(sorted(media_types.INDEXES)))
def test_an_index_keeps_its_bytes_and_unknown_fields(
    manifests: list[Descriptor], unknown: dict[str, Any], media_type: str
) -> None:
    raw = encode({**unknown, "schemaVersion": 2, "mediaType": media_type, "manifests": manifests})
    index = Manifest.parse(raw, media_type)
    assert (index.raw, index.digest, index.media_type) == (raw, Digest.of(raw), media_type)
    assert list(index.manifests) == manifests


@given(st.lists(digests, max_size=3), st.dictionaries(st.text(max_size=5), _json, max_size=3))
def test_a_config_keeps_its_bytes(diff_ids: list[Digest], settings_: dict[str, Any]) -> None:
    raw = encode({"os": "linux", "config": settings_, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    config = ImageConfig.parse(raw)
    assert (config.raw, config.digest) == (raw, Digest.of(raw))
    assert list(config.diff_ids) == diff_ids
    assert config.settings == settings_


# -- everything else: refused, by the right error, which says something -------------------------


T = TypeVar("T")


def attempt(parse: Callable[[], T], blamed: type[DigestryError]) -> T | None:
    """What ``parse`` gives; None if it refuses as it should. Any other error ends the test."""
    try:
        return parse()
    except blamed as error:
        refusal = error
    assert refusal.message
    assert refusal.message.isprintable()
    assert len(refusal.message) < 1000
    assert refusal.hint.isprintable()
    return None


_near_digests = st.builds(
    "{}{}{}".format,
    st.sampled_from(["sha256", "sha512", "SHA256", "md5", "", "sha256 ", "sha256+b64"]),
    st.sampled_from([":", "", "::", "@", "\N{FULLWIDTH COLON}"]),
    st.text(string.hexdigits + "\n\N{ARABIC-INDIC DIGIT ONE}", max_size=130),
)
_near_names = st.text("aA0./:@_-[]%\n \N{KELVIN SIGN}\N{LATIN SMALL LETTER LONG S}", max_size=30)


@given(st.text() | _near_digests | st.text(st.characters(categories=["Cs"]), max_size=3))
@example("sha256:" + "a" * 64 + "\n")
def test_digest_parse_takes_exactly_its_text(text: str) -> None:
    digest = attempt(lambda: Digest.parse(text), InvalidDigest)
    if digest is not None:
        assert str(digest) == text
        assert len(digest.encoded) == ALGORITHMS[digest.algorithm]
        assert set(digest.encoded) <= set("0123456789abcdef")


@given(st.text() | _near_names | _near_digests | st.text(st.characters(categories=["Cs"]), max_size=3))
@example("/" * 10_000)
@example("a:" + "t" * 10_000)
@example("a" * 10_000 + "!")
@example("a-" * 5_000 + "!")
def test_reference_parse_takes_names_only(text: str) -> None:
    reference = attempt(lambda: Reference.parse(text), InvalidReference)
    if reference is not None:
        assert str(reference).endswith(text.partition("/")[2] if "/" in text else text)
        assert Reference.parse(str(reference)) == reference
        assert reference.repository == check_repository(reference.repository)
        assert reference.tag is None or reference.tag == check_tag(reference.tag)


@given(st.text() | st.text("linux/amd64 \n*,", max_size=15))
def test_platform_parse_takes_platforms_only(text: str) -> None:
    platform = attempt(lambda: Platform.parse(text), InvalidConfiguration)
    if platform is not None:
        assert Platform.parse(str(platform)) == platform


_media_types = st.none() | st.sampled_from(sorted(media_types.MANIFESTS)) | st.text(max_size=10)


def parses_or_explains(raw: bytes, media_type: str | None) -> None:
    manifest = attempt(lambda: Manifest.parse(raw, media_type), InvalidManifest)
    if manifest is not None:
        assert (manifest.raw, manifest.digest) == (raw, Digest.of(raw))
    config = attempt(lambda: ImageConfig.parse(raw), InvalidManifest)
    if config is not None:
        assert (config.raw, config.digest) == (raw, Digest.of(raw))


@given(
    st.binary() | st.text().map(str.encode) | _json.map(lambda value: json.dumps(value).encode()),
    _media_types,
)
def test_garbage_is_no_document(raw: bytes, media_type: str | None) -> None:
    parses_or_explains(raw, media_type)


_odd = _json | st.sampled_from(
    [2, 1, -1, 2**63, 2**64, 1e300, 10**30, media_types.OCI_INDEX, media_types.OCI_MANIFEST]
)
_odd_descriptor = st.dictionaries(
    st.sampled_from(
        ["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType", "x"]
    ),
    _odd
    | st.sampled_from(["sha256:" + "a" * 64, "e30=", "sha256:"])
    | st.just({"os": "linux", "architecture": "arm"}),
)
_odd_fields = st.dictionaries(
    st.sampled_from([*sorted(_known), "os", "architecture", "rootfs", "history", "variant", "created"]),
    _odd | _odd_descriptor | st.lists(_odd_descriptor, max_size=2),
)


@pytest.mark.long
@given(_odd_fields, _media_types)
def test_near_documents_are_parsed_or_explained(fields: dict[str, Any], media_type: str | None) -> None:
    parses_or_explains(json.dumps({"schemaVersion": 2, **fields}).encode(), media_type)


_good = encode(
    {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": Descriptor("a/b", Digest.of(b"{}"), 2, data=b"{}", annotations={"k": "\u00e9"}),
        "layers": [Descriptor("c/d", Digest.of(b"l", "sha512"), 1, platform=Platform("arm", "linux"))],
    }
)


@given(st.integers(0, len(_good) - 1), st.integers(0, 3), st.binary(max_size=3))
def test_a_damaged_manifest_is_parsed_or_explained(at: int, lost: int, put: bytes) -> None:
    damaged = _good[:at] + put + _good[at + lost :]
    parses_or_explains(damaged, None)
    if damaged != _good:
        assert Digest.of(damaged) != Manifest.parse(_good).digest


def test_names_take_no_time_that_grows_faster_than_they_do() -> None:
    # A grammar with nested repeats can take exponential time to refuse; these end at once or never.
    for text in ("a" * 200 + "!", "a-" * 100 + "!", "a." * 100 + "/b!", "a/" * 100 + "!", "A-" * 100 + "./b"):
        with pytest.raises(InvalidReference):
            Reference.parse(text)
