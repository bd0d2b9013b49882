"""Advisories and reports of other programs as statements that can be attached: those of a file, and new
statements in their place."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from digestry.advisories import (
    cyclonedx,
    grype,
    openvex_writer,
    sarif,
    scan_predicates,
    snyk,
    trivy,
    trivy_kubernetes,
)
from digestry.advisories.advisory import Advisory
from digestry.advisories.documents import decode_documents
from digestry.advisories.products import is_package
from digestry.advisories.publish import NewStatement
from digestry.advisories.statements import (
    GOOD,
    LONG_AGO,
    SEVERITIES,
    Document,
    ForeignDocument,
    Product,
    Statement,
    UnreadableDocument,
)
from digestry.advisories.unread_reports import reason_not_to_read
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

REPORTS: Final = frozenset({"Trivy", "Grype", "SARIF", "Snyk", "scan"})
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

_MARK: Final = b"\xef\xbb\xbf"
"""The mark that some programs write before UTF-8 (RFC 8259, section 8.1: a reader may ignore it)."""


Read = Document | ForeignDocument | UnreadableDocument


def read_file(content: bytes, linked: Mapping[str, JsonObject] | None = None) -> list[Read]:
    """Return the documents in a file: a scanner's report, or an advisory in any form that is attached.

    ``linked`` are CycloneDX documents that the file may refer to, by their serial numbers' UUIDs.
    """
    content = content.removeprefix(_MARK)
    value = _decoded(content)
    if trivy.is_first_schema(value):
        value = {"ArtifactName": "", "Results": value}
    if isinstance(value, dict):
        if _is_list_of_syft(value):
            return [ForeignDocument("a list of packages by Syft")]
        report = _read_report(value)
        if report:
            return list(report)
    if isinstance(value, list) and value and all(map(_is_of_snyk, value)):
        return [snyk.read_document(one) for one in value]
    found: list[Read] = []
    for one in decode_documents(content):
        if isinstance(one, Document) and one.kind == "CycloneDX" and not one.enveloped and not one.subjects:
            found.append(cyclonedx.read_document(one.predicate, linked or {}))
        else:
            found.append(one)
    if isinstance(value, dict) and isinstance(found[0], UnreadableDocument):
        reason = reason_not_to_read(value)
        return [UnreadableDocument(reason)] if reason else found
    return found


def _decoded(content: bytes) -> object:
    """Return the JSON value in a file; None for JSON lines, and for what is none."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class LinkedDocuments:
    """The CycloneDX documents among files that others of them refer to, by their serial numbers' UUIDs.
    ``lists`` are the positions of those files that state nothing themselves."""

    by_serial: Mapping[str, JsonObject]
    lists: frozenset[int]


def linked_documents(contents: Sequence[bytes]) -> LinkedDocuments:
    """Return which of some files the others refer to."""
    if len(contents) < 2:
        return LinkedDocuments({}, frozenset())
    boms = {}
    for number, content in enumerate(contents):
        value = _decoded(content.removeprefix(_MARK))
        if isinstance(value, dict) and as_text(value.get("bomFormat")).lower() == "cyclonedx":
            boms[number] = value
    wanted = set[str]().union(*map(cyclonedx.linked_serials, boms.values()))
    linked = {number: bom for number, bom in boms.items() if cyclonedx.serial_of(bom) in wanted}
    return LinkedDocuments(
        {cyclonedx.serial_of(bom): bom for bom in linked.values()},
        frozenset(number for number, bom in linked.items() if not as_list(bom.get("vulnerabilities"))),
    )


def refers_to_others(document: Document) -> bool:
    """Return whether a CycloneDX document refers to components of others."""
    return bool(cyclonedx.linked_serials(document.predicate))


def _is_of_snyk(value: object) -> bool:
    return isinstance(value, dict) and snyk.is_report(value)


def _is_list_of_syft(value: JsonObject) -> bool:
    descriptor = as_object(value.get("descriptor"))
    return as_text(descriptor.get("name")) == "syft" and isinstance(value.get("artifacts"), list)


