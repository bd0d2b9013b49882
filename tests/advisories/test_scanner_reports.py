"""Reports of Trivy and Grype, SARIF logs, and SPDX 3's security profile, as documents of statements."""

from __future__ import annotations

import json
from typing import Any

import pytest

from digestry.advisories import importing
from digestry.advisories.statements import Document, ForeignDocument, Statement, UnreadableDocument
from tests.advisories.signed import RECORDED

CONFIG = "sha256:" + "c" * 64
MANIFEST = "sha256:" + "a" * 64
MAKES_ONE = "trivy image IMAGE --format json makes one"
PURL = "pkg:apk/alpine/openssl@3.3.1-r0?arch=x86_64"


def read(value: object) -> Document:
    (document,) = importing.read_file(json.dumps(value).encode())
    assert isinstance(document, Document), document
    return document


def refused(value: object) -> str:
    (document,) = importing.read_file(json.dumps(value).encode())
    assert isinstance(document, UnreadableDocument), document
    return document.reason


def trivy(*vulnerabilities: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "SchemaVersion": 2,
        "Trivy": {"Version": "0.74.0"},
        "CreatedAt": "2026-11-27T22:44:27.904741332Z",
        "ArtifactName": "reg.example/app:1",
        "ArtifactType": "container_image",
        "Metadata": {"ImageID": CONFIG, "RepoDigests": [f"reg.example/app@{MANIFEST}"]},
        "Results": [{"Target": "alpine"}, {"Target": "app", "Vulnerabilities": list(vulnerabilities)}],
    } | more


def openssl(name: str = "CVE-1", **more: Any) -> dict[str, Any]:
    return {
        "VulnerabilityID": name, "PkgName": "openssl", "InstalledVersion": "3.3.1-r0",
        "FixedVersion": "3.3.2-r0", "Status": "fixed", "Severity": "HIGH", "Title": "a hole",
        "PkgIdentifier": {"PURL": PURL},
    } | more  # fmt: skip


def test_trivy_lists_packages_of_one_vulnerability_in_one_statement() -> None:
    libssl = openssl(PkgName="libssl", PkgIdentifier={"PURL": "pkg:apk/alpine/libssl@3.3.1-r0"})
    document = read(trivy(openssl(), libssl, openssl("CVE-2", Severity="LOW", FixedVersion="")))
    first, second = document.statements
    assert document.author == first.author == "Trivy 0.74.0"
    assert (first.vulnerability, first.status, first.severity) == ("CVE-1", "affected", "high")
    (product,) = first.products
    assert product.components == (PURL, "pkg:apk/alpine/libssl@3.3.1-r0")
    assert product.names == (f"reg.example/app@{MANIFEST}", "reg.example/app:1")
    assert product.hashes == (("sha256", "c" * 64),)
    assert first.action == "Update openssl to 3.3.2-r0, libssl to 3.3.2-r0."
    assert first.notes == "openssl 3.3.1-r0, libssl 3.3.1-r0 (high): a hole"
    assert first.timestamp.isoformat() == "2026-11-27T22:44:27.904741+00:00"
    assert (second.severity, second.action) == ("low", "")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("fixed", "affected"),
        ("affected", "affected"),
        ("will_not_fix", "affected"),
        ("end_of_life", "affected"),
        ("", "affected"),
        ("under_investigation", "under_investigation"),
        ("not_affected", "not_affected"),
    ],
)
def test_a_fix_of_a_package_does_not_make_the_image_fixed(said: str, status: str) -> None:
    (statement,) = read(trivy(openssl(Status=said))).statements
    assert statement.status == status


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"ArtifactType": "filesystem"},
            f"it is Trivy's report on a filesystem, and not on an image: {MAKES_ONE}",
        ),
        ({"CreatedAt": "yesterday"}, "the CreatedAt of its Trivy report is 'yesterday'"),
        ({"Results": "none"}, "the Results of its Trivy report are not a list"),
    ],
)
def test_a_report_that_cannot_be_used_says_why(change: dict[str, Any], reason: str) -> None:
    assert refused(trivy(**change)) == reason


def test_a_finding_without_a_name_is_a_fault_and_the_others_count() -> None:
    document = read(trivy(openssl(VulnerabilityID=" "), openssl(), 7))  # type: ignore[arg-type]
    assert len(document.statements) == 1
    assert document.faults == ("finding 1 has no VulnerabilityID", "finding 3 has no VulnerabilityID")


def test_a_report_without_findings_states_nothing() -> None:
    assert read(trivy(Results=None)).statements == ()


