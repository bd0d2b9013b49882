"""Reading the JSON reports of Grype (``grype IMAGE --output json``)."""

from __future__ import annotations

from typing import Final

from digestry.advisories.scanner_reports import (
    MOST_FINDINGS,
    Finding,
    ScannedImage,
    as_document,
    package_name,
    read_report_time,
    scanned_image,
    with_database,
)
from digestry.advisories.statements import LONG_AGO, Document, UnreadableDocument
from digestry.advisories.values import read_severity
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_SOURCES: Final = frozenset({"directory", "file"})
"""Kinds of what was scanned that are no images. The kind of a list of packages is ``unknown``."""
_IMAGE: Final = "image"


def is_report(value: JsonObject) -> bool:
    """Return whether a JSON object is a report of Grype."""
    return isinstance(value.get("matches"), list) and (
        as_text(as_object(value.get("descriptor")).get("name")) == "grype" or "source" in value
    )


def read_document(report: JsonObject) -> Document | UnreadableDocument:
    """Return the report as a document. One about a directory or a file is unreadable; one about a list of
    packages may not say of which image that is."""
    source, descriptor = as_object(report.get("source")), as_object(report.get("descriptor"))
    kind = as_text(source.get("type"))
    if kind in _SOURCES:
        return UnreadableDocument(
            f"it is Grype's report on a {kind}, and not on an image: grype IMAGE --output json makes one"
        )
    said = descriptor.get("timestamp")  # since 0.56
    at = read_report_time(as_text(said)) if said else LONG_AGO
    if at is None:
        return UnreadableDocument(f"the time of its Grype report, descriptor.timestamp, is {shown(said)}")
    matches = as_list(report.get("matches"))
    findings: list[Finding] = []
    faults: list[str] = []
    if len(matches) > MOST_FINDINGS:
        faults.append(f"it has more than {MOST_FINDINGS} findings: the others were not read")
    for position, match in enumerate(matches[:MOST_FINDINGS], 1):
        finding = _finding(as_object(match))
        if finding is None:
            faults.append(f"match {position} has no vulnerability.id")
        else:
            findings.append(finding)
    image = _image(source.get("target")) if kind in {_IMAGE, ""} else None
    return as_document(
        report, kind="Grype", author=_author(descriptor), image=image, at=at, findings=findings,
        faults=faults,
    )  # fmt: skip


def _author(descriptor: JsonObject) -> str:
    """Return Grype with its version, if it knows it, and the date of its database."""
    version, database = as_text(descriptor.get("version")), as_object(descriptor.get("db"))
    built = as_text(as_object(database.get("status")).get("built")) or as_text(database.get("built"))
    name = f"Grype {version}" if version[:1].isdigit() else "Grype"
    return with_database(name, built)


def _finding(match: JsonObject) -> Finding | None:
    vulnerability, artifact = as_object(match.get("vulnerability")), as_object(match.get("artifact"))
    name = as_text(vulnerability.get("id")).strip()
    if not name:
        return None
    package, version = as_text(artifact.get("name")), as_text(artifact.get("version"))
    related = [as_text(as_object(one).get("id")) for one in as_list(match.get("relatedVulnerabilities"))]
    fixes = as_list(as_object(vulnerability.get("fix")).get("versions"))
    return Finding(
        vulnerability=name,
        package=package_name(as_text(artifact.get("purl")), package, version),
        aliases=tuple(filter(None, related)),
        installed=version,
        fixed_in=" or ".join(filter(None, map(as_text, fixes))),
        severity=read_severity(as_text(vulnerability.get("severity"))),
        title=as_text(vulnerability.get("description")).partition("\n")[0][:200],
    )


def _image(target: object) -> ScannedImage | None:
    about = as_object(target)
    names = [*map(as_text, as_list(about.get("repoDigests"))), as_text(about.get("userInput"))]
    names += map(as_text, as_list(about.get("tags")))
    return scanned_image(names, (as_text(about.get("manifestDigest")), as_text(about.get("imageID"))))