def _read_report(value: JsonObject) -> Sequence[Read]:
    """Return the documents of a scanner's report; empty if ``value`` is none."""
    if trivy.is_report(value):
        return [trivy.read_document(value)]
    if sarif.is_report(value):
        return sarif.read_document(value)
    if grype.is_report(value):
        return [grype.read_document(value)]
    if trivy_kubernetes.is_report(value):
        return trivy_kubernetes.read_documents(value)
    if snyk.is_report(value):
        return [snyk.read_document(value)]
    if scan_predicates.is_predicate(value):
        return [scan_predicates.read_predicate(value)]
    return []


def image_and_components(product: Product, document: Document) -> tuple[Product, tuple[str, ...]]:
    """Return the image that a statement's ``product`` is or belongs to, and the components that it is about.

    The image has neither names nor hashes if nothing says which it is.
    """
    if product.inside or (product.names and all(is_package(name) for name in product.names)):
        return _described_image(document), (product.shown,)
    if not product.names and not product.hashes:
        return _described_image(document), product.components
    return product, product.components


def _described_image(document: Document) -> Product:
    """Return the image that a whole document is about."""
    if document.subjects:
        return Product(hashes=tuple((one.algorithm, one.encoded) for one in sorted(document.subjects)))
    return cyclonedx.main_product(document.predicate) if document.kind == "CycloneDX" else Product()


def is_at_least(statement: Statement, severity: str) -> bool:
    """Return whether a statement's severity is ``severity`` or more, or not known. An empty one is any."""
    if not severity or statement.severity not in SEVERITIES:
        return True
    return SEVERITIES.index(statement.severity) >= SEVERITIES.index(severity)


def as_new_statement(
    statement: Statement, components: Iterable[str], *, author: str, now: datetime.datetime
) -> NewStatement:
    """Return a new statement in place of ``statement``, about ``components`` of an image.

    A statement without a time gets ``now``.
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
    """Return ``statements`` about one image without repetitions: those that differ in their components alone
    are one, and of those about the same components the newest counts."""
    grouped: dict[NewStatement, list[str] | None] = {}
    for statement in statements:
        same = replace(statement, components=())
        parts = grouped.setdefault(same, [])
        if not statement.components:
            grouped[same] = None  # of the whole image
        elif parts is not None:
            parts += statement.components
    chosen: dict[tuple[str, frozenset[str]], NewStatement] = {}
    for same, parts in grouped.items():
        components = tuple(dict.fromkeys(parts or ()))[:_MOST_COMPONENTS]
        key = same.vulnerability, frozenset(components)
        if key not in chosen or chosen[key].timestamp < same.timestamp:
            chosen[key] = replace(same, components=components)
    return list(chosen.values())


class KnownStatements:
    """The statements that are in force about an image, found by the vulnerability's names."""

    def __init__(self, in_force: Iterable[Advisory]) -> None:
        self._by_name: dict[str, list[Advisory]] = {}
        for advisory in in_force:
            if not advisory.product:
                for name in advisory.names:
                    self._by_name.setdefault(name, []).append(advisory)

    def have(self, new: NewStatement) -> bool:
        """Return whether the same is stated already: about all components of ``new`` or, if a bad statement
        about the image names no component, about any."""
        said = {
            one.component
            for one in self._by_name.get(new.vulnerability.casefold(), ())
            if one.statement.status == new.status
        }
        if new.components or new.status in GOOD:
            return "" in said or (bool(new.components) and set(new.components) <= said)
        return bool(said)

    def clear(self, new: NewStatement) -> bool:
        """Return whether somebody has stated that the image does not have the vulnerability of ``new``.

        A scanner compares versions; the author of that statement has checked, and scanners leave it out
        themselves.
        """
        names = {name.casefold() for name in (new.vulnerability, *new.aliases)}
        parts = {"", *new.components}
        return any(
            one.statement.status in GOOD and one.component in parts
            for name in names
            for one in self._by_name.get(name, ())
        )
