"""Reading OpenVEX documents (openvex.dev/ns), of version 0.2.0 and those before it."""

from __future__ import annotations

import datetime
import re
from typing import Final

from digestry.advisories.statements import (
    LONG_AGO,
    Document,
    Product,
    Statement,
    UnreadableDocument,
    read_each,
)
from digestry.advisories.values import as_key, read_status, read_time, read_version
from digestry.errors import InvalidReference
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.reference import Reference

PREDICATE_TYPE: Final = "https://openvex.dev/ns/v0.2.0"
TOOLING: Final = "digestry"
"""The beginning of ``tooling`` in documents that digestry wrote."""

_NAMESPACE: Final = "https://openvex.dev/ns"
_UPDATE: Final = re.compile(r"Update to (\S+@sha\d+:[0-9a-f]+(?: or \S+@sha\d+:[0-9a-f]+)*)\.", re.ASCII)


def is_openvex(predicate_type: str) -> bool:
    """Return whether an in-toto predicate type is that of an OpenVEX document, of any version."""
    return predicate_type == _NAMESPACE or predicate_type.startswith((_NAMESPACE + "/", _NAMESPACE + "@"))


def read_document(predicate: JsonObject) -> Document | UnreadableDocument:
    """Return the OpenVEX document that a JSON object is."""
    entries = predicate.get("statements")
    if not isinstance(entries, list):
        return UnreadableDocument("its OpenVEX document has no list of statements")
    version = read_version(predicate.get("version"))
    statements, faults = read_each(
        entries, "statement", lambda entry: (_statement(entry, predicate, version),)
    )
    return Document(
        kind="OpenVEX",
        predicate=predicate,
        version=version,
        author=as_text(predicate.get("author")),
        identity=as_text(predicate.get("@id")),
        statements=statements,
        faults=faults,
        ours=as_text(predicate.get("tooling")).startswith(TOOLING),
        updated=_updated(predicate),
    )


def _updated(document: JsonObject) -> datetime.datetime:
    """Return when this version of a document was made; long ago if it does not say that."""
    try:
        return read_time(as_text(document.get("last_updated")) or as_text(document.get("timestamp")))
    except ValueError:
        return LONG_AGO


def _statement(entry: object, document: JsonObject, version: int) -> Statement | UnreadableDocument:
    """Return one statement, with the fields that it inherits from its document."""
    if not isinstance(entry, dict):
        return UnreadableDocument("it is not an object")
    name, aliases = _vulnerability(entry)
    if not name.strip():
        return UnreadableDocument("it names no vulnerability")
    status = read_status(entry.get("status"))
    if status is None:
        return UnreadableDocument(f"its status is {shown(entry.get('status'))}")
    when = _time(entry, document)
    try:
        timestamp = read_time(when)
    except ValueError:
        return UnreadableDocument(f"its time is {shown(when)}")
    action = as_text(entry.get("action_statement"))
    return Statement(
        vulnerability=name,
        aliases=aliases,
        status=status,
        timestamp=timestamp,
        version=max(version, read_version(entry.get("version"))),
        author=as_text(document.get("author")),
        products=_products(entry),
        fixed_by=_named_in(action),
        action=action,
        notes=as_text(entry.get("status_notes")),
        justification=as_text(entry.get("justification")),
        impact=as_text(entry.get("impact_statement")),
        identity=as_text(entry.get("@id")),
        raw=entry if entry.get("timestamp") else {**entry, "timestamp": when},
    )


def _vulnerability(entry: JsonObject) -> tuple[str, tuple[str, ...]]:
    """Return the vulnerability's name, empty if it has none, and its other names."""
    vulnerability = entry.get("vulnerability")
    if isinstance(vulnerability, str):  # as before OpenVEX 0.2.0
        return vulnerability, ()
    named = as_object(vulnerability)
    aliases = tuple(filter(None, map(as_text, as_list(named.get("aliases")))))
    return as_text(named.get("name")) or as_text(named.get("@id")), aliases


def _time(entry: JsonObject, document: JsonObject) -> str:
    """Return when the statement was made, as it is written; empty if nothing says that."""
    times = (source.get(key) for source in (entry, document) for key in ("last_updated", "timestamp"))
    return next(filter(None, map(as_text, times)), "")


def _products(entry: JsonObject) -> tuple[Product, ...]:
    products = entry.get("products")
    several = products if isinstance(products, list) else [] if products is None else [products]
    older = as_list(entry.get("subcomponents"))  # as before OpenVEX 0.2.0
    return tuple(_product(product, older) for product in several)


def _product(value: object, older: list[object]) -> Product:
    if isinstance(value, str):
        return Product((value,), components=tuple(map(_component, older)))
    product = as_object(value)
    identifiers = as_object(product.get("identifiers"))
    names = [as_text(identifiers.get("purl")), as_text(product.get("@id"))]
    names += [as_text(name) for label, name in identifiers.items() if label != "purl"]
    hashes = as_object(product.get("hashes"))
    parts = as_list(product.get("subcomponents")) or older
    return Product(
        tuple(dict.fromkeys(filter(None, names))),
        tuple((label, as_text(encoded)) for label, encoded in hashes.items()),
        tuple(map(_component, parts)),
    )


def _component(value: object) -> str:
    """Return the best name of a subcomponent."""
    component = as_object(value)
    purl = as_text(as_object(component.get("identifiers")).get("purl"))
    return purl or as_text(component.get("@id")) or as_key(value)


def _named_in(action: str) -> tuple[Reference, ...]:
    """Return the images that an action which digestry wrote names as the fix."""
    match = _UPDATE.match(action)
    if match is None:
        return ()
    try:
        return tuple(Reference.parse(name) for name in match[1].split(" or "))
    except InvalidReference:
        return ()