def grype(**more: Any) -> dict[str, Any]:
    return {
        "matches": [
            {
                "vulnerability": {
                    "id": "GHSA-xxxx-yyyy-zzzz", "severity": "Critical", "description": "long\nand longer",
                    "fix": {"versions": ["2.0", "1.9"], "state": "fixed"},
                },
                "relatedVulnerabilities": [{"id": "CVE-7"}],
                "artifact": {"name": "lib", "version": "1.0", "purl": "pkg:pypi/lib@1.0"},
            }
        ],
        "source": {
            "type": "image",
            "target": {
                "userInput": "reg.example/app:1", "imageID": CONFIG, "manifestDigest": MANIFEST,
                "repoDigests": [f"reg.example/app@{MANIFEST}"], "tags": ["reg.example/app:1"],
            },
        },
        "descriptor": {"name": "grype", "version": "0.90.0", "timestamp": "2026-11-27T10:00:00Z"},
    } | more  # fmt: skip


def test_grype() -> None:
    (statement,) = read(grype()).statements
    assert (statement.vulnerability, statement.aliases) == ("GHSA-xxxx-yyyy-zzzz", ("CVE-7",))
    assert (statement.status, statement.severity) == ("affected", "critical")
    assert statement.action == "Update lib to 2.0 or 1.9."
    assert statement.notes == "lib 1.0 (critical): long"
    (product,) = statement.products
    assert product.hashes == (("sha256", "a" * 64), ("sha256", "c" * 64))
    assert product.components == ("pkg:pypi/lib@1.0",)
    source = {"type": "directory", "target": "/src"}
    assert refused(grype(source=source)).startswith(
        "it is Grype's report on a directory, and not on an image: grype"
    )


def sarif(*results: dict[str, Any], **properties: Any) -> dict[str, Any]:
    rule = {
        "id": "CVE-2026-1", "shortDescription": {"text": "a hole"}, "properties": {"security-severity": "7.5"}
    }  # fmt: skip
    return {
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [
            {
                "tool": {"driver": {"name": "Scanner", "version": "3", "rules": [rule]}},
                "results": list(results),
                "invocations": [{"endTimeUtc": "2026-11-27T10:00:00Z"}],
                "properties": properties,
            }
        ],
    }


def test_sarif() -> None:
    log = sarif(
        {"ruleId": "CVE-2026-1", "message": {"text": "…"}},
        {"ruleId": "GHSA-aaaa-bbbb-cccc-lib", "message": {"text": "the lib"}},
        {"ruleId": "CVE-2026-2", "suppressions": [{"kind": "external", "status": "accepted"}]},
        {"ruleId": "CVE-2026-3", "suppressions": [{"kind": "external", "status": "rejected"}]},
        {"ruleId": "CVE-2026-4", "kind": "pass"},
        {"ruleId": "DS002", "message": {"text": "the last USER is root"}},
        imageName="reg.example/app:1",
        imageID=CONFIG,
    )
    document = read(log)
    assert [(one.vulnerability, one.severity, one.notes) for one in document.statements] == [
        ("CVE-2026-1", "high", "high: a hole"),
        ("GHSA-aaaa-bbbb-cccc", "", "the lib"),
        ("CVE-2026-3", "", ""),
    ]
    assert document.faults == ("1 of its results are about something else than a vulnerability",)
    assert document.author == "Scanner 3"
    assert document.statements[0].products[0].hashes == (("sha256", "c" * 64),)


def spdx(*elements: dict[str, Any]) -> dict[str, Any]:
    named: list[dict[str, Any]] = [
        {"type": "CreationInfo", "@id": "_:c", "created": "2026-11-20T00:00:00Z", "createdBy": ["urn:us"]},
        {"type": "Organization", "spdxId": "urn:us", "name": "Us", "creationInfo": "_:c"},
        {
            "type": "security_Vulnerability", "spdxId": "urn:v", "name": "a hole",
            "externalIdentifier": [{"externalIdentifierType": "cve", "identifier": "CVE-2026-9"}],
        },
        {
            "type": "software_Package", "spdxId": "urn:p",
            "software_packageUrl": f"pkg:oci/app@{MANIFEST}?repository_url=reg.example/app",
        },
    ]  # fmt: skip
    return {
        "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
        "@graph": [{"type": "SpdxDocument", "spdxId": "urn:d", "creationInfo": "_:c"}, *named, *elements],
    }


