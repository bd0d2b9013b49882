"""An advisory: a statement that is attached to an image, and which of several are in force.

Every user who may push to a repository may publish statements there.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from digestry.advisories.signatures import UNSIGNED, Signature
from digestry.advisories.statements import GOOD, Document, Statement, Status
from digestry.model.digest import Digest
from digestry.model.reference import Reference

SEVERITY: Final[dict[Status, int]] = {
    "affected": 3,
    "under_investigation": 2,
    "fixed": 1,
    "not_affected": 0,
}
"""How bad a status is: of several that are in force at once, the worst is believed."""


PartKind: TypeAlias = Literal["layer", "config"]


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A layer or the config of an image. ``base`` is the image that a layer came with, by tag and digest: the
    one with the fewest layers that its registry knows. ``made_by`` is the step of a build that made it. Both
    are empty if they are not known."""

    kind: PartKind
    digest: Digest
    base: Reference | None = None
    made_by: str = ""


@dataclass(frozen=True, slots=True)
class Advisory:
    """One statement about one product, attached to ``subject`` by the manifest ``referrer``.

    ``product`` distinguishes the products of one image: empty for the image itself, else its name in the
    statement. ``component`` is the subcomponent that it is about. ``sure`` is False if it is about a package
    that the image may not have in that version. ``signature`` is that of its document. ``part`` is the part
    of an image that the statement was read for, if it is not attached to the image itself.
    """

    statement: Statement
    repository: Reference
    subject: Digest
    referrer: Digest
    author: str
    signature: Signature = UNSIGNED
    product: str = ""
    component: str = ""
    sure: bool = True
    part: ImagePart | None = None

    @property
    def scope(self) -> tuple[Digest, Reference] | None:
        """Where statements replace each other: None for an image itself; a part and a repository for others.

        Whoever may push to some repository cannot end what another states about a part of many images.
        """
        return None if self.part is None else (self.part.digest, self.repository)

    @property
    def names(self) -> frozenset[str]:
        """The vulnerability's names, as they are compared."""
        return frozenset(
            name.strip().casefold() for name in (self.statement.vulnerability, *self.statement.aliases)
        )

    @property
    def rank(self) -> tuple[datetime.datetime, int]:
        """The order in which statements supersede each other."""
        return self.statement.timestamp, self.statement.version


@dataclass(frozen=True, slots=True)
class AttachedDocument:
    """One document that is attached to ``subject``, in the manifest ``referrer`` of ``repository``."""

    document: Document
    repository: Reference
    subject: Digest
    referrer: Digest
    signature: Signature = UNSIGNED

    @property
    def identity(self) -> tuple[str, ...]:
        """The document that this is a version of, on whatever subject: another signer's is another one.

        Without a trusted signature it is one of this repository alone: whoever may push to some repository
        cannot replace what another states.
        """
        document, signer = self.document, self.signature.signer
        where = "" if signer else str(self.repository)
        return document.kind, document.identity, document.author, signer, where


