"""Writing OpenVEX 0.2.0 documents (openvex.dev/ns), and the in-toto statements around them."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from digestry.advisories.advisory import Advisory
from digestry.advisories.openvex import PREDICATE_TYPE, TOOLING
from digestry.advisories.statements import LONG_AGO, Status
from digestry.model.digest import Digest
from digestry.model.json_values import JsonObject
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

_HASH_NAMES: Final = {"sha256": "sha-256", "sha512": "sha-512"}


def image_purl(image: Reference, digest: Digest) -> str:
    """Return the package URL of ``digest`` in ``image``'s repository (purl-spec, type ``oci``).

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
    action: str = "",
    aliases: Sequence[str] = (),
    components: Sequence[str] = (),
) -> JsonObject:
    """Return a new statement about ``digest``, or ``components`` of it, complete as OpenVEX requires it.

    ``affected`` gets an action, which names ``fixed_by`` in a form that
    :func:`~digestry.advisories.openvex.read_document` reads back, or else is ``action``; ``not_affected``
    needs ``justification``, or else ``note``, which becomes its impact statement.
    """
    identifier = image_purl(image, digest)
    product: JsonObject = {"@id": identifier, "identifiers": {"purl": identifier}}
    product["hashes"] = {_HASH_NAMES[digest.algorithm]: digest.encoded}
    if components:
        product["subcomponents"] = [{"@id": component} for component in components]
    name: JsonObject = {"name": vulnerability}
    if aliases:
        name["aliases"] = list(aliases)
    statement: JsonObject = {
        "vulnerability": name,
        "timestamp": openvex_time(timestamp),
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
            else action or "No fixed image is named yet. Stop this one, or shield it, until there is one."
        )
    return {"@id": _identity(statement), **statement}


def make_attestation(
    image: Reference,
    digest: Digest,
    statements: list[JsonObject],
    *,
    author: str,
    timestamp: datetime.datetime,
    version: int,
    predicate_type: str = PREDICATE_TYPE,
) -> bytes:
    """Return an in-toto statement about ``digest`` with an OpenVEX document of ``statements``, as JSON."""
    document = _document(statements, author=author, timestamp=timestamp, version=version)
    return msgspec.json.encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": image.name, "digest": {digest.algorithm: digest.encoded}}],
            "predicateType": predicate_type,
            "predicate": document,
        }
    )


def make_document(
    image: Reference,
    digest: Digest,
    advisories: Iterable[Advisory],
    *,
    author: str,
    timestamp: datetime.datetime,
) -> JsonObject:
    """Return one OpenVEX document about ``digest`` with the statements of ``advisories`` of any form.

    The notes name the authors, and the layers that are stated about. A statement without a time gets
    ``timestamp``.
    """
    statements = []
    for advisory in advisories:
        said = advisory.statement
        notes = said.impact if said.status == "not_affected" and said.impact else said.notes
        of = "" if advisory.part is None else f" of the {advisory.part.kind} {advisory.part.digest}"
        by = f"Stated{of} by {advisory.author or 'an author who is not named'}."
        # A statement about a package names it as the product.
        component = advisory.component or (advisory.product if not advisory.sure else "")
        statements.append(
            make_statement(
                image,
                digest,
                vulnerability=said.vulnerability,
                status=said.status,
                timestamp=timestamp if said.timestamp == LONG_AGO else said.timestamp,
                fixed_by=said.fixed_by,
                justification=said.justification if said.justification in JUSTIFICATIONS else "",
                note=f"{notes.rstrip('.')}. {by}" if notes else by,
                action=said.action,
                aliases=said.aliases,
                components=(component,) if component else (),
            )
        )
    return _document(statements, author=author, timestamp=timestamp, version=1)


def _document(
    statements: list[JsonObject], *, author: str, timestamp: datetime.datetime, version: int
) -> JsonObject:
    document: JsonObject = {
        "@context": PREDICATE_TYPE,
        "author": author,
        "timestamp": openvex_time(timestamp),
        "version": version,
        "tooling": f"{TOOLING} {__version__}",
        "statements": statements,
    }
    return {"@context": PREDICATE_TYPE, "@id": _identity(document), **document}


def _identity(content: JsonObject) -> str:
    """Return an identifier that only the content decides."""
    return uuid.uuid5(uuid.NAMESPACE_URL, msgspec.json.encode(content, order="sorted").decode()).urn


def openvex_time(at: datetime.datetime) -> str:
    """Return a time as RFC 3339, in UTC, as short as it can be."""
    return at.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
