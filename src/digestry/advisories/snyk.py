"""Reading Snyk's JSON reports on images (``snyk container test IMAGE --json``)."""

from __future__ import annotations

from digestry.advisories.scanner_reports import (
    MOST_FINDINGS,
    Finding,
    ScannedImage,
    as_document,
    package_name,
    scanned_image,
)
from digestry.advisories.statements import LONG_AGO, Document, UnreadableDocument
from digestry.advisories.values import read_severity
from digestry.model.json_values import JsonObject, as_list, as_object, as_text


def is_report(value: JsonObject) -> bool:
    """Return whether a JSON object is a report of Snyk."""
    return isinstance(value.get("vulnerabilities"), list) and "packageManager" in value and "ok" in value


def read_document(report: JsonObject) -> Document | UnreadableDocument:
    """Return the report as a document. One about a project of sources is unreadable.

    Snyk does not say when it made a report, nor its version: it is imported as of now.
    """
    if "docker" not in report:
        kind = as_text(report.get("packageManager"))[:40]
        return UnreadableDocument(
            f"it is Snyk's report on a project of {kind}, and not on an image: snyk container test IMAGE"
            " --json makes one"
        )
    applications = map(as_object, as_list(report.get("applications")))
    entries = [
        as_object(one)
        for part in (report, *applications)
        for one in as_list(part.get("vulnerabilities"))
        if not _is_of_a_license(as_object(one))
    ]
    faults = []
    if len(entries) > MOST_FINDINGS:
        faults.append(f"it has more than {MOST_FINDINGS} vulnerabilities: the others were not read")
    found: dict[Finding, None] = {}
    for position, entry in enumerate(entries[:MOST_FINDINGS], 1):
        finding = _finding(entry)
        if finding is None:
            faults.append(f"vulnerability {position} has no id")
        else:
            found.setdefault(finding)  # once for each way to the package
    return as_document(
        report, kind="Snyk", author="Snyk", image=_image(report), at=LONG_AGO, findings=list(found),
        faults=faults,
    )  # fmt: skip


def _is_of_a_license(entry: JsonObject) -> bool:
    return as_text(entry.get("type")) == "license"


def _finding(entry: JsonObject) -> Finding | None:
    identity = as_text(entry.get("id")).strip()
    others = as_object(entry.get("identifiers"))
    names = [*map(as_text, as_list(others.get("CVE"))), *map(as_text, as_list(others.get("GHSA"))), identity]
    names = list(dict.fromkeys(filter(None, names)))
    if not names:
        return None
    package, version = as_text(entry.get("packageName")), as_text(entry.get("version"))
    nearest = as_text(entry.get("nearestFixedInVersion"))
    fixes = [nearest] if nearest else [one for one in map(as_text, as_list(entry.get("fixedIn"))) if one]
    return Finding(
        vulnerability=names[0],
        package=package_name("", package, version),
        aliases=tuple(names[1:]),
        installed=version,
        fixed_in=" or ".join(fixes),
        severity=read_severity(as_text(entry.get("severity"))),
        title=as_text(entry.get("title"))[:200],
    )


def _image(report: JsonObject) -> ScannedImage | None:
    """Return the image by the name that it was tested by. A platform or an archive names none."""
    path = as_text(report.get("path"))
    name = path.partition(":")[2] if path.startswith(("docker-archive:", "oci-archive:")) else path
    image_id = as_text(as_object(report.get("docker")).get("imageId"))
    is_file = name != path or name.endswith(".tar")
    return scanned_image(() if is_file else (name,), (image_id,))
