"""Reading the JSON reports of Trivy (``trivy image --format json``, schema versions 1 and 2)."""

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
    scanned_image,
)
from digestry.advisories.statements import LONG_AGO, Document, Status, UnreadableDocument
from digestry.advisories.values import read_severity
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_STATUSES: Final[dict[str, Status]] = {
    "not_affected": "not_affected",
    "under_investigation": "under_investigation",
}
"""Trivy's statuses of a package; every other status, such as ``fixed`` in a later version, is affected."""
_IMAGE: Final = "container_image"
_PACKAGE_LISTS: Final = frozenset({"cyclonedx", "spdx"})
"""Types of artifacts that may be of an image, which Trivy does not know then."""


def is_report(value: JsonObject) -> bool:
    """Return whether a JSON object is a report of Trivy."""
    return "ArtifactName" in value and ("SchemaVersion" in value or "Results" in value)


def is_first_schema(value: object) -> bool:
    """Return whether a JSON value is a report of Trivy before 0.20: a list of results."""
    return isinstance(value, list) and bool(value) and all("Target" in as_object(result) for result in value)


def read_document(report: JsonObject) -> Document | UnreadableDocument:
    """Return the report as a document. One about a directory or a repository of sources is unreadable.

    Trivy says since 0.49 when it made a report: an older one is imported as of now.
    """
    kind = as_text(report.get("ArtifactType"))
    if kind and kind != _IMAGE and kind not in _PACKAGE_LISTS:
        return UnreadableDocument(
            f"it is Trivy's report on a {kind[:40]}, and not on an image: trivy image IMAGE --format json"
            " makes one"
        )
    results = report.get("Results")
    if results is not None and not isinstance(results, list):
        return UnreadableDocument("the Results of its Trivy report are not a list")
    said = report.get("CreatedAt")
    at = read_report_time(as_text(said)) if said else LONG_AGO
    if at is None:
        return UnreadableDocument(f"the CreatedAt of its Trivy report is {shown(said)}")
    findings, faults = read_findings(results or [])
    return as_document(
        report, kind="Trivy", author=author_of(report),
        image=None if kind in _PACKAGE_LISTS else _image(report), at=at, findings=findings, faults=faults,
    )  # fmt: skip


def read_findings(results: list[object]) -> tuple[list[Finding], list[str]]:
    """Return the vulnerabilities in the results of a report, and the faults: findings that cannot be read."""
    findings: list[Finding] = []
    faults: list[str] = []
    for position, found in enumerate(_vulnerabilities(results), 1):
        if position > MOST_FINDINGS:
            faults.append(f"it has more than {MOST_FINDINGS} findings: the others were not read")
            break
        finding = _finding(as_object(found))
        if finding is None:
            faults.append(f"finding {position} has no VulnerabilityID")
        else:
            findings.append(finding)
    return findings, faults


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
    return image_of(as_object(report.get("Metadata")), as_text(report.get("ArtifactName")))


def image_of(metadata: JsonObject, name: str = "") -> ScannedImage | None:
    """Return the image that ``metadata`` describes, scanned as ``name``; None if nothing names it."""
    names = [*map(as_text, as_list(metadata.get("RepoDigests")))]
    names += [name, *map(as_text, as_list(metadata.get("RepoTags")))]
    return scanned_image(names, (as_text(metadata.get("ImageID")),))


def author_of(report: JsonObject) -> str:
    """Return Trivy with its version, if the report says it."""
    version = as_text(as_object(report.get("Trivy")).get("Version"))
    return f"Trivy {version}" if version else "Trivy"
