"""An advisory: a statement that is attached to an image, and which of several are in force.

Whoever may push to a repository may state something there.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from digestry.advisories.statements import Document, Statement, Status
from digestry.model.digest import Digest
from digestry.model.reference import Reference

SEVERITY: Final[dict[Status, int]] = {
    "affected": 3,
    "under_investigation": 2,
    "fixed": 1,
    "not_affected": 0,
}
"""How bad a status is: of several that are in force at once, the worst is believed."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """One statement about one product, attached to ``subject`` by the manifest ``referrer``.

    ``product`` tells products of one image apart: empty for the image itself, else how the statement
    names it. ``component`` is the subcomponent that it is about. ``sure`` is False if it is about a
    package of which it is not known whether the image has it in that version.
    """

    statement: Statement
    repository: Reference
    subject: Digest
    referrer: Digest
    enveloped: bool
    author: str
    product: str = ""
    component: str = ""
    sure: bool = True

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
    """One document that is attached to ``subject``, in the manifest ``referrer``."""

    document: Document
    subject: Digest
    referrer: Digest


@dataclass(slots=True)
class AdvisoryReading:
    """What was read of some digests' advisories. ``missed`` is what could not be read, or could be about
    this or not, and in which repository; ``reasons`` say that, and what was passed over."""

    attached: list[AttachedDocument] = field(default_factory=list)
    advisories: list[Advisory] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    missed: list[tuple[Reference, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything was read, and it could be told what it is about."""
        return not self.missed

    def miss(self, repository: Reference, reason: str) -> None:
        """Note something of ``repository`` that there is, or may be, and that was not read."""
        self.missed.append((repository, reason))
        self.reasons.append(reason)

    def note(self, reason: str) -> None:
        """Note something that changes nothing of what is known."""
        self.reasons.append(reason)

    def current(self) -> list[Advisory]:
        """Return the statements in force: see :func:`latest`."""
        return in_force(self.advisories)


def in_force(advisories: Iterable[Advisory]) -> list[Advisory]:
    """Return the statements in force, the worst first.

    A statement is superseded by a newer one, by time, then by version, about the same vulnerability by
    any of its names, the same product and the same subcomponent. Several may be in force about one
    vulnerability: of different components, or of the same time.
    """
    every = list(advisories)
    newest: dict[tuple[str, str, str], tuple[datetime.datetime, int]] = {}
    for one in every:
        for name in one.names:
            place = (one.product, one.component, name)
            newest[place] = max(newest.get(place, one.rank), one.rank)
    chosen: dict[tuple[object, ...], Advisory] = {}
    for one in every:
        if any(newest[one.product, one.component, name] > one.rank for name in one.names):
            continue
        # One statement in several documents is one.
        same = (one.product, one.component, one.names, one.statement.status, one.author, one.statement.notes)
        known = chosen.get(same)
        if known is None or str(one.referrer) > str(known.referrer):
            chosen[same] = one
    return sorted(
        chosen.values(),
        key=lambda one: (
            -SEVERITY[one.statement.status],
            one.statement.vulnerability,
            one.product,
            one.component,
            str(one.referrer),
        ),
    )


def contradictions(current: Iterable[Advisory]) -> list[str]:
    """Return who says what about each vulnerability of which not all statements in force say the same."""
    by_name: dict[str, list[Advisory]] = {}
    for one in current:
        for name in one.names:
            by_name.setdefault(name, []).append(one)
    found = []
    for several in by_name.values():
        if len({one.statement.status for one in several}) > 1:
            said = "; ".join(
                f"{one.author or 'an author who is not named'} says {one.statement.status.replace('_', ' ')}"
                f"{_of(one)} (advisory {one.referrer.short})"
                for one in several
            )
            worst = several[0].statement
            found.append(
                f"{worst.vulnerability}: {said}: the worst, {worst.status.replace('_', ' ')}, is believed"
            )
    return list(dict.fromkeys(found))


def _of(advisory: Advisory) -> str:
    about = advisory.component or advisory.product
    return f" of {about}" if about else ""


def drop_superseded(reading: AdvisoryReading) -> None:
    """Remove superseded versions of documents, and attribute a repeated statement to its first author."""
    newest: dict[tuple[str, str, str], AttachedDocument] = {}
    for one in reading.attached:
        document = one.document
        if document.identity:
            name = (document.kind, document.identity, document.author)
            if name not in newest or document.version > newest[name].document.version:
                newest[name] = one
    old: dict[Digest, AttachedDocument] = {}
    for one in reading.attached:
        newer = newest.get((one.document.kind, one.document.identity, one.document.author), one)
        if newer.document.version > one.document.version:
            old[one.referrer] = newer
            reading.reasons.append(
                f"the advisory {one.referrer} is version {one.document.version} of a document of which "
                f"{newer.referrer} is version {newer.document.version}: it is not in force any more"
            )
    replaced = {id(st) for one in reading.attached if one.referrer in old for st in one.document.statements}
    kept = {id(st) for one in reading.attached if one.referrer not in old for st in one.document.statements}
    first = _first_authors(reading)
    reading.advisories = [
        replace(one, author=first.get(one.statement.identity, one.author))
        for one in reading.advisories
        if id(one.statement) not in replaced - kept
    ]


def _first_authors(reading: AdvisoryReading) -> dict[str, str]:
    first: dict[str, tuple[int, str, str]] = {}
    for one in reading.attached:
        for statement in one.document.statements:
            if statement.identity and one.document.ours:
                key = (one.document.version, str(one.referrer), statement.author)
                first[statement.identity] = min(first.get(statement.identity, key), key)
    return {identity: author for identity, (_, _, author) in first.items()}
