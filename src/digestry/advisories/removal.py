"""Removing statements about an image, and whole documents that are attached to it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from digestry.advisories.advisory import Advisory, AdvisoryReading
from digestry.advisories.attachment_queries import AttachmentQueries
from digestry.advisories.attachments import read_advisories
from digestry.advisories.publish import (
    PublishedDocument,
    PublishingRegistries,
    PublishingRepository,
    TargetImage,
    attach_document,
    is_own,
    own_in_force,
)
from digestry.errors import NotFound
from digestry.model.digest import Digest
from digestry.model.reference import Reference

_MOST_NAMED: Final = 10


class DeletingRepository(PublishingRepository, Protocol):
    """One repository, as far as removing uses it."""

    def delete(self, target: str) -> None: ...


class DeletingRegistries(PublishingRegistries, Protocol):
    """Where repositories come from: the client's session."""

    def repository(self, reference: Reference) -> DeletingRepository: ...


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """The removals of statements about an image.

    ``statements`` are those in force that are removed, ``documents`` the referrers that are deleted. ``kept``
    are digestry's other statements in force, which a new document holds if one that had them is deleted.
    ``foreign`` are statements about the same vulnerabilities in documents of others, which stay.
    """

    target: TargetImage
    reading: AdvisoryReading
    statements: tuple[Advisory, ...]
    documents: tuple[Digest, ...]
    kept: tuple[Advisory, ...]
    foreign: tuple[Advisory, ...]


def plan_removal(
    queries: AttachmentQueries,
    target: TargetImage,
    *,
    vulnerabilities: Iterable[str] = (),
    documents: Iterable[Digest] = (),
) -> RemovalPlan:
    """Return the removals by the names of ``vulnerabilities``, among digestry's own statements, and of
    ``documents`` by any author.

    Raises :class:`NotFound` for a name that no statement about the image has, or a document that is not
    attached to it, and the errors of the queries.
    """
    reading = read_advisories(queries, target.image.repository_only(), [target.digest])
    chosen = frozenset(documents)
    attached = {one.referrer for one in reading.attached}
    for document in sorted(chosen - attached):
        raise NotFound(f"{document} is not an advisory that is attached to {target.image}")
    names = {name.strip().casefold(): name for name in vulnerabilities}
    ours = {one.referrer for one in reading.attached if is_own(one.document)}
    named = [advisory for advisory in reading.advisories if names.keys() & advisory.names]
    known = {name for advisory in named for name in advisory.names}
    for name in sorted(names.keys() - known):
        raise NotFound(
            f"nothing is stated about {names[name]} of {target.image}",
            hint="`digestry advisory list` shows what is",
        )
    deleted = chosen | {advisory.referrer for advisory in named if advisory.referrer in ours}
    in_force = reading.current()
    going = [
        advisory
        for advisory in in_force
        if advisory.referrer in chosen or (advisory.referrer in ours and names.keys() & advisory.names)
    ]
    kept = [
        advisory
        for advisory in own_in_force(reading)
        if advisory.referrer not in chosen and not names.keys() & advisory.names
    ]
    foreign = [
        advisory
        for advisory in in_force
        if names.keys() & advisory.names and advisory.referrer not in ours | chosen
    ]
    return RemovalPlan(target, reading, tuple(going), tuple(sorted(deleted)), tuple(kept), tuple(foreign))


def remove(
    registries: DeletingRegistries,
    plan: RemovalPlan,
    *,
    author: str,
    now: datetime.datetime,
    done: Callable[[Digest], None] = lambda _: None,
) -> PublishedDocument | None:
    """Carry out ``plan``, and return the document with the kept statements; None if none was needed.

    The kept statements are attached before anything is deleted, so that an interruption loses none of them.
    ``done`` is called with each document that was deleted. Raises :class:`Refused` and its family.
    """
    repository = registries.repository(plan.target.image)
    written = None
    if any(advisory.referrer in plan.documents for advisory in plan.kept):
        # A statement about several components is in force as often, and is written once.
        statements = {id(advisory.statement): advisory.statement.raw for advisory in plan.kept}
        written = attach_document(
            registries,
            plan.target,
            plan.reading,
            list(statements.values()),
            author=_authors(plan.kept) or author,
            timestamp=now,
        )
    for document in plan.documents:
        if written is None or document != written.referrer:
            repository.delete(str(document))
            done(document)
    return written


def _authors(advisories: Iterable[Advisory]) -> str:
    """Return the authors of the statements, in one line."""
    names = list(dict.fromkeys(advisory.author for advisory in advisories if advisory.author))
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and others"
