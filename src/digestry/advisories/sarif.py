"""Reading SARIF 2.1.0 reports of scanners (OASIS): the results whose rules are vulnerabilities."""

from __future__ import annotations

import datetime
import re
from typing import Final

from digestry.advisories.scanner_reports import (
    MOST_FINDINGS,
    Finding,
    ScannedImage,
    as_document,
    read_report_time,
    scanned_image,
)
from digestry.advisories.statements import LONG_AGO, Document, UnreadableDocument
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_VULNERABILITY: Final = re.compile(
    r"(CVE-\d{4}-\d{4,}|GHSA(?:-[0-9a-z]{4}){3}|SNYK-[A-Z0-9]+-[A-Z0-9_]+-\d+"
    r"|[A-Z][A-Z0-9]*-(?:SA-)?\d{4}[-:]\d+)",
    re.ASCII,
)
"""The names of vulnerabilities, which a rule's ID is or begins with (Grype adds the package)."""
_IN_LAYER: Final = re.compile(r"(\S+)@sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128}):/", re.ASCII)
"""A file in a layer of an image, as Grype writes it."""
_SCORES: Final = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"))
_GOOD_KINDS: Final = frozenset({"pass", "notApplicable"})


def is_report(value: JsonObject) -> bool:
    """Return whether a JSON object is a SARIF log."""
    return isinstance(value.get("runs"), list) and (
        as_text(value.get("version")).startswith("2.") or "sarif" in as_text(value.get("$schema")).lower()
    )


def read_document(log: JsonObject) -> list[Document | UnreadableDocument]:
    """Return a document for each run of the log. A run names its image in its properties, as Trivy's do."""
    runs = [as_object(run) for run in as_list(log.get("runs"))]
    return [_document(run) for run in runs] or [UnreadableDocument("its SARIF log has no run")]


def _document(run: JsonObject) -> Document | UnreadableDocument:
    results = run.get("results")
    if results is not None and not isinstance(results, list):
        return UnreadableDocument("the results of its SARIF log are not a list")
    driver = as_object(as_object(run.get("tool")).get("driver"))
    rules = {as_text(as_object(rule).get("id")): as_object(rule) for rule in as_list(driver.get("rules"))}
    findings: list[Finding] = []
    others = 0
    for result in map(as_object, (results or [])[:MOST_FINDINGS]):
        if as_text(result.get("kind")) in _GOOD_KINDS or _is_suppressed(result):
            continue
        finding = _finding(result, rules)
        if finding is None:
            others += 1
        else:
            findings.append(finding)
    faults = [f"{others} of its results are about something else than a vulnerability"] if others else []
    if len(results or []) > MOST_FINDINGS:
        faults.append(f"it has more than {MOST_FINDINGS} results: the others were not read")
    name = as_text(driver.get("fullName")) or as_text(driver.get("name")) or "a scanner"
    version = as_text(driver.get("version")) or as_text(driver.get("semanticVersion"))
    author = f"{name} {version}" if version and version not in name else name
    return as_document(
        run, kind="SARIF", author=author, image=_image(as_object(run.get("properties"))) or _located(results),
        at=_time(run) or LONG_AGO, findings=findings, faults=faults,
    )  # fmt: skip


def _finding(result: JsonObject, rules: dict[str, JsonObject]) -> Finding | None:
    """Return the vulnerability that a result is about; None if it is about none."""
    identity = as_text(result.get("ruleId")) or as_text(as_object(result.get("rule")).get("id"))
    match = _VULNERABILITY.match(identity)
    if match is None:
        return None
    rule = rules.get(identity, {})
    return Finding(
        vulnerability=match[1],
        package=_package(as_object(rule.get("properties"))),
        severity=_severity(as_object(rule.get("properties"))),
        title=_first_line(rule.get("shortDescription")) or _first_line(result.get("message")),
    )


def _first_line(message: object) -> str:
    return as_text(as_object(message).get("text")).strip().partition("\n")[0][:200]


def _severity(properties: JsonObject) -> str:
    """Return the severity of a rule, by the score from 0.0 to 10.0 that code scanning reads."""
    score = properties.get("security-severity")
    try:
        number = float(score) if isinstance(score, str | int | float) else -1.0
    except ValueError:
        return ""
    return next((word for least, word in _SCORES if number >= least), "")


def _is_suppressed(result: JsonObject) -> bool:
    """Return whether somebody has accepted that this is no finding (SARIF 2.1.0, 3.27.23)."""
    states = [as_text(as_object(one).get("status")) for one in as_list(result.get("suppressions"))]
    return bool(states) and all(state in {"", "accepted"} for state in states)


def _image(properties: JsonObject) -> ScannedImage | None:
    names = [*map(as_text, as_list(properties.get("repoDigests"))), as_text(properties.get("imageName"))]
    names += map(as_text, as_list(properties.get("repoTags")))
    return scanned_image(names, (as_text(properties.get("imageID")),))


def _package(properties: JsonObject) -> str:
    """Return the package URL of a rule, if it has one, as Grype's rules have."""
    purls = [as_text(purl) for purl in as_list(properties.get("purls"))]
    return purls[0] if len(purls) == 1 else ""


def _located(results: object) -> ScannedImage | None:
    """Return the image of all results' places, which Grype writes before the layer and the file."""
    names = set()
    for result in map(as_object, as_list(results)[:MOST_FINDINGS]):
        for location in map(as_object, as_list(result.get("locations"))):
            for place in map(as_object, as_list(location.get("logicalLocations"))):
                match = _IN_LAYER.match(as_text(place.get("fullyQualifiedName")))
                names.add("" if match is None else match[1])
    return scanned_image(names, ()) if len(names) == 1 else None


def _time(run: JsonObject) -> datetime.datetime | None:
    """Return when the scanner ran; None if the log does not say it."""
    for invocation in map(as_object, as_list(run.get("invocations"))):
        for key in ("endTimeUtc", "startTimeUtc"):
            at = read_report_time(as_text(invocation.get(key)))
            if at is not None:
                return at
    return None