@dataclass(slots=True)
class AdvisoryReading:
    """The advisories of some digests. ``missed`` are the documents that could not be read, or may be about
    another image, with their repositories; ``reasons`` say that, and what was ignored. ``superseded`` are
    those of documents of which a newer version was read."""

    attached: list[AttachedDocument] = field(default_factory=list)
    advisories: list[Advisory] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    missed: list[tuple[Reference, str]] = field(default_factory=list)
    superseded: list[Advisory] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything was read, and the subject of each statement is known."""
        return not self.missed

    def miss(self, repository: Reference, reason: str) -> None:
        """Note something of ``repository`` that there is, or may be, and that was not read."""
        self.missed.append((repository, reason))
        self.reasons.append(reason)

    def note(self, reason: str) -> None:
        """Add a reason that does not change the assessment."""
        self.reasons.append(reason)

    def add(self, other: AdvisoryReading, *, where: str = "") -> None:
        """Add all of ``other``; ``where`` stands before its reasons."""
        self.attached += other.attached
        self.advisories += other.advisories
        self.reasons += [where + reason for reason in other.reasons]
        self.missed += other.missed
        self.superseded += other.superseded

    def current(self) -> list[Advisory]:
        """Return the statements in force: see :func:`latest`."""
        return in_force(self.advisories)


def in_force(advisories: Iterable[Advisory]) -> list[Advisory]:
    """Return the statements in force, the worst first.

    A statement is superseded by a newer one, by time, then by version, about the same vulnerability by
    any of its names, the same product, and the same subcomponent or the whole product. Several may be in
    force about one vulnerability: of different components, or of the same time.

    A statement about a part of an image is superseded by a newer one about that part in the same repository,
    or about the image itself. A good one says nothing of the rest of the image, and is left out.
    """
    every = list(advisories)
    newest: dict[_Scope, tuple[datetime.datetime, int]] = {}
    for advisory in every:
        for name in advisory.names:
            place = (advisory.scope, advisory.product, advisory.component, name)
            newest[place] = max(newest.get(place, advisory.rank), advisory.rank)
    chosen: dict[tuple[object, ...], Advisory] = {}
    for advisory in every:
        if advisory.part is not None and advisory.statement.status in GOOD:
            continue
        if any(newest[place] > advisory.rank for place in _places(advisory) if place in newest):
            continue
        # One statement in several documents is one.
        identity = (
            advisory.part and advisory.part.digest,
            advisory.product,
            advisory.component,
            advisory.names,
            advisory.statement.status,
            advisory.author,
            advisory.statement.notes,
        )
        known = chosen.get(identity)
        if known is None or _preference(advisory) > _preference(known):
            chosen[identity] = advisory
    return sorted(
        chosen.values(),
        key=lambda advisory: (
            -SEVERITY[advisory.statement.status],
            advisory.statement.vulnerability,
            advisory.product,
            advisory.component,
            str(advisory.referrer),
            str(advisory.part and advisory.part.digest),
        ),
    )


_Scope: TypeAlias = tuple[tuple[Digest, Reference] | None, str, str, str]


def _preference(advisory: Advisory) -> tuple[bool, str]:
    return advisory.signature.state == "verified", str(advisory.referrer)


def _places(advisory: Advisory) -> set[_Scope]:
    """Return where a newer statement supersedes ``advisory``."""
    products = {(advisory.scope, advisory.product)}
    if advisory.part is not None:
        products |= {(None, advisory.product), (None, "")}
    return {
        (scope, product, component, name)
        for scope, product in products
        for component in (advisory.component, "")
        for name in advisory.names
    }


def contradictions(current: Iterable[Advisory]) -> list[str]:
    """Return the contradictions: who states what about each vulnerability on which statements in force
    differ."""
    by_name: dict[str, list[Advisory]] = {}
    for advisory in current:
        for name in advisory.names:
            by_name.setdefault(name, []).append(advisory)
    found = []
    for several in by_name.values():
        if len({advisory.statement.status for advisory in several}) > 1:
            opinions = "; ".join(
                f"{advisory.author or 'an author who is not named'} says "
                f"{advisory.statement.status.replace('_', ' ')}{_of(advisory)} "
                f"(advisory {advisory.referrer.short})"
                for advisory in several
            )
            worst = several[0].statement
            found.append(
                f"{worst.vulnerability}: {opinions}: the worst, {worst.status.replace('_', ' ')}, is believed"
            )
    return list(dict.fromkeys(found))


def _of(advisory: Advisory) -> str:
    about = advisory.component or advisory.product
    return f" of {about}" if about else ""


def drop_superseded(reading: AdvisoryReading) -> None:
    """Remove superseded versions of documents, and attribute a repeated statement to its first author.

    A version supersedes the older ones on whatever both are attached to: an image, its index, a layer. A
    reading of several of these together may be given again.
    """
    counted = [attached for attached in reading.attached if attached.signature.state != "invalid"]
    newest: dict[tuple[str, ...], AttachedDocument] = {}
    for attached in counted:
        if attached.document.identity:
            known = newest.setdefault(attached.identity, attached)
            if attached.document.rank > known.document.rank:
                newest[attached.identity] = attached
    old: set[int] = set()
    for attached in counted:
        newer = newest.get(attached.identity, attached)
        if newer.document.rank > attached.document.rank:
            old.add(id(attached))
            reason = (
                f"the advisory {attached.referrer} is {_version(attached, newer)} of a document of which"
                f" {newer.referrer} is {_version(newer, attached)}: it is not in force any more"
            )
            if not any(known.endswith(reason) for known in reading.reasons):
                reading.reasons.append(reason)
    replaced = {
        id(st) for attached in reading.attached if id(attached) in old for st in attached.document.statements
    }
    kept = {
        id(st)
        for attached in reading.attached
        if id(attached) not in old
        for st in attached.document.statements
    }
    first = _first_authors(counted)
    gone = replaced - kept
    reading.superseded += [one for one in reading.advisories if id(one.statement) in gone]
    reading.advisories = [
        replace(
            advisory,
            author=first.get((advisory.statement.identity, advisory.signature.signer), advisory.author),
        )
        for advisory in reading.advisories
        if id(advisory.statement) not in gone
    ]


def _version(attached: AttachedDocument, other: AttachedDocument) -> str:
    """Return which version of a document this is, by what tells it from the ``other`` one."""
    version = attached.document.shown_version
    if version != other.document.shown_version:
        return f"version {version}"
    return f"version {version} as of {attached.document.updated.isoformat()}"


def _first_authors(documents: Iterable[AttachedDocument]) -> dict[tuple[str, str], str]:
    """Return the first author of each statement that digestry wrote, by its identity and signer."""
    first: dict[tuple[str, str], tuple[int, str, str]] = {}
    for attached in documents:
        for statement in attached.document.statements:
            if statement.identity and attached.document.ours:
                key = (attached.document.version, str(attached.referrer), statement.author)
                place = (statement.identity, attached.signature.signer)
                first[place] = min(first.get(place, key), key)
    return {place: author for place, (_, _, author) in first.items()}
