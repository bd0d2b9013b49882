"""The statements of advisories that are attached to an image, as its page shows them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.advisories.advisory import (
    Advisory,
    AdvisoryReading,
    AttachedDocument,
    drop_superseded,
    in_force,
)
from digestry.advisories.documents import decode_documents
from digestry.advisories.signatures import NOT_VERIFIED, UNSIGNED
from digestry.advisories.statements import LONG_AGO, Document
from digestry.catalog.manifest_rows import StoredManifest
from digestry.errors import ContentError, InvalidManifest, StorageError
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Image
from digestry.model.reference import Reference
from digestry.web.documents import LARGEST, read_manifest
from digestry.web.host import Host

MOST: Final = 200
"""Statements that a page shows of one image."""
_MOST_DOCUMENTS: Final = 25
_HERE: Final = Reference("here.invalid", "image")
"""The repository of all that a page compares, which is one."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement in force. ``at`` is None where the document does not say; ``signed`` is whether it came in
    an envelope with signatures, which were not verified. ``subject`` is what it is attached to: the image,
    an index that lists it, or a layer of it."""

    vulnerability: str
    aliases: tuple[str, ...]
    status: str
    component: str
    at: datetime.datetime | None
    author: str
    text: str
    fixed_by: tuple[str, ...]
    signed: bool
    referrer: Digest
    subject: Digest


@dataclass(frozen=True, slots=True)
class Attached:
    """The statements in force, the worst first; ``unread`` are the referrers that could not be read."""

    statements: tuple[Stated, ...]
    unread: tuple[Digest, ...]


def read_attached(host: Host, referrers: Iterable[StoredManifest]) -> Attached:
    """Read the advisories among the ``referrers`` of an image, of its indexes and of its layers: the newest
    of them, and of each the statements that no newer one replaces."""
    reading = AdvisoryReading()
    unread: list[Digest] = []
    wanted = [referrer for referrer in referrers if _may_state(referrer)]
    for referrer in wanted[:_MOST_DOCUMENTS]:
        documents = _documents(host, referrer)
        if documents is None:
            unread.append(referrer.digest)
        for document in documents or ():
            _add(reading, document, referrer)
    unread += [referrer.digest for referrer in wanted[_MOST_DOCUMENTS:]]
    drop_superseded(reading)
    current = in_force(reading.advisories)
    return Attached(tuple(map(_stated, current[:MOST])), tuple(unread))


def _may_state(referrer: StoredManifest) -> bool:
    predicate = referrer.annotations.get(media_types.PREDICATE_TYPE, "")
    return predicate.startswith(media_types.OPENVEX) or (
        not predicate and referrer.artifact_type == media_types.IN_TOTO
    )


def _documents(host: Host, referrer: StoredManifest) -> Sequence[Document] | None:
    """Return the documents in a referrer; None if one of them cannot be read."""
    manifest = read_manifest(host, referrer.digest, referrer.media_type, referrer.size)
    if not isinstance(manifest, Image):
        return None
    found: list[Document] = []
    for layer in manifest.layers:
        if layer.size > LARGEST:
            return None
        try:
            read = decode_documents(host.content(layer.digest, layer.size))
        except (ContentError, InvalidManifest, StorageError):
            return None
        found += [document for document in read if isinstance(document, Document)]
    return found


def _add(reading: AdvisoryReading, document: Document, referrer: StoredManifest) -> None:
    """Add the statements of a document, unless it says that it is about another image."""
    subject = referrer.subject
    if subject is None or (document.subjects and subject not in document.subjects):
        return
    reading.attached.append(AttachedDocument(document, subject, referrer.digest))
    for statement in document.statements:
        components = [part for product in statement.products for part in product.components]
        reading.advisories += [
            Advisory(
                statement,
                _HERE,
                subject,
                referrer.digest,
                statement.author,
                NOT_VERIFIED if document.enveloped else UNSIGNED,
                component=component,
            )
            for component in components or [""]
        ]


def _words(label: str) -> str:
    """Return a label of the standard, such as ``component_not_present``, as a sentence."""
    return f"{label.replace('_', ' ').capitalize()}." if label else ""


def _stated(advisory: Advisory) -> Stated:
    statement = advisory.statement
    return Stated(
        statement.vulnerability,
        statement.aliases,
        statement.status,
        advisory.component,
        None if statement.timestamp == LONG_AGO else statement.timestamp,
        advisory.author,
        " ".join(
            filter(
                None, (_words(statement.justification), statement.impact, statement.action, statement.notes)
            )
        ),
        tuple(map(str, statement.fixed_by)),
        advisory.signature != UNSIGNED,
        advisory.referrer,
        advisory.subject,
    )
