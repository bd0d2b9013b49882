"""Signatures are no releases: the tags that collect them may grow where tags do not move, and only grow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from digestry.catalog.catalog import Catalog
from digestry.catalog.policy import Mode, TagPolicy, TagRule
from digestry.catalog.tags import TagRefused
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.catalog.support import ORIGIN, pushed


def of(catalog: Catalog, content: bytes, algorithm: str = "sha256") -> dict[str, object]:
    digest = Digest.of(content, algorithm)
    catalog.add_blob("rel/app", digest, len(content))
    return {"mediaType": "application/x", "digest": str(digest), "size": len(content)}


def signatures(catalog: Catalog, *contents: bytes) -> Manifest:
    config = of(catalog, b"{}")
    body = {"schemaVersion": 2, "config": config, "layers": [of(catalog, one) for one in contents]}
    return Manifest.parse(json.dumps(body).encode(), media_types.OCI_MANIFEST)


@pytest.fixture(params=["immutable", "write-once"])
def catalog(tmp_path: Path, request: pytest.FixtureRequest) -> Catalog:
    mode: Mode = request.param
    made = Catalog(tmp_path, policy=TagPolicy((TagRule(mode),)))
    made.migrate()
    return made


def put(catalog: Catalog, tag: str, manifest: Manifest) -> None:
    catalog.check_references("rel/app", manifest, tag_names=[tag])
    catalog.put_manifest("rel/app", manifest, tag_names=[tag], origin=ORIGIN)


@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom"])
def test_they_grow_and_what_they_had_is_known(catalog: Catalog, suffix: str) -> None:
    subject = pushed(catalog, "rel/app", ("v1",))
    tag = str(subject.digest).replace(":", "-") + suffix
    first, second = signatures(catalog, b"one"), signatures(catalog, b"two", b"one")
    put(catalog, tag, first)
    put(catalog, tag, second)
    put(catalog, tag, second)
    for smaller in (first, signatures(catalog, b"two", b"three"), signatures(catalog)):
        with pytest.raises(TagRefused):
            put(catalog, tag, smaller)
    with pytest.raises(TagRefused):
        catalog.restore_tag("rel/app", tag, first.digest, origin=ORIGIN)
    with pytest.raises(TagRefused):
        catalog.delete_tag("rel/app", tag, origin=ORIGIN)
    assert catalog.manifest("rel/app", first.digest) is not None
    assert catalog.verify_journal() is None


@pytest.mark.parametrize(
    "name",
    [
        "v1",
        "{subject}.sh",
        "{subject}-1",
        "{subject}.sig.x",
        "x{subject}.sig",
        "{subject}0.sig",
        "{nothing}.sig",
    ],
)
def test_other_tags_do_not_move(catalog: Catalog, name: str) -> None:
    subject = pushed(catalog, "rel/app", ("release",))
    nothing = "sha256-" + "0" * 64
    tag = name.format(subject=str(subject.digest).replace(":", "-"), nothing=nothing)
    put(catalog, tag, signatures(catalog, b"one"))
    with pytest.raises(TagRefused):
        put(catalog, tag, signatures(catalog, b"one", b"two"))


def test_the_referrers_of_a_longer_digest_are_found_by_its_beginning(catalog: Catalog) -> None:
    body = json.dumps({"schemaVersion": 2, "config": of(catalog, b"{}"), "layers": []}).encode()
    subject = Manifest.parse(body, media_types.OCI_MANIFEST, algorithm="sha512")
    put(catalog, "v1", subject)
    for tag in (f"sha512-{subject.digest.encoded[:64]}", f"sha512-{subject.digest.encoded[:64]}.sig"):
        put(catalog, tag, signatures(catalog, b"one"))
        put(catalog, tag, signatures(catalog, b"one", b"two"))


def test_a_subject_that_was_deleted_is_none(catalog: Catalog) -> None:
    loose = signatures(catalog, b"loose")
    catalog.put_manifest("rel/app", loose, origin=ORIGIN)
    tag = str(loose.digest).replace(":", "-") + ".sig"
    put(catalog, tag, signatures(catalog, b"one"))
    catalog.delete_manifest("rel/app", loose.digest, origin=ORIGIN)
    with pytest.raises(TagRefused):
        put(catalog, tag, signatures(catalog, b"one", b"two"))
