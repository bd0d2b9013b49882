"""OpenVEX documents in in-toto statements: read from whatever wraps them, written in one way.

OpenVEX 0.2.0 (openvex.dev/ns), the in-toto Statement v1, the DSSE envelope and the Sigstore bundle
that wraps one. A signature is never verified here: what is in an envelope is read, and that it was
signed is said.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, unquote

import msgspec

from digestry import __version__
from digestry.errors import InvalidDigest, InvalidReference
from digestry.model.digest import Digest, shown
from digestry.model.reference import DOCKER_HUB, Reference

Status: TypeAlias = Literal["affected", "not_affected", "fixed", "under_investigation"]

STATUSES: Final[tuple[Status, ...]] = ("affected", "not_affected", "fixed", "under_investigation")
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
_STATEMENT_TYPES: Final = "https://in-toto.io/Statement/"
_UPDATE: Final = re.compile(r"Update to (\S+@sha\d+:[0-9a-f]+(?: or \S+@sha\d+:[0-9a-f]+)*)\.", re.ASCII)
_PURL_DIGEST: Final = re.compile(r"pkg:oci/[^@?#]+@([^?#]+)", re.ASCII | re.IGNORECASE)
_HASH_NAMES: Final = {"sha256": "sha-256", "sha512": "sha-512"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One OpenVEX statement, with what it inherits from its document filled in.

    ``about`` are the image digests that its products name; empty if they name none, so that it is
    about whatever it is attached to. ``fixed_by`` are the images that its action names. ``raw`` is
    its JSON, with its time filled in.
    """

    vulnerability: str
    aliases: tuple[str, ...]
    status: Status
    timestamp: datetime.datetime
    version: int
    author: str
    about: frozenset[Digest]
    fixed_by: tuple[Reference, ...]
    action: str
    notes: str
    justification: str
    impact: str
    identity: str
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """One OpenVEX document. ``subjects`` are the digests that the in-toto statement is about;
    ``enveloped`` tells that it came in an envelope with signatures, which were not verified;
    ``ours`` that digestry wrote it. ``faults`` are statements that could not be read."""

    predicate: dict[str, Any]
    subjects: frozenset[Digest]
    enveloped: bool
    version: int
    ours: bool
    statements: tuple[Statement, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that hold no OpenVEX document that can be read, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """A well-formed attestation of another kind: a bill of materials, a provenance."""

    predicate_type: str


def is_openvex(predicate_type: str) -> bool:
    """Whether an in-toto predicate type is that of an OpenVEX document, of any version."""
    return predicate_type == _NAMESPACE or predicate_type.startswith(_NAMESPACE + "/")


# -- reading ------------------------------------------------------------------------------------


def decode(content: bytes) -> Document | Foreign | Unreadable:
    """Reads an in-toto statement, a DSSE envelope, a Sigstore bundle, or a bare OpenVEX document."""
    value = _json(content)
    if isinstance(value, Unreadable):
        return value
    enveloped = False
    envelope = value.get("dsseEnvelope", value)
    if isinstance(envelope, dict) and "payload" in envelope:
        enveloped = True
        payload = envelope["payload"]
        try:
            inner = base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError, TypeError):
            return Unreadable("its envelope's payload is not base64")
        value = _json(inner)
        if isinstance(value, Unreadable):
            return value
    kind = value.get("_type")
    if isinstance(kind, str) and kind.startswith(_STATEMENT_TYPES):
        predicate_type = value.get("predicateType")
        if not isinstance(predicate_type, str):
            return Unreadable("the in-toto statement has no predicateType")
        if not is_openvex(predicate_type):
            return Foreign(predicate_type)
        predicate = value.get("predicate")
        subjects = _subjects(value.get("subject"))
    elif isinstance(context := value.get("@context"), str) and is_openvex(context):
        predicate, subjects = value, frozenset[Digest]()
    else:
        return Unreadable("it is neither an in-toto statement nor an envelope of one")
    if not isinstance(predicate, dict):
        return Unreadable("its OpenVEX document is not an object")
    return _document(predicate, subjects, enveloped)


def _json(content: bytes) -> dict[str, Any] | Unreadable:
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Unreadable(f"it is not JSON: {str(error)[:120]}")
    return value if isinstance(value, dict) else Unreadable("it is not a JSON object")


