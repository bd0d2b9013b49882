"""Advisories and reports of other programs as statements that can be attached: what a file says, and new
statements in its place."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from digestry.advisories import grype, openvex_writer, sarif, trivy
from digestry.advisories.advisory import Advisory
from digestry.advisories.documents import decode_documents
from digestry.advisories.publish import NewStatement
from digestry.advisories.statements import (
    GOOD,
    LONG_AGO,
    SEVERITIES,
    Document,
    ForeignDocument,
    Statement,
    UnreadableDocument,
)
from digestry.model.json_values import JsonObject

REPORTS: Final = frozenset({"Trivy", "Grype", "SARIF"})
"""The kinds of documents that are reports of scanners."""
LARGEST_FILE: Final = 512 << 20
"""In bytes, of one file that is imported."""
_LONGEST_NOTE: Final = 400
_MOST_COMPONENTS: Final = 200
_JUSTIFICATIONS: Final = {
    "code_not_present": "vulnerable_code_not_present",
    "code_not_reachable": "vulnerable_code_not_in_execute_path",
    "requires_configuration": "vulnerable_code_cannot_be_controlled_by_adversary",
    "requires_dependency": "vulnerable_code_cannot_be_controlled_by_adversary",
    "requires_environment": "vulnerable_code_cannot_be_controlled_by_adversary",
    "protected_by_compiler": "inline_mitigations_already_exist",
    "protected_at_runtime": "inline_mitigations_already_exist",
    "protected_at_perimeter": "inline_mitigations_already_exist",
    "protected_by_mitigating_control": "inline_mitigations_already_exist",
}
"""CycloneDX's words for why something is not affected, in OpenVEX's."""


def read_file(content: bytes) -> list[Document | ForeignDocument | UnreadableDocument]:
    """Return the documents in a file: a scanner's report, or an advisory in any form that is attached."""
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        value = None  # JSON lines, or nothing that can be read
    if isinstance(value, dict):
        report = _read_report(value)
        if report:
            return list(report)
    return list(decode_documents(content))


def _read_report(value: JsonObject) -> Sequence[Document | UnreadableDocument]:
    """Return the documents of a scanner's report; empty if ``value`` is none."""
    if trivy.is_report(value):
        return [trivy.read_document(value)]
    if sarif.is_report(value):
        return sarif.read_document(value)
    if grype.is_report(value):
        return [grype.read_document(value)]
    return []


def is_at_least(statement: Statement, severity: str) -> bool:
    """Return whether a statement's severity is ``severity`` or more, or not known. An empty one is any."""
    if not severity or statement.severity not in SEVERITIES:
        return True
    return SEVERITIES.index(statement.severity) >= SEVERITIES.index(severity)


def as_new_statement(
    statement: Statement, components: Iterable[str], *, author: str, now: datetime.datetime
) -> NewStatement:
    """Return what is to be stated in place of ``statement``, about ``components`` of an image.

    A statement that has no time is made ``now``.
    """
    justification = ""
    note = (statement.notes or statement.impact)[:_LONGEST_NOTE]
    if statement.status == "not_affected":
        said = statement.justification
        justification = said if said in openvex_writer.JUSTIFICATIONS else _JUSTIFICATIONS.get(said, "")
        note = (statement.impact or statement.notes)[:_LONGEST_NOTE]
        if not justification and not note:
            note = f"{author} says so, and gives no reason"
    return NewStatement(
        vulnerability=statement.vulnerability,
        status=statement.status,
        author=author,
        timestamp=now if statement.timestamp == LONG_AGO else statement.timestamp,
        justification=justification,
        note=note,
        action=statement.action[:_LONGEST_NOTE] if statement.status == "affected" else "",
        aliases=statement.aliases,
        components=tuple(dict.fromkeys(components))[:_MOST_COMPONENTS],
    )


def merged(statements: Iterable[NewStatement]) -> list[NewStatement]:
    """Return ``statements`` about one image without repetitions: those that are equal but for their
    components are one, and of those about the same components the newest counts."""
    chosen: dict[tuple[object, ...], NewStatement] = {}
    for statement in statements:
        key = (statement.vulnerability, frozenset(statement.components))
        known = chosen.get(key)
        if known is None or known.timestamp < statement.timestamp:
            chosen[key] = statement
    return list(chosen.values())


def is_stated(statement: NewStatement, in_force: Iterable[Advisory]) -> bool:
    """Return whether ``in_force`` says, of all components of ``statement``, the same already."""
    said = {
        one.component
        for one in in_force
        if one.statement.vulnerability == statement.vulnerability
        and one.statement.status == statement.status
        and not one.product
    }
    return "" in said or bool(statement.components) and set(statement.components) <= said


def is_assessed(statement: NewStatement, in_force: Iterable[Advisory]) -> bool:
    """Return whether somebody has stated that the image does not have the vulnerability.

    A scanner compares versions; whoever stated that has looked, and scanners leave it out themselves.
    """
    names = {name.casefold() for name in (statement.vulnerability, *statement.aliases)}
    parts = {"", *statement.components}
    return any(
        one.statement.status in GOOD and not one.product and one.component in parts and names & one.names
        for one in in_force
    )
