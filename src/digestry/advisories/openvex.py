"""OpenVEX 0.2.0 (openvex.dev/ns): documents read, and in-toto statements of them written."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from digestry.advisories.statements import (
    Document,
    Product,
    Statement,
    Status,
    Unreadable,
    items,
    key,
    mapping,
    number,
    parse_time,
    read_each,
    status,
    text,
)
from digestry.errors import InvalidReference
from digestry.model.digest import Digest, shown
from digestry.model.reference import DOCKER_HUB, Reference
from digestry.version import __version__

JUSTIFICATIONS: Final = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://openvex.dev/ns/v0.2.0"

_NAMESPACE: Final = "https://openvex.dev/ns"
_TOOLING: Final = "digestry"
_UPDATE: Final = re.compile(r"Update to (\S+@sha\d+:[0-9a-f]+(?: or \S+@sha\d+:[0-9a-f]+)*)\.", re.ASCII)
_HASH_NAMES: Final = {"sha256": "sha-256", "sha512": "sha-512"}


def is_openvex(predicate_type: str) -> bool:
    """Whether an in-toto predicate type is that of an OpenVEX document, of any version."""
    return predicate_type == _NAMESPACE or predicate_type.startswith((_NAMESPACE + "/", _NAMESPACE + "@"))


# -- reading ------------------------------------------------------------------------------------


def read_document(predicate: dict[str, Any]) -> Document | Unreadable:
    """An OpenVEX document, decoded from JSON."""
    entries = predicate.get("statements")
    if not isinstance(entries, list):
        return Unreadable("its OpenVEX document has no list of statements")
    version = number(predicate.get("version"))
    statements, faults = read_each(entries, "statement", lambda one: (_statement(one, predicate, version),))
    return Document(
        kind="OpenVEX",
        predicate=predicate,
        version=version,
        author=text(predicate.get("author")),
        identity=text(predicate.get("@id")),
        statements=statements,
        faults=faults,
        ours=text(predicate.get("tooling")).startswith(_TOOLING),
    )


def _statement(entry: object, document: dict[str, Any], version: int) -> Statement | Unreadable:
    if not isinstance(entry, dict):
        return Unreadable("it is not an object")
    vulnerability = entry.get("vulnerability")
    if isinstance(vulnerability, str):  # as before OpenVEX 0.2.0
        vulnerability = {"name": vulnerability}
    named = mapping(vulnerability)
    name = text(named.get("name")) or text(named.get("@id"))
    if not name.strip():
        return Unreadable("it names no vulnerability")
    said = status(entry.get("status"))
    if said is None:
        return Unreadable(f"its status is {shown(entry.get('status'))}")
    when = text(entry.get("last_updated")) or text(entry.get("timestamp"))
    when = when or text(document.get("last_updated")) or text(document.get("timestamp"))
    try:
        timestamp = parse_time(when)
    except ValueError:
        return Unreadable(f"its time is {shown(when)}")
    products = entry.get("products")
    several = products if isinstance(products, list) else [] if products is None else [products]
    older = items(entry.get("subcomponents"))  # as before OpenVEX 0.2.0
    action = text(entry.get("action_statement"))
    return Statement(
        vulnerability=name,
        aliases=tuple(filter(None, map(text, items(named.get("aliases"))))),
        status=said,
        timestamp=timestamp,
        version=max(version, number(entry.get("version"))),
        author=text(document.get("author")),
        products=tuple(_product(product, older) for product in several),
        fixed_by=_named_in(action),
        action=action,
        notes=text(entry.get("status_notes")),
        justification=text(entry.get("justification")),
        impact=text(entry.get("impact_statement")),
        identity=text(entry.get("@id")),
        raw=entry if entry.get("timestamp") else {**entry, "timestamp": when},
    )


def _product(value: object, older: list[Any]) -> Product:
    if isinstance(value, str):
        return Product((value,), components=tuple(map(_component, older)))
    product = mapping(value)
    identifiers = mapping(product.get("identifiers"))
    names = [text(identifiers.get("purl")), text(product.get("@id"))]
    names += [text(one) for label, one in identifiers.items() if label != "purl"]
    hashes = mapping(product.get("hashes"))
    parts = items(product.get("subcomponents")) or older
    return Product(
        tuple(dict.fromkeys(filter(None, names))),
        tuple((label, text(one)) for label, one in hashes.items()),
        tuple(map(_component, parts)),
    )


def _component(value: object) -> str:
    """A subcomponent, by what tells it best."""
    component = mapping(value)
    purl = text(mapping(component.get("identifiers")).get("purl"))
    return purl or text(component.get("@id")) or key(value)


def _named_in(action: str) -> tuple[Reference, ...]:
    match = _UPDATE.match(action)
    if match is None:
        return ()
    try:
        return tuple(Reference.parse(name) for name in match[1].split(" or "))
    except InvalidReference:
        return ()


# -- writing ------------------------------------------------------------------------------------


def purl(image: Reference, digest: Digest) -> str:
    """The package URL of ``digest`` in ``image``'s repository (purl-spec, type ``oci``).

    Docker Hub has its long name there, as scanners write it that look an image's purl up.
    """
    name = image.repository.rpartition("/")[2]
    host = "index.docker.io" if image.host == DOCKER_HUB else image.host
    where = quote(f"{host}/{image.repository}", safe="")
    return f"pkg:oci/{name}@{quote(str(digest), safe='')}?repository_url={where}"


def make_statement(
    image: Reference,
    digest: Digest,
    *,
    vulnerability: str,
    status: Status,
    timestamp: datetime.datetime,
    fixed_by: Iterable[Reference] = (),
    justification: str = "",
    note: str = "",
) -> dict[str, Any]:
    """A new statement about ``digest``, complete as OpenVEX wants it.

    ``affected`` gets an action, which names ``fixed_by`` in a form that :func:`decode` reads back;
    ``not_affected`` needs ``justification``, or else ``note``, which becomes its impact statement.
    """
    identifier = purl(image, digest)
    product: dict[str, Any] = {"@id": identifier, "identifiers": {"purl": identifier}}
    product["hashes"] = {_HASH_NAMES[digest.algorithm]: digest.encoded}
    statement: dict[str, Any] = {
        "vulnerability": {"name": vulnerability},
        "timestamp": rfc3339(timestamp),
        "products": [product],
        "status": status,
    }
    if status == "not_affected":
        if justification:
            statement["justification"] = justification
        if note:
            statement["impact_statement"] = note
    elif note:
        statement["status_notes"] = note
    if status == "affected":
        names = " or ".join(str(reference) for reference in fixed_by)
        statement["action_statement"] = (
            f"Update to {names}."
            if names
            else "No fixed image is named yet. Stop this one, or shield it, until there is one."
        )
    return {"@id": _identity(statement), **statement}


def make_attestation(
    image: Reference,
    digest: Digest,
    statements: list[dict[str, Any]],
    *,
    author: str,
    timestamp: datetime.datetime,
    version: int,
) -> bytes:
    """An in-toto statement about ``digest`` with an OpenVEX document of ``statements``, as JSON."""
    document: dict[str, Any] = {
        "@context": PREDICATE_TYPE,
        "author": author,
        "timestamp": rfc3339(timestamp),
        "version": version,
        "tooling": f"{_TOOLING} {__version__}",
        "statements": statements,
    }
    return msgspec.json.encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": image.name, "digest": {digest.algorithm: digest.encoded}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"@context": PREDICATE_TYPE, "@id": _identity(document), **document},
        }
    )


def _identity(content: dict[str, Any]) -> str:
    """An identifier that only the content decides."""
    return uuid.uuid5(uuid.NAMESPACE_URL, msgspec.json.encode(content, order="sorted").decode()).urn


def rfc3339(at: datetime.datetime) -> str:
    """A time as RFC 3339, in UTC."""
    return at.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
