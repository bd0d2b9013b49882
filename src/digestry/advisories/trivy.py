"""Reading the JSON reports of Trivy (``trivy image --format json``, schema version 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from digestry.advisories.scanner_reports import (
    MOST_FINDINGS,
    Finding,
    ScannedImage,
    as_document,
    package_name,
    read_report_time,
    read_severity,
    scanned_image,
)
from digestry.advisories.statements import Document, Status, UnreadableDocument
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_STATUSES: Final[dict[str, Status]] = {
    "not_affected": "not_affected",
    "under_investigation": "under_investigation",
}
"""Trivy's statuses of a package; every other status, such as ``fixed`` in a later version, is affected."""
_IMAGE: Final = "container_image"


def is_report(value: JsonObject) -> bool:
    """Return whether a JSON object is a report of Trivy."""
    return "ArtifactName" in value and ("SchemaVersion" in value or "Results" in value)


def read_document(report: JsonObject) -> Document | UnreadableDocument:
    """Return the report as a document. One about a directory or a repository of sources is unreadable."""
    kind = as_text(report.get("ArtifactType"))
    if kind and kind != _IMAGE:
        return UnreadableDocument(f"it is Trivy's report on a {kind[:40]}, and not on an image")
    results = report.get("Results")
    if results is not None and not isinstance(results, list):
        return UnreadableDocument("the Results of its Trivy report are not a list")
    at = read_report_time(as_text(report.get("CreatedAt")))
    if at is None:
        return UnreadableDocument(f"the CreatedAt of its Trivy report is {shown(report.get('CreatedAt'))}")
    findings: list[Finding] = []
    faults: list[str] = []
    for position, found in enumerate(_vulnerabilities(results or []), 1):
        if position > MOST_FINDINGS:
            faults.append(f"it has more than {MOST_FINDINGS} findings: the others were not read")
            break
        finding = _finding(as_object(found))
        if finding is None:
            faults.append(f"finding {position} has no VulnerabilityID")
        else:
            findings.append(finding)
    return as_document(
        report, kind="Trivy", author=_author(report), image=_image(report), at=at, findings=findings,
        faults=faults,
    )  # fmt: skip


def _vulnerabilities(results: list[object]) -> Iterator[object]:
    for result in results:
        yield from as_list(as_object(result).get("Vulnerabilities"))


def _finding(found: JsonObject) -> Finding | None:
    name = as_text(found.get("VulnerabilityID")).strip()
    if not name:
        return None
    package, version = as_text(found.get("PkgName")), as_text(found.get("InstalledVersion"))
    purl = as_text(as_object(found.get("PkgIdentifier")).get("PURL"))
    return Finding(
        vulnerability=name,
        package=package_name(purl, package, version),
        aliases=tuple(filter(None, map(as_text, as_list(found.get("VendorIDs"))))),
        status=_STATUSES.get(as_text(found.get("Status")), "affected"),
        installed=version,
        fixed_in=as_text(found.get("FixedVersion")),
        severity=read_severity(as_text(found.get("Severity"))),
        title=as_text(found.get("Title")),
    )


def _image(report: JsonObject) -> ScannedImage | None:
    metadata = as_object(report.get("Metadata"))
    names = [*map(as_text, as_list(metadata.get("RepoDigests")))]
    names += [as_text(report.get("ArtifactName")), *map(as_text, as_list(metadata.get("RepoTags")))]
    return scanned_image(names, (as_text(metadata.get("ImageID")),))


def _author(report: JsonObject) -> str:
    version = as_text(as_object(report.get("Trivy")).get("Version"))
    return f"Trivy {version}" if version else "Trivy"
