"""The report as SARIF 2.1.0, for code scanning: one rule per vulnerability, one result per container."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.reports.sarif_log import address_segment, message_text, write_log
from digestry.audit.reports.words import container_name, place, short_reference, statement_words
from digestry.inventory.observation import Unseen
from digestry.model.json_values import JsonObject
from digestry.model.text import printable

FINGERPRINT: Final = "digestryContainer/v1"
"""Covers host, namespace, name, rule and image, so that a container that was only restarted from the
same image is the same result."""

_UNTAGGED: Final = "tag-never-pointed-here"
_UNKNOWN: Final = "not-known"
_MOVED: Final = "tag-moved"
_NOT_ASSESSED: Final = "not-assessed"
_OWN_RULES: Final[dict[str, tuple[str, str]]] = {
    _UNTAGGED: ("A container runs what its tag never pointed to", "error"),
    _UNKNOWN: ("It is not known what a container runs, or whether it is vulnerable", "warning"),
    _NOT_ASSESSED: ("Nobody has stated whether the image that a container runs is vulnerable", "note"),
    _MOVED: ("A container's tag has moved away from what it runs", "note"),
}
_ENCODER: Final = msgspec.json.Encoder()


def write(report: AuditReport) -> Iterator[str]:
    """Yield the log in pieces, with one line for each result."""
    rules = _rules(report)
    index = {name: position for position, name in enumerate(rules)}
    return write_log(rules.values(), map(_problem, report.problems), _results(report.findings, index))


def _rules(report: AuditReport) -> dict[str, JsonObject]:
    """Return the rules by their IDs: one for each vulnerability, and digestry's own."""
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        for advisory in finding.assessment.advisories:
            if advisory.statement.status == "affected":
                found.setdefault(advisory.statement.vulnerability, list(advisory.statement.aliases))
    rules: dict[str, JsonObject] = {
        printable(name): {
            "id": printable(name),
            "shortDescription": {"text": message_text(f"A container runs an image with {name}")},
            "fullDescription": {
                "text": message_text(
                    f"An OpenVEX statement says that the image is affected by {name}."
                    + (f" Also known as {', '.join(aliases)}." if aliases else "")
                )
            },
            "defaultConfiguration": {"level": "error"},
            "properties": {"tags": ["security", "container"]},
        }
        for name, aliases in found.items()
        if name not in _OWN_RULES
    }
    return rules | {
        name: {
            "id": name,
            "shortDescription": {"text": text},
            "defaultConfiguration": {"level": level},
            "properties": {"tags": ["container"]},
        }
        for name, (text, level) in _OWN_RULES.items()
    }


def _results(findings: Iterable[ContainerFinding], index: dict[str, int]) -> Iterator[JsonObject]:
    for finding in findings:
        state, tag = finding.assessment.state, finding.tag.state
        # One result for each vulnerability, of any component.
        messages: dict[str, list[str]] = {}
        for advisory in finding.assessment.advisories:
            if advisory.statement.status == "affected":
                name = printable(advisory.statement.vulnerability)
                messages.setdefault(name, []).append(statement_words(advisory))
        for name, several in messages.items():
            yield _result(finding, name, "error", index, "; ".join(several))
        if tag == "never":
            yield _result(finding, _UNTAGGED, "error", index, "its tag never pointed to what runs")
        if state == "unknown":
            yield _result(finding, _UNKNOWN, "warning", index, "; ".join(finding.reasons))
        elif state == "not_assessed":
            yield _result(finding, _NOT_ASSESSED, "note", index, "nobody has assessed it")
        if tag == "moved" and state not in {"affected", "unknown"}:
            yield _result(finding, _MOVED, "note", index, "its tag points elsewhere now")


def _result(finding: ContainerFinding, rule: str, level: str, index: dict[str, int], why: str) -> JsonObject:
    seen, identity = finding.container, finding.identity
    running = "" if identity is None else str(identity.running)
    names = [name for name in (seen.host, seen.namespace, seen.name or seen.id) if name]
    uri = "/".join(map(address_segment, names)) or "container"
    parts = [seen.host, seen.namespace, seen.name or seen.id, rule, running]
    fingerprint = hashlib.sha256(_ENCODER.encode(parts)).hexdigest()
    message = (
        f"{place(finding)} runs {running or 'an unknown image'}, started as"
        f" {short_reference(seen.image.reference)}: {why}. {finding.action[:1].upper()}{finding.action[1:]}."
    )
    return {
        "ruleId": rule,
        "ruleIndex": index.get(rule, -1),
        "kind": "fail",
        "level": level,
        "message": {"text": message_text(message)},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": uri}},
                "logicalLocations": [
                    {
                        "name": printable(container_name(finding)),
                        "fullyQualifiedName": printable("/".join(names)) or "container",
                        "kind": "container",
                    }
                ],
            }
        ],
        "partialFingerprints": {FINGERPRINT: fingerprint},
        "properties": {
            "host": printable(seen.host),
            "namespace": printable(seen.namespace),
            "containerId": printable(seen.id),
            "reference": printable(seen.image.reference or ""),
            "runningDigest": running,
            "advisoryState": finding.assessment.state,
            "tagState": finding.tag.state,
        },
    }


def _problem(problem: Unseen) -> str:
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{problem.source}: {problem.message}{hint}"
