"""Reports of scanners that are recognised and not read: what they are, and what to import instead."""

from __future__ import annotations

from typing import Final

from digestry.model.json_values import JsonObject, as_object, as_text

_HARBOR: Final = "application/vnd.security.vulnerability.report"


def reason_not_to_read(value: JsonObject) -> str:
    """Return what a JSON object is, and what to do; empty for one of an unknown kind."""
    kind, instead = _recognised(value)
    return f"it is {kind}, which is not read: {instead}" if kind else ""


def _recognised(value: JsonObject) -> tuple[str, str]:
    scan = as_object(value.get("scan"))
    if "vulnerabilities" in value and as_text(scan.get("type")):
        scanner = as_text(as_object(scan.get("scanner")).get("name"))[:40] or "its scanner"
        return "a report for GitLab", f"let {scanner} write SARIF, CycloneDX or its own JSON"
    if "imageScanFindings" in value:
        return (
            "a report of Amazon ECR",
            "export SARIF or CycloneDX from Amazon Inspector, or use digestry scan",
        )
    if any(name.startswith(_HARBOR) for name in value):
        return "a report of Harbor", "use digestry scan, or the scanner's own report"
    if "manifest_hash" in value and "package_vulnerabilities" in value:
        return "a report of Clair", "use digestry scan, or another scanner's report"
    if isinstance(as_object(value.get("data")).get("Layer"), dict):
        return "a report of Quay", "use digestry scan, or another scanner's report"
    if "artifacts" in value and "source" in value and "matches" not in value:
        return "a list of packages", "let a scanner read it, as in: grype sbom:FILE --output json"
    return "", ""
