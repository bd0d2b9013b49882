"""Reading CycloneDX documents: the vulnerabilities of a VEX, or of a bill of materials that carries one.

CycloneDX 1.4 to 1.6, ``vulnerabilities``; a ``ref`` is a component of the same document, a BOM-Link to
another document's, or a package URL.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from digestry.advisories.statements import (
    LONG_AGO,
    SEVERITIES,
    Document,
    ForeignDocument,
    Product,
    Statement,
    Status,
    UnreadableDocument,
    read_each,
)
from digestry.advisories.values import is_image_purl, read_severity, read_time, read_version
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_STATES: Final[dict[str, Status]] = {
    "exploitable": "affected",
    "in_triage": "under_investigation",
    "resolved": "fixed",
    "resolved_with_pedigree": "fixed",
    "false_positive": "not_affected",
    "not_affected": "not_affected",
}
_MAKERS: Final = ("manufacturer", "supplier", "manufacture")
_MOST_COMPONENTS: Final = 100_000
_LINK: Final = re.compile(r"urn:cdx:([^/#]+)/[^#]*(?:#(.*))?", re.IGNORECASE | re.DOTALL)
"""A BOM-Link: the serial number of another document, its version, and a component of it."""


def read_document(
    bom: JsonObject, linked: Mapping[str, JsonObject] | None = None
) -> Document | ForeignDocument | UnreadableDocument:
    """Return a CycloneDX document, decoded from JSON; one that says nothing of vulnerabilities is foreign.

    ``linked`` are the documents that BOM-Links may refer to, by the UUIDs of their serial numbers. If it is
    not None, parts of one single document that is not among them are taken for parts of the image that
    this one is about.
    """
    entries = bom.get("vulnerabilities")
    if _hides(bom):
        return UnreadableDocument("its CycloneDX document has vulnerabilities inside of components")
    if entries is None or entries == []:
        return ForeignDocument("CycloneDX")
    if not isinstance(entries, list):
        return UnreadableDocument("the vulnerabilities of its CycloneDX document are not a list")
    reader = _Reader(bom, linked)
    statements, faults = read_each(entries, "vulnerability", lambda entry: (reader.statement(entry),))
    return Document(
        kind="CycloneDX",
        predicate=bom,
        version=reader.version,
        author=reader.author,
        identity=as_text(bom.get("serialNumber")),
        statements=statements,
        faults=faults,
    )


def main_product(bom: JsonObject) -> Product:
    """Return the image that a CycloneDX document describes; without names and hashes if it names none."""
    main = as_object(as_object(bom.get("metadata")).get("component"))
    described = _described(main)
    name, version = as_text(main.get("name")), as_text(main.get("version"))
    # Grype and Syft name an image by its repository, and by its tag or digest as the version.
    if as_text(main.get("type")) == "container" and name and version and not _is_image(described):
        separator = "@" if version.lower().startswith(("sha256:", "sha512:")) else ":"
        return Product((f"{name}{separator}{version}",), described.hashes)
    return Product() if described.inside else described


def serial_of(bom: JsonObject) -> str:
    """Return the UUID of a document's serial number, by which BOM-Links name it; empty if it has none."""
    return as_text(bom.get("serialNumber")).lower().removeprefix("urn:uuid:")


def linked_serials(bom: JsonObject) -> set[str]:
    """Return the serial numbers of the other documents that the vulnerabilities of ``bom`` refer to."""
    found = set()
    for entry in map(as_object, as_list(bom.get("vulnerabilities"))):
        for affected in as_list(entry.get("affects")):
            link = _LINK.fullmatch(_ref_of(affected))
            if link is not None:
                found.add(link[1].lower())
    return found - {serial_of(bom)}


def _ref_of(affected: object) -> str:
    return affected if isinstance(affected, str) else as_text(as_object(affected).get("ref"))


