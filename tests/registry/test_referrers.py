"""Referrers: the list of what has a subject, filtered, in pages."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.support import every_page, joined, next_path, put_manifest
from tests.support import RegistryServer, descriptor


def subject_of(digest: Digest) -> dict[str, Any]:
    return descriptor(media_types.OCI_MANIFEST, digest, 100)


def refer(registry: RegistryServer, name: str, subject: Digest, **extra: Any) -> Digest:
    """Pushes an artifact that refers to ``subject``; different at each call."""
    empty = Digest.of(b"{}")
    if registry.request("HEAD", f"/v2/{name}/blobs/{empty}").status != 200:
        registry.push_blob(name, b"{}")
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_EMPTY, empty, 2),
        "layers": [],
        "subject": subject_of(subject),
        "x-nonce": os.urandom(8).hex(),
        **extra,
    }
    raw = json.dumps(body).encode()
    answer = put_manifest(registry, name, str(Digest.of(raw)), raw)
    assert answer.status == 201, answer.body
    assert answer.headers["oci-subject"] == str(subject)
    return Digest.of(raw)


def listed(registry: RegistryServer, name: str, subject: Digest, query: str = "") -> list[dict[str, Any]]:
    answer = registry.request("GET", f"/v2/{name}/referrers/{subject}{query}")
    assert answer.status == 200
    assert answer.headers["content-type"] == media_types.OCI_INDEX
    body = answer.json()
    assert (body["schemaVersion"], body["mediaType"]) == (2, media_types.OCI_INDEX)
    found: list[dict[str, Any]] = body["manifests"]
    return found


def test_descriptors(registry: RegistryServer) -> None:
    name = "referrers/descriptors"
    subject = registry.push_image(name, "t")
    notes = {"org.example.k\u00e9y": "v\u00e4lue \U0001f433", "empty": ""}
    typed = refer(registry, name, subject, artifactType="application/x-sbom", annotations=notes)
    untyped = refer(registry, name, subject)  # its config's type stands for it
    blank = refer(registry, name, subject, artifactType="")
    by_digest = {item["digest"]: item for item in listed(registry, name, subject)}
    assert set(by_digest) == {str(typed), str(untyped), str(blank)}
    size = len(registry.request("GET", f"/v2/{name}/manifests/{typed}").body)
    assert by_digest[str(typed)] == {
        "mediaType": media_types.OCI_MANIFEST,
        "digest": str(typed),
        "size": size,
        "artifactType": "application/x-sbom",
        "annotations": notes,
    }
    for digest in (untyped, blank):
        assert by_digest[str(digest)]["artifactType"] == media_types.OCI_EMPTY
        assert "annotations" not in by_digest[str(digest)]


@pytest.mark.parametrize("kind", [None, "application/x-bundle"])
def test_index_as_referrer(registry: RegistryServer, kind: str | None) -> None:
    name = "referrers/index" if kind is None else "referrers/typed-index"
    subject = registry.push_image(name, "t")
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [],
        "subject": subject_of(subject),
    }
    if kind is not None:
        body["artifactType"] = kind
    raw = json.dumps(body).encode()
    assert put_manifest(registry, name, "i", raw, media_types.OCI_INDEX).headers["oci-subject"] == str(
        subject
    )
    (item,) = listed(registry, name, subject)
    assert item["mediaType"] == media_types.OCI_INDEX
    assert item.get("artifactType") == kind
    assert ("artifactType" in item) == (kind is not None)


def test_filter(registry: RegistryServer) -> None:
    name = "referrers/filter"
    subject = registry.push_image(name, "t")
    sbom = refer(registry, name, subject, artifactType="application/x-sbom")
    signature = refer(registry, name, subject, artifactType="application/x-signature+json")
    plain = refer(registry, name, subject)
    for query, wanted in [
        ("?artifactType=application/x-sbom", [sbom]),
        ("?artifactType=application/x-signature%2Bjson", [signature]),
        (f"?artifactType={media_types.OCI_EMPTY.replace('+', '%2B')}", [plain]),
        ("?artifactType=application/x", []),
        ("?artifactType=%25", []),
    ]:
        answer = registry.request("GET", f"/v2/{name}/referrers/{subject}{query}")
        assert answer.headers["oci-filters-applied"] == "artifactType"
        assert [item["digest"] for item in answer.json()["manifests"]] == [str(digest) for digest in wanted]
    for query in ("", "?artifactType="):
        answer = registry.request("GET", f"/v2/{name}/referrers/{subject}{query}")
        assert "oci-filters-applied" not in answer.headers
        assert len(answer.json()["manifests"]) == 3


def test_subject_that_is_not_there(registry: RegistryServer) -> None:
    subject = Digest.of(os.urandom(10))
    digest = refer(registry, "referrers/early", subject)
    assert [item["digest"] for item in listed(registry, "referrers/early", subject)] == [str(digest)]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_nobody_refers_to_it(registry: RegistryServer, algorithm: str) -> None:
    registry.push_blob("referrers/known", b"{}")
    digest = Digest.of(os.urandom(10), algorithm)
    for name in ("referrers/known", "referrers/never-seen"):
        assert listed(registry, name, digest) == []
        assert registry.request("HEAD", f"/v2/{name}/referrers/{digest}").status == 200


@pytest.mark.parametrize("digest", ["x", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "G" * 64, "latest", ""])
def test_what_is_no_digest(registry: RegistryServer, digest: str) -> None:
    answer = registry.request("GET", f"/v2/referrers/known/referrers/{digest}")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_of_other_repositories_and_deleted_ones_are_not_listed(registry: RegistryServer) -> None:
    name = "referrers/mine"
    subject = registry.push_image(name, "t")
    mine = refer(registry, name, subject)
    gone = refer(registry, name, subject)
    refer(registry, "referrers/others", subject)
    assert registry.request("DELETE", f"/v2/{name}/manifests/{gone}").status == 202
    assert [item["digest"] for item in listed(registry, name, subject)] == [str(mine)]
    # The subject's own end does not end what refers to it.
    assert registry.request("DELETE", f"/v2/{name}/manifests/{subject}").status == 202
    assert [item["digest"] for item in listed(registry, name, subject)] == [str(mine)]


@pytest.mark.long
def test_pages_by_count(registry: RegistryServer) -> None:
    name = "referrers/pages"
    subject = Digest.of(os.urandom(10))
    kinds = ["application/x-a", "application/x-b"]
    digests = [refer(registry, name, subject, artifactType=kinds[number % 2]) for number in range(510)]
    pages = every_page(registry, f"/v2/{name}/referrers/{subject}")
    assert [len(page.json()["manifests"]) for page in pages] == [500, 10]
    found = [item["digest"] for item in joined(pages, "manifests")]
    assert found == [str(digest) for digest in reversed(digests)]
    filtered = every_page(registry, f"/v2/{name}/referrers/{subject}?artifactType=application/x-b")
    assert {item["artifactType"] for item in joined(filtered, "manifests")} == {"application/x-b"}
    assert len(joined(filtered, "manifests")) == 255


@pytest.mark.long
def test_pages_by_bytes(registry: RegistryServer) -> None:
    """Large annotations do not add up to an answer that no client takes, nor fill the memory."""
    name = "referrers/heavy"
    subject = Digest.of(os.urandom(10))
    digests = [refer(registry, name, subject, annotations={"pad": "x" * 1_500_000}) for _ in range(5)]
    digests.append(refer(registry, name, subject, annotations={"pad": "x" * 4_000_000}))
    pages = every_page(registry, f"/v2/{name}/referrers/{subject}")
    assert len(pages) > 2
    assert all(len(page.body) < 4 << 20 for page in pages)
    assert [item["digest"] for item in joined(pages, "manifests")] == [str(one) for one in reversed(digests)]


def test_newest_first_and_a_page_that_stays_right(registry: RegistryServer) -> None:
    """Some scanners read the first advisory of the list, and no other."""
    name = "referrers/newest"
    subject = registry.push_image(name, "t")
    digests = [refer(registry, name, subject, annotations={"pad": "x" * 1_600_000}) for _ in range(4)]
    first = registry.request("GET", f"/v2/{name}/referrers/{subject}")
    shown = [item["digest"] for item in first.json()["manifests"]]
    following = next_path(first.headers)
    assert following is not None
    # What the page ended with goes, something newer comes, and an old one is pushed again.
    assert registry.request("DELETE", f"/v2/{name}/manifests/{shown[-1]}").status == 202
    newer = refer(registry, name, subject)
    raw = registry.request("GET", f"/v2/{name}/manifests/{digests[0]}").body
    assert put_manifest(registry, name, str(digests[0]), raw).status == 201
    rest = [item["digest"] for item in joined(every_page(registry, following), "manifests")]
    assert shown + rest == [str(digest) for digest in reversed(digests)]
    assert listed(registry, name, subject)[0]["digest"] == str(newer)


@pytest.mark.parametrize("last", ["x", "1", "sha256:" + "0" * 64, "-1.sha256:" + "0" * 64, "9" * 30 + ".x"])
def test_what_is_no_cursor(registry: RegistryServer, last: str) -> None:
    answer = registry.request("GET", f"/v2/referrers/known/referrers/{Digest.of(b'x')}?last={last}")
    assert answer.status == 400
