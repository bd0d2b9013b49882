"""Bills of materials: which images they list, and that a list does not show what runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from digestry.inventory.formats.purl import read_purl, read_url
from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.inventory.sources.file import FileSource
from tests.inventory.fakes import without_notes

A, B = ("sha256:" + letter * 64 for letter in "ab")
QUOTED = quote(A, safe="")


def observe(tmp_path: Path, document: Any) -> list[Any]:
    path = tmp_path / "sbom.json"
    path.write_text(json.dumps(document, indent=2))
    return without_notes(FileSource("file:sbom", str(path)).observe())


def told(seen: ContainerObservation) -> tuple[str, str | None, list[tuple[str | None, str]]]:
    claims = [(one.repository.name if one.repository else None, str(one.digest)) for one in seen.image.claims]
    return seen.name, seen.image.reference, claims


@pytest.mark.parametrize(
    ("purl", "reference", "named"),
    [
        (
            f"pkg:oci/app@{QUOTED}?repository_url=reg.example/team/app&tag=1&arch=arm64",
            f"reg.example/team/app:1@{A}",
            True,
        ),
        (f"pkg:oci/app@{QUOTED}?repository_url=reg.example%2Fteam", f"reg.example/team/app@{A}", True),
        (
            f"pkg:oci/alpine@{A}?repository_url=index.docker.io/library/alpine",
            f"docker.io/library/alpine@{A}",
            True,
        ),
        (f"pkg:oci/app@{QUOTED}", f"docker.io/library/app@{A}", False),
        ("pkg:docker/team/app@1.5", "docker.io/team/app:1.5", True),
        ("pkg:docker/cassandra@latest", "docker.io/library/cassandra:latest", True),
        (
            f"pkg:docker/customer/dockerimage@{A}?repository_url=gcr.io",
            f"gcr.io/customer/dockerimage@{A}",
            True,
        ),
        ("pkg:docker/app@1?repository_url=https://reg.example:5000/#x", "reg.example:5000/app:1", True),
    ],
)
def test_package_urls(purl: str, reference: str, *, named: bool) -> None:
    found = read_purl(purl)
    assert (str(found.reference), found.registry_named) == (reference, named)


def test_urls() -> None:
    assert str(getattr(read_url("docker://reg.example/app:1"), "reference", "")) == "reg.example/app:1"
    assert read_url("https://reg.example/app") is None
    assert read_url("oci://") is None


CYCLONEDX: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "metadata": {
        "component": {
            "bom-ref": "root",
            "type": "container",
            "name": "reg.example/team/app:1",
            "version": A,
            "purl": f"pkg:oci/app@{QUOTED}?repository_url=reg.example%2Fteam%2Fapp&arch=amd64",
            "properties": [
                {"name": "aquasecurity:trivy:RepoTag", "value": "reg.example/team/app:1"},
                {"name": "aquasecurity:trivy:SchemaVersion", "value": "2"},
            ],
        }
    },
    "components": [
        {"type": "library", "name": "openssl", "version": "3.0", "purl": "pkg:deb/debian/openssl@3.0"},
        {
            "type": "application",
            "name": "shop",
            "components": [
                {
                    "type": "container",
                    "name": "cache",
                    "version": "7",
                    "bom-ref": "cache",
                    "hashes": [{"alg": "SHA-256", "content": "b" * 64}, {"alg": "MD5", "content": "0"}],
                    "externalReferences": [{"type": "distribution", "url": "docker://reg.example/cache:7"}],
                },
                {"type": "container", "name": "Not A Name!", "version": ""},
            ],
        },
        {"type": "container", "name": "bad", "purl": "pkg:oci/bad@sha256:12"},
    ],
}


def test_cyclonedx(tmp_path: Path) -> None:
    for version in ("1.4", "1.5", "1.6"):
        found = observe(tmp_path, CYCLONEDX | {"specVersion": version})
        rows = [one for one in found if isinstance(one, ContainerObservation)]
        assert [told(one) for one in rows] == [
            ("reg.example/team/app:1", f"reg.example/team/app@{A}", [("reg.example/team/app", A)]),
            ("cache", "reg.example/cache:7", [(None, B)]),
            ("Not A Name!", None, []),
        ]
        assert str(rows[0].image.platform) == "linux/amd64"
        assert not any(one.runs for one in rows)
        assert all("does not show that it runs" in one.remarks[0] for one in rows)
        assert {one.host for one in rows} == {"listed, not running"}
        assert not rows[1].image.claims[0].obtained  # nobody says what was hashed
        assert "no registry can be asked" in rows[2].remarks[1]
        (problem,) = [one for one in found if isinstance(one, Unseen)]
        assert "64 hex digits" in problem.message


def test_as_scanners_name_the_image_that_they_scanned(tmp_path: Path) -> None:
    component = {"type": "container", "name": "reg.example/app:1", "version": A}
    (seen,) = observe(tmp_path, {"bomFormat": "CycloneDX", "metadata": {"component": component}})
    assert told(seen) == ("reg.example/app:1", "reg.example/app:1", [("reg.example/app", A)])
    component = {"type": "container", "name": "alpine", "version": "3.18"}
    (seen,) = observe(tmp_path, {"bomFormat": "CycloneDX", "metadata": {"component": component}})
    assert (seen.image.reference, seen.image.registry_named) == ("docker.io/library/alpine:3.18", False)


def test_spdx_2(tmp_path: Path) -> None:
    document = {
        "spdxVersion": "SPDX-2.3",
        "packages": [
            {
                "name": "app",
                "SPDXID": "SPDXRef-1",
                "primaryPackagePurpose": "CONTAINER",
                "versionInfo": "1",
                "downloadLocation": "NOASSERTION",
                "checksums": [{"algorithm": "SHA256", "checksumValue": "b" * 64}],
                "externalRefs": [
                    {
                        "referenceCategory": "PACKAGE-MANAGER",
                        "referenceType": "purl",
                        "referenceLocator": f"pkg:oci/app@{QUOTED}?repository_url=reg.example/app",
                    }
                ],
            },
            {"name": "reg.example/side:2", "SPDXID": "SPDXRef-2", "primaryPackagePurpose": "CONTAINER"},
            {"name": "musl", "SPDXID": "SPDXRef-3", "primaryPackagePurpose": "LIBRARY"},
        ],
    }
    found = observe(tmp_path, document)
    assert [told(one) for one in found] == [
        ("app", f"reg.example/app@{A}", [("reg.example/app", A), (None, B)]),
        ("reg.example/side:2", "reg.example/side:2", []),
    ]
    # The same, as the predicate of an attestation.
    wrapped = {"_type": "https://in-toto.io/Statement/v1", "predicate": document}
    assert [told(one) for one in observe(tmp_path, wrapped)] == [told(one) for one in found]


def test_spdx_3(tmp_path: Path) -> None:
    document = {
        "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
        "@graph": [
            {"type": "CreationInfo", "@id": "_:x", "name": 7},
            {
                "type": "software_Package",
                "spdxId": "urn:1",
                "name": "app",
                "software_primaryPurpose": "container",
                "software_packageUrl": f"pkg:oci/app@{QUOTED}?repository_url=reg.example/app&tag=1",
                "verifiedUsing": [{"type": "Hash", "algorithm": "sha256", "hashValue": "b" * 64}],
            },
            {
                "type": "software_Package",
                "spdxId": "urn:2",
                "name": "side",
                "externalIdentifier": [
                    {
                        "type": "ExternalIdentifier",
                        "externalIdentifierType": "packageUrl",
                        "identifier": "pkg:docker/team/side@2",
                    }
                ],
            },
            {"type": "software_Package", "spdxId": "urn:3", "name": "musl"},
        ],
    }
    assert [told(one) for one in observe(tmp_path, document)] == [
        ("app", f"reg.example/app:1@{A}", [("reg.example/app", A), (None, B)]),
        ("side", "docker.io/team/side:2", []),
    ]


@pytest.mark.parametrize(
    "document",
    [
        {"bomFormat": "CycloneDX", "components": [{"type": "library", "name": "x"}]},
        {"bomFormat": "CycloneDX"},
        {"spdxVersion": "SPDX-2.3", "packages": []},
        {"@context": "x", "@graph": []},
    ],
)
def test_a_list_without_images(tmp_path: Path, document: Any) -> None:
    (problem,) = observe(tmp_path, document)
    assert isinstance(problem, Unseen)
    assert "lists no image" in problem.message
    assert "pkg:oci/" in problem.hint