def assessment(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "type": f"security_Vex{kind}VulnAssessmentRelationship", "spdxId": "urn:a", "creationInfo": "_:c",
        "from": "urn:v", "to": ["urn:p"],
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        (assessment("Affected", security_actionStatement="update"), ("affected", "", "update")),
        (assessment("Fixed"), ("fixed", "", "")),
        (
            assessment("NotAffected", security_justificationType="componentNotPresent"),
            ("not_affected", "component_not_present", ""),
        ),
        (assessment("UnderInvestigation"), ("under_investigation", "", "")),
        (
            {
                "type": "Relationship", "relationshipType": "hasAssociatedVulnerability",
                "from": "urn:p", "to": ["urn:v"], "creationInfo": "_:c",
            },
            ("under_investigation", "", ""),
        ),
    ],
)  # fmt: skip
def test_spdx_3(element: dict[str, Any], expected: tuple[str, str, str]) -> None:
    (statement,) = read(spdx(element)).statements
    assert (statement.status, statement.justification, statement.action) == expected
    assert (statement.vulnerability, statement.aliases) == ("CVE-2026-9", ("a hole",))
    assert statement.author == "Us"
    assert statement.timestamp.isoformat() == "2026-11-20T00:00:00+00:00"
    assert statement.products[0].names[0].startswith("pkg:oci/app@")


@pytest.mark.parametrize(
    ("element", "fault"),
    [
        (assessment("Affected", **{"from": "urn:gone"}), ""),
        (assessment("Affected", **{"from": None}), "assessment 1: it is from no vulnerability"),
        (assessment("Affected", security_publishedTime="soon"), "assessment 1: its time is 'soon'"),
    ],
)
def test_an_assessment_that_cannot_be_read_is_a_fault(element: dict[str, Any], fault: str) -> None:
    document = read(spdx(element))
    if fault:
        assert (document.statements, document.faults) == ((), (fault,))
    else:
        # An ID is better than nothing: the vulnerability may be in another document.
        assert document.statements[0].vulnerability == "urn:gone"


def test_an_assessment_among_several_types_is_found() -> None:
    element = assessment("Affected") | {"type": ["Element", "security_VexAffectedVulnAssessmentRelationship"]}
    assert [one.status for one in read(spdx(element)).statements] == ["affected"]


def test_what_states_nothing_is_told_apart() -> None:
    (found,) = importing.read_file(json.dumps({"spdxVersion": "SPDX-2.3", "packages": []}).encode())
    assert isinstance(found, ForeignDocument)
    assert "not JSON" in refused_bytes(b"<xml/>")
    assert "of an unknown kind" in refused({"hello": "world"})


def refused_bytes(content: bytes) -> str:
    (document,) = importing.read_file(content)
    assert isinstance(document, UnreadableDocument)
    return document.reason


@pytest.mark.parametrize(
    ("severity", "least", "kept"),
    [
        ("high", "high", True),
        ("critical", "high", True),
        ("medium", "high", False),
        ("", "high", True),
        ("low", "", True),
    ],
)
def test_a_severity_that_is_not_known_is_not_left_out(severity: str, least: str, kept: bool) -> None:
    (statement,) = read(trivy(openssl(Severity=severity.upper()))).statements
    assert isinstance(statement, Statement)
    assert importing.is_at_least(statement, least) is kept


# -- what the programs themselves wrote ----------------------------------------------------------------

SCANNED = "localhost:5055/alpine@sha256:34ee4932003d065a93acded62f6cb29cb06124c36c7a283fb30cf286f490d2b9"


@pytest.mark.parametrize(
    ("name", "status", "author"),
    [
        ("grype.json", "affected", "Grype (database of 2026-11-28)"),
        ("grype.sarif", "affected", "grype 0.0.0-dev"),
        ("grype.cyclonedx.json", "under_investigation", ""),
    ],
)
def test_what_grype_wrote_names_its_image_and_the_package(name: str, status: str, author: str) -> None:
    document = read(json.loads((RECORDED / name).read_bytes()))
    (statement,) = document.statements
    assert (statement.vulnerability, statement.status, statement.author) == ("CVE-2026-4242", status, author)
    (product,) = statement.products
    image, (component,) = importing.image_and_components(product, document)
    assert SCANNED in image.names
    assert component.startswith("pkg:apk/alpine/openssl@3.3.1-r0")


@pytest.mark.parametrize("form", ["cyclonedx", "spdx", "syft"])
def test_what_syft_wrote_states_nothing(form: str) -> None:
    (read,) = importing.read_file((RECORDED / f"syft.{form}.json").read_bytes())
    assert isinstance(read, ForeignDocument), read


def test_a_sarif_log_of_several_images_names_none() -> None:
    log = json.loads((RECORDED / "grype.sarif").read_bytes())
    (run,) = log["runs"]
    other = json.loads(
        json.dumps(run["results"][0]).replace("localhost:5055/alpine@", "localhost:5055/other@")
    )
    run["results"].append(other)
    document = read(log)
    (product,) = {one.products[0] for one in document.statements}
    assert (product.names, product.hashes) == ((), ())
