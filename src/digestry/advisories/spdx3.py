"""Reading the security profile of SPDX 3 documents (SPDX 3.0.1, Security: the Vex… relationships)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from digestry.advisories.statements import (
    LONG_AGO,
    Document,
    Product,
    Statement,
    Status,
    UnreadableDocument,
    read_each,
)
from digestry.advisories.values import read_time, read_version
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_STATUSES: Final[dict[str, Status]] = {
    "vexaffectedvulnassessmentrelationship": "affected",
    "vexfixedvulnassessmentrelationship": "fixed",
    "vexnotaffectedvulnassessmentrelationship": "not_affected",
    "vexunderinvestigationvulnassessmentrelationship": "under_investigation",
}
_JUSTIFICATIONS: Final = {
    "componentnotpresent": "component_not_present",
    "vulnerablecodenotpresent": "vulnerable_code_not_present",
    "vulnerablecodenotinexecutepath": "vulnerable_code_not_in_execute_path",
    "vulnerablecodecannotbecontrolledbyadversary": "vulnerable_code_cannot_be_controlled_by_adversary",
    "inlinemitigationsalreadyexist": "inline_mitigations_already_exist",
}
_ASSOCIATED: Final = "hasassociatedvulnerability"
_PREFIX: Final = "security_"


def elements_of(document: JsonObject) -> list[JsonObject]:
    """Return the elements of a JSON-LD document: those of its graph, or the document alone."""
    graph = [one for one in as_list(document.get("@graph")) if isinstance(one, dict)]
    return graph or [document]


def kinds_of(element: JsonObject) -> frozenset[str]:
    """Return an element's types in lower case, without namespace and the prefix of the security profile."""
    said = [one for key in ("type", "@type") for one in _several(element.get(key))]
    return frozenset(as_text(one).rpartition("/")[2].lower().removeprefix(_PREFIX) for one in said)


def has_security(document: JsonObject) -> bool:
    """Return whether a document has elements that state something about vulnerabilities."""
    return any(_states(element) for element in elements_of(document))


def read_document(document: JsonObject) -> Document:
    """Return the statements of an SPDX 3 document.

    A vulnerability that is listed for a package without an assessment is under investigation.
    """
    elements = elements_of(document)
    by_id = {name: element for element in elements if (name := _id(element))}
    reader = _Reader(by_id)
    stating = [element for element in elements if _states(element)]
    statements, faults = read_each(stating, "assessment", reader.statements)
    root = next((element for element in elements if "spdxdocument" in kinds_of(element)), {})
    return Document(
        kind="SPDX", predicate=document, version=1, author=reader.author(root), identity=_id(root),
        statements=statements, faults=faults,
    )  # fmt: skip


def _states(element: JsonObject) -> bool:
    return _status(element) is not None or as_text(element.get("relationshipType")).lower() == _ASSOCIATED


def _status(element: JsonObject) -> Status | None:
    return next((_STATUSES[kind] for kind in sorted(kinds_of(element)) if kind in _STATUSES), None)


def _id(element: JsonObject) -> str:
    return as_text(element.get("spdxId")) or as_text(element.get("@id"))


class _Reader:
    def __init__(self, elements: Mapping[str, JsonObject]) -> None:
        self._elements = elements

    def statements(self, entry: object) -> Iterable[Statement | UnreadableDocument]:
        """Return a statement for each vulnerability that a relationship is about."""
        relationship = as_object(entry)
        sources, targets = _ids(relationship.get("from")), _ids(relationship.get("to"))
        status = _status(relationship)
        if status is None:
            status, sources, targets = "under_investigation", targets, sources
        assessed = _ids(relationship.get(f"{_PREFIX}assessedElement"))
        if not sources:
            return [UnreadableDocument("it is from no vulnerability")]
        return [self._statement(relationship, source, status, assessed or targets) for source in sources]

    def author(self, element: JsonObject) -> str:
        """Return the supplier or creator of an element; empty if it names none."""
        creation = self._creation(element)
        for name in (*_ids(element.get("suppliedBy")), *_ids(creation.get("createdBy"))):
            named = as_text(self._elements.get(name, {}).get("name"))
            if named:
                return named
        return ""

    def _creation(self, element: JsonObject) -> JsonObject:
        said = element.get("creationInfo")
        return self._elements.get(said, {}) if isinstance(said, str) else as_object(said)

    def _statement(
        self, relationship: JsonObject, source: str, status: Status, targets: list[str]
    ) -> Statement | UnreadableDocument:
        names = _vulnerability_names(self._elements.get(source, {}), source)
        if not names:
            return UnreadableDocument(f"the vulnerability {shown(source)} has no name")
        said = (
            relationship.get(f"{_PREFIX}modifiedTime"),
            relationship.get(f"{_PREFIX}publishedTime"),
            self._creation(relationship).get("created"),
        )
        when = next((as_text(one) for one in said if one), "")
        try:
            timestamp = read_time(when) if when else LONG_AGO
        except ValueError:
            return UnreadableDocument(f"its time is {shown(when)}")
        justification = as_text(relationship.get(f"{_PREFIX}justificationType")).rpartition("/")[2].lower()
        return Statement(
            vulnerability=names[0],
            aliases=tuple(names[1:]),
            status=status,
            timestamp=timestamp,
            version=read_version(relationship.get(f"{_PREFIX}vexVersion")),
            author=self.author(relationship),
            products=tuple(_product(self._elements.get(one, {}), one) for one in targets) or (Product(),),
            raw=relationship,
            action=as_text(relationship.get(f"{_PREFIX}actionStatement")),
            notes=as_text(relationship.get(f"{_PREFIX}statusNotes")),
            justification=_JUSTIFICATIONS.get(justification, ""),
            impact=as_text(relationship.get(f"{_PREFIX}impactStatement")),
            identity=_id(relationship),
        )


def _several(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _ids(value: object) -> list[str]:
    """Return the elements that a property names: their IDs, also where they are written in place."""
    return list(filter(None, (as_text(one) or _id(as_object(one)) for one in _several(value))))


def _vulnerability_names(element: JsonObject, identity: str) -> list[str]:
    """Return the names of a vulnerability, the identifiers that are registered first."""
    listed = [as_object(one) for one in as_list(element.get("externalIdentifier"))]
    names = [as_text(one.get("identifier")).rpartition("/")[2] for one in listed]
    names += [as_text(element.get("name")), identity.rpartition("/")[2] if not listed else ""]
    return list(dict.fromkeys(name for name in names if name.strip()))


def _product(element: JsonObject, identity: str) -> Product:
    """Return the product that an element is, by its package URL, its other identifiers and its hashes."""
    listed = [as_object(one) for one in as_list(element.get("externalIdentifier"))]
    names = [as_text(element.get("software_packageUrl"))]
    names += [as_text(one.get("identifier")) for one in listed]
    hashes = tuple(
        (as_text(one.get("algorithm")), as_text(one.get("hashValue")))
        for one in map(as_object, as_list(element.get("verifiedUsing")))
        if as_text(one.get("hashValue"))
    )
    chosen = tuple(dict.fromkeys(filter(None, names)))
    if not chosen and not hashes:
        # A name is for people, and an element's ID for this document.
        chosen = (f"urn:spdx:{as_text(element.get('name')) or identity}",)
    return Product(chosen, hashes)
