"""Reading the results of scans that are attested: cosign's predicate ``vuln``, and in-toto's ``vulns``.

cosign's holds a report of the scanner's own, in any format; in-toto's lists vulnerabilities
(in-toto/attestation, spec/predicates/vuln.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from digestry.advisories import grype, sarif, trivy
from digestry.advisories.scanner_reports import (
    MOST_FINDINGS,
    Finding,
    as_document,
    read_report_time,
)
from digestry.advisories.statements import (
    LONG_AGO,
    Document,
    ForeignDocument,
    Product,
    Statement,
    UnreadableDocument,
)
from digestry.advisories.values import read_severity
from digestry.model.digest import Digest
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_TYPES: Final = ("https://cosign.sigstore.dev/attestation/vuln/", "https://in-toto.io/attestation/vulns")


def is_scan(predicate_type: str) -> bool:
    """Return whether an in-toto predicate type is that of a scan's result."""
    return predicate_type.startswith(_TYPES)


def is_predicate(value: JsonObject) -> bool:
    """Return whether a JSON object is a scan's result without the statement around it, as
    ``trivy image --format cosign-vuln`` writes it."""
    return "result" in as_object(value.get("scanner")) and isinstance(value.get("metadata"), dict)


def read_document(
    predicate: JsonObject, subjects: Iterable[Digest]
) -> Document | ForeignDocument | UnreadableDocument:
    """Return the result of a scan as a document about ``subjects``, whatever image the report itself names.

    One whose result is null is foreign.
    """
    read = read_predicate(predicate)
    if not isinstance(read, Document):
        return read
    hashes = tuple((subject.algorithm, subject.encoded) for subject in sorted(subjects))
    return replace(read, statements=tuple(_about(hashes, statement) for statement in read.statements))


def read_predicate(predicate: JsonObject) -> Document | ForeignDocument | UnreadableDocument:
    """Return the result of a scan as a document about the image that the report in it names."""
    scanner = as_object(predicate.get("scanner"))
    if "result" not in scanner:
        return UnreadableDocument("its scan has no result")
    result = scanner["result"]
    if result is None:
        return ForeignDocument("a scan whose result is null")
    if isinstance(result, list):
        return _listed(predicate, scanner, result)
    if isinstance(result, dict):
        return _report(_dated(result, predicate))
    return UnreadableDocument("the result of its scan is neither a report nor a list")


def _dated(result: JsonObject, predicate: JsonObject) -> JsonObject:
    """Return a scanner's report with the time of the scan, which Trivy's has since 0.49 only."""
    finished = as_text(as_object(predicate.get("metadata")).get("scanFinishedOn"))
    if finished and trivy.is_report(result) and not result.get("CreatedAt"):
        return {**result, "CreatedAt": finished}
    return result


def _report(result: JsonObject) -> Document | UnreadableDocument:
    """Return a scanner's own report."""
    if trivy.is_report(result):
        return trivy.read_document(result)
    if grype.is_report(result):
        return grype.read_document(result)
    if not sarif.is_report(result):
        return UnreadableDocument("the result of its scan is of an unknown kind")
    runs = sarif.read_document(result)
    read = [run for run in runs if isinstance(run, Document)]
    if len(read) < len(runs):
        return next(run for run in runs if isinstance(run, UnreadableDocument))
    return replace(
        read[0],
        statements=tuple(statement for run in read for statement in run.statements),
        faults=tuple(fault for run in read for fault in run.faults),
    )


def _listed(predicate: JsonObject, scanner: JsonObject, result: list[object]) -> Document:
    """Return a list of vulnerabilities, with what the predicate says of the scan."""
    findings: list[Finding] = []
    faults: list[str] = []
    for position, entry in enumerate(map(as_object, result[:MOST_FINDINGS]), 1):
        name = as_text(entry.get("id")).strip()
        if not name:
            faults.append(f"vulnerability {position} has no id")
            continue
        scores = [as_text(as_object(one).get("score")) for one in as_list(entry.get("severity"))]
        severity = next(filter(None, map(read_severity, scores)), "")
        findings.append(Finding(vulnerability=name, package="", severity=severity))
    if len(result) > MOST_FINDINGS:
        faults.append(f"it has more than {MOST_FINDINGS} vulnerabilities: the others were not read")
    metadata = as_object(predicate.get("metadata"))
    at = read_report_time(as_text(metadata.get("scanFinishedOn")))
    version = as_text(scanner.get("version"))
    name = as_text(scanner.get("uri")) or "a scanner"
    return as_document(
        predicate, kind="scan", author=f"{name} {version}" if version else name, image=None,
        at=at or LONG_AGO, findings=findings, faults=faults,
    )  # fmt: skip


def _about(hashes: tuple[tuple[str, str], ...], statement: Statement) -> Statement:
    components = tuple(
        dict.fromkeys(component for product in statement.products for component in product.components)
    )
    return replace(statement, products=(Product(hashes=hashes, components=components),) if hashes else ())
