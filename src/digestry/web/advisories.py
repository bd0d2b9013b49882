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
    ImagePart,
    drop_superseded,
    in_force,
)
from digestry.advisories.documents import decode_documents
from digestry.advisories.signatures import Signature
from digestry.advisories.statements import LONG_AGO, Document
from digestry.advisories.trust import TrustPolicy
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
_HOST: Final = "here.invalid"
"""The host of the repository of a page, whose rules of trust name no host."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement in force. ``at`` is None where the document does not say; ``signed`` says whether a trusted
    key has signed it. ``subject`` is what it is attached to: the image, an index that lists it, or a layer
    of it; ``repository`` is where that is."""

    vulnerability: str
    aliases: tuple[str, ...]
    status: str
    component: str
    at: datetime.datetime | None
    author: str
    text: str
    fixed_by: tuple[str, ...]
    signed: Signature
    referrer: Digest
    subject: Digest
    layer: bool
    repository: str


@dataclass(frozen=True, slots=True)
class UnreadAdvisory:
    """A referrer that could not be read, of a repository."""

    repository: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Attached:
    """The statements in force, the worst first; ``unread`` are the referrers that could not be read, and
    ``uncounted`` the reasons why statements do not count."""

    statements: tuple[Stated, ...]
    unread: tuple[UnreadAdvisory, ...]
    uncounted: tuple[str, ...] = ()


def read_attached(
    host: Host,
    name: str,
    referrers: Iterable[StoredManifest],
    elsewhere: Iterable[tuple[str, StoredManifest]] = (),
    *,
    digest: Digest,
    whole: frozenset[Digest],
) -> Attached:
    """Read the advisories about ``digest``, an image or a layer of the repository ``name``.

    They are among the ``referrers`` of it, of its indexes and of its layers, and among those that other
    repositories have ``elsewhere`` of its layers and config: the newest of them, and of each the statements
    that count and no newer one replaces. ``whole`` are the digests of all of an image: what is attached to
    others is about a layer, and says nothing good of the rest. Nor does what other repositories have, except
    about ``digest`` itself.
    """
    reading = AdvisoryReading()
    counting = _Counting(host.trust, Reference(_HOST, name), reading, digest, whole)
    unread: list[UnreadAdvisory] = []
    wanted = [(name, referrer) for referrer in referrers if _may_state(referrer)]
    wanted += [(other, referrer) for other, referrer in elsewhere if _may_state(referrer)]
    wanted.sort(key=lambda one: -one[1].pushed_at)
    for where, referrer in wanted[:_MOST_DOCUMENTS]:
        documents = _documents(host, referrer)
        if documents is None:
            unread.append(UnreadAdvisory(where, referrer.digest))
        for document in documents or ():
            counting.add(document, referrer, Reference(_HOST, where))
    unread += [UnreadAdvisory(where, referrer.digest) for where, referrer in wanted[_MOST_DOCUMENTS:]]
    drop_superseded(reading)
    current = in_force(reading.advisories)
    uncounted = tuple(dict.fromkeys(reading.reasons))
    return Attached(tuple(map(_stated, current[:MOST])), tuple(unread), uncounted)


def _may_state(referrer: StoredManifest) -> bool:
    annotations = referrer.annotations
    predicate = annotations.get(media_types.PREDICATE_TYPE) or annotations.get(
        media_types.BUNDLE_PREDICATE_TYPE, ""
    )
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


class _Counting:
    """Adds to ``reading`` the statements that count of an image in ``repository``, and the reasons why others
    do not."""

    def __init__(
        self,
        trust: TrustPolicy,
        repository: Reference,
        reading: AdvisoryReading,
        digest: Digest,
        whole: frozenset[Digest],
    ) -> None:
        self._digest = digest
        self._whole = whole
        self._trust = trust
        self._repository = repository
        self._reading = reading

    def add(self, document: Document, referrer: StoredManifest, where: Reference) -> None:
        """Add a document of the repository ``where``, unless it says that it is about another image."""
        subject = referrer.subject
        if subject is None or (document.subjects and subject not in document.subjects):
            return
        signature = self._trust.verify(document, where)
        self._reading.attached.append(AttachedDocument(document, where, subject, referrer.digest, signature))
        rules = tuple(dict.fromkeys((where, self._repository)))
        part = None
        if subject not in self._whole:
            part = ImagePart("layer", subject)
        elif where != self._repository and subject != self._digest:
            part = ImagePart("config", subject)
        for statement in document.statements:
            objections = (self._trust.objection(signature, statement.status, rule) for rule in rules)
            objection = next(filter(None, objections), "")
            if objection:
                self._reading.note(objection.replace(f" of {self._repository.name}", ""))
                continue
            components = [one for product in statement.products for one in product.components]
            self._reading.advisories += [
                Advisory(
                    statement,
                    where,
                    subject,
                    referrer.digest,
                    statement.author,
                    signature,
                    component=component,
                    part=part,
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
        advisory.signature,
        advisory.referrer,
        advisory.subject,
        advisory.part is not None,
        advisory.repository.repository,
    )