class _Reader:
    def __init__(self, bom: JsonObject, linked: Mapping[str, JsonObject] | None) -> None:
        metadata = as_object(bom.get("metadata"))
        self._serial = serial_of(bom)
        others = {serial: bom for serial, bom in (linked or {}).items() if serial != self._serial}
        self._linked = {serial: _LinkedDocument(other) for serial, other in others.items()}
        self._one_image = linked is not None and len(linked_serials(bom) - self._linked.keys()) == 1
        self.version = read_version(bom.get("version"))
        self.author = _author(metadata)
        self._timestamp = as_text(metadata.get("timestamp"))
        self._main = as_object(metadata.get("component"))
        self._components = _by_reference(
            as_list(bom.get("components")) + as_list(self._main.get("components"))
        )

    def statement(self, entry: object) -> Statement | UnreadableDocument:
        if not isinstance(entry, dict):
            return UnreadableDocument("it is not an object")
        name = as_text(entry.get("id"))
        if not name.strip():
            return UnreadableDocument("it has no id")
        analysis = as_object(entry.get("analysis"))
        state = analysis.get("state")
        # A vulnerability that is listed and not analysed is present; its effect is not stated.
        status = "under_investigation" if state is None else _STATES.get(as_text(state).strip().lower())
        if status is None:
            return UnreadableDocument(f"its analysis has the state {shown(state)}")
        timestamp = self._time(analysis, entry)
        if isinstance(timestamp, UnreadableDocument):
            return timestamp
        affects = entry.get("affects")
        if not isinstance(affects, list | None):
            return UnreadableDocument("what it affects is not a list")
        products = [self._product(_ref_of(affected)) for affected in affects or []]
        return Statement(
            vulnerability=name,
            aliases=tuple(
                filter(
                    None,
                    (
                        as_text(as_object(reference).get("id"))
                        for reference in as_list(entry.get("references"))
                    ),
                )
            ),
            status=status,
            timestamp=timestamp,
            version=self.version,
            author=self.author,
            products=tuple(products),
            action=as_text(entry.get("recommendation")),
            notes=as_text(analysis.get("detail")),
            justification=as_text(analysis.get("justification")),
            severity=_severity(entry),
            raw=entry,
        )

    def _time(self, analysis: JsonObject, entry: JsonObject) -> datetime.datetime | UnreadableDocument:
        times = (analysis.get("lastUpdated"), analysis.get("firstIssued"), entry.get("updated"))
        when = next((as_text(text) for text in times if text), self._timestamp)
        if not when:
            return LONG_AGO
        try:
            return read_time(when)
        except ValueError:
            return UnreadableDocument(f"its time is {shown(when)}")

    def _product(self, ref: str) -> Product:
        if ref and ref == as_text(self._main.get("bom-ref")):
            return _described(self._main)
        found = _LINK.fullmatch(ref)
        link = ref if found is None else unquote(found[2] or "")
        other = None if found is None else self._linked.get(found[1].lower())
        if other is not None:
            return other.product(link)
        component = self._components.get(ref) or self._components.get(link)
        if component is not None:
            named = _identified(component) or Product((link,))
            return named if _is_image(named) else Product(named.names, inside=True)
        if link.lower().startswith("pkg:"):
            return Product((link,))
        if found is not None and found[1].lower() != self._serial:
            return Product((ref,), inside=self._one_image)
        return Product((f"urn:cdx-ref:{link}",) if link else ())


class _LinkedDocument:
    """A document that another one refers to: its image, and its components."""

    def __init__(self, bom: JsonObject) -> None:
        self._main = as_object(as_object(bom.get("metadata")).get("component"))
        self._image = main_product(bom)
        self._components = _by_reference(
            as_list(bom.get("components")) + as_list(self._main.get("components"))
        )

    def product(self, ref: str) -> Product:
        """Return the image of the document, if ``ref`` is empty or the image's; else a component in it."""
        if not ref or ref == as_text(self._main.get("bom-ref")):
            return self._image
        component = self._components.get(ref)
        named = (_identified(component) if component is not None else None) or Product((ref,))
        if _is_image(named):
            return named
        return Product(self._image.names, self._image.hashes, (named.shown,))


def _severity(entry: JsonObject) -> str:
    """Return the worst severity of a vulnerability's ratings; empty if it has none."""
    words = [
        read_severity(as_text(as_object(rating).get("severity"))) for rating in as_list(entry.get("ratings"))
    ]
    return max(filter(None, words), key=SEVERITIES.index, default="")


def _hides(bom: JsonObject) -> bool:
    """Return whether a part of the document has vulnerabilities of its own, as no version of CycloneDX has
    them but an extension of 1.2 and 1.3."""
    pending: list[object] = [value for name, value in bom.items() if name != "vulnerabilities"]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if any(name.lower().endswith("vulnerabilities") and value[name] for name in value):
                return True
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return False


def _author(metadata: JsonObject) -> str:
    names = [as_text(as_object(author).get("name")) for author in as_list(metadata.get("authors"))]
    names += [as_text(as_object(metadata.get(role)).get("name")) for role in _MAKERS]
    return next(filter(None, names), "")


def _by_reference(components: list[object]) -> dict[str, JsonObject]:
    found: dict[str, JsonObject] = {}
    pending = [part for part in components if isinstance(part, dict)]
    while pending and len(found) < _MOST_COMPONENTS:
        component = pending.pop()
        ref = as_text(component.get("bom-ref"))
        if ref:
            found.setdefault(ref, component)
        pending += [child for child in as_list(component.get("components")) if isinstance(child, dict)]
    return found


def _described(main: JsonObject) -> Product:
    """Return the subject of the document: the image that it is attached to, unless it names another one."""
    version = as_text(main.get("version"))
    if version.lower().startswith(("sha256:", "sha512:")):
        return Product((version,))
    named = _identified(main)
    if named is not None and (_is_image(named) or named.hashes):
        return named
    return Product((as_text(main.get("name")) or "what it describes",), inside=True)


def _is_image(product: Product) -> bool:
    return any(map(is_image_purl, product.names))


def _identified(component: JsonObject) -> Product | None:
    """Return a component by its package URL and hashes, or by its name; None if it has neither."""
    hashes = tuple(
        (as_text(as_object(file_hash).get("alg")), as_text(as_object(file_hash).get("content")))
        for file_hash in as_list(component.get("hashes"))
    )
    name = as_text(component.get("purl")) or as_text(component.get("name"))
    return Product((name,), hashes) if name else Product((), hashes) if hashes else None