def _subjects(value: object) -> frozenset[Digest]:
    found = set()
    for subject in value if isinstance(value, list) else ():
        digests = subject.get("digest") if isinstance(subject, dict) else None
        for algorithm, encoded in digests.items() if isinstance(digests, dict) else ():
            digest = _digest(f"{algorithm}:{encoded}")
            if digest is not None:
                found.add(digest)
    return frozenset(found)


def _document(
    predicate: dict[str, Any], subjects: frozenset[Digest], enveloped: bool
) -> Document | Unreadable:
    entries = predicate.get("statements")
    if not isinstance(entries, list):
        return Unreadable("its OpenVEX document has no list of statements")
    version = predicate.get("version")
    number = version if isinstance(version, int) and version > 0 else 1
    statements: list[Statement] = []
    faults: list[str] = []
    for position, entry in enumerate(entries):
        read = _statement(entry, predicate, number)
        if isinstance(read, Unreadable):
            faults.append(f"statement {position + 1}: {read.reason}")
        else:
            statements.append(read)
    ours = _text(predicate.get("tooling")).startswith(_TOOLING) and not enveloped
    return Document(predicate, subjects, enveloped, number, ours, tuple(statements), tuple(faults))


def _statement(entry: object, document: dict[str, Any], version: int) -> Statement | Unreadable:
    if not isinstance(entry, dict):
        return Unreadable("it is not an object")
    vulnerability = entry.get("vulnerability")
    if isinstance(vulnerability, str):  # as before OpenVEX 0.2.0
        vulnerability = {"name": vulnerability}
    if not isinstance(vulnerability, dict) or not _text(vulnerability.get("name")):
        return Unreadable("it names no vulnerability")
    status = entry.get("status")
    if status not in STATUSES:
        return Unreadable(f"its status is {shown(status)}")
    when = _text(entry.get("last_updated")) or _text(entry.get("timestamp"))
    when = when or _text(document.get("last_updated")) or _text(document.get("timestamp"))
    try:
        timestamp = parse_time(when)
    except ValueError:
        return Unreadable(f"its time is {shown(when)}")
    aliases = vulnerability.get("aliases")
    own = entry.get("version")
    products = entry.get("products")
    about = {
        digest
        for product in (products if isinstance(products, list) else ())
        if isinstance(product, dict)
        for digest in _about(product)
    }
    action = _text(entry.get("action_statement"))
    return Statement(
        vulnerability=_text(vulnerability.get("name")),
        aliases=tuple(_text(alias) for alias in aliases if _text(alias)) if isinstance(aliases, list) else (),
        status=status,
        timestamp=timestamp,
        version=own if isinstance(own, int) and own > version else version,
        author=_text(document.get("author")),
        about=frozenset(about),
        fixed_by=_named_in(action),
        action=action,
        notes=_text(entry.get("status_notes")),
        justification=_text(entry.get("justification")),
        impact=_text(entry.get("impact_statement")),
        identity=_text(entry.get("@id")),
        raw=entry if entry.get("timestamp") else {**entry, "timestamp": when},
    )


def _about(product: dict[str, Any]) -> Iterable[Digest]:
    identifiers = product.get("identifiers")
    purls = [product.get("@id"), identifiers.get("purl") if isinstance(identifiers, dict) else None]
    for purl in purls:
        match = _PURL_DIGEST.match(_text(purl))
        digest = _digest(unquote(match[1])) if match else None
        if digest is not None:
            yield digest
    hashes = product.get("hashes")
    for algorithm, name in _HASH_NAMES.items():
        encoded = hashes.get(name) if isinstance(hashes, dict) else None
        digest = _digest(f"{algorithm}:{encoded}")
        if digest is not None:
            yield digest


def _named_in(action: str) -> tuple[Reference, ...]:
    match = _UPDATE.match(action)
    if match is None:
        return ()
    try:
        return tuple(Reference.parse(name) for name in match[1].split(" or "))
    except InvalidReference:
        return ()


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except InvalidDigest:
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def parse_time(text: str) -> datetime.datetime:
    """Reads RFC 3339; a time without a zone is in UTC. Raises ``ValueError``."""
    read = datetime.datetime.fromisoformat(text)
    if read.tzinfo is None:
        return read.replace(tzinfo=datetime.UTC)
    try:
        return read.astimezone(datetime.UTC)
    except OverflowError as error:
        raise ValueError(text) from error


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
