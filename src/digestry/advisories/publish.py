"""Publishing a statement about an image: as an advisory that is attached to it in its registry."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from digestry.advisories import openvex_writer
from digestry.advisories.advisory import Advisory, AdvisoryReading, PartKind, in_force
from digestry.advisories.attachment_queries import AttachmentQueries
from digestry.advisories.attachments import LARGEST_ADVISORY, read_advisories
from digestry.advisories.attestation_forms import (
    AttachingRepository,
    Attestation,
    Signing,
    attach_attestation,
    enveloped_size,
)
from digestry.advisories.openvex import PREDICATE_TYPE
from digestry.advisories.statements import Document, Status
from digestry.errors import InvalidConfiguration, NotFound, RemoteNotFound, TooLarge
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.json_values import JsonObject
from digestry.model.reference import Reference


class PublishingRepository(AttachingRepository, Protocol):
    """One repository, as far as publishing uses it."""

    def resolve(self, target: str) -> Descriptor: ...


class PublishingRegistries(Protocol):
    """Where repositories come from: the client's session."""

    def repository(self, reference: Reference) -> PublishingRepository: ...


@dataclass(frozen=True, slots=True)
class TargetImage:
    """An image in its registry: ``image`` names its digest; ``tag`` is the tag that was resolved to it.
    ``part`` is what it is instead, if it is a layer or the config of images."""

    image: Reference
    descriptor: Descriptor
    tag: str | None = None
    part: PartKind | None = None

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest


@dataclass(frozen=True, slots=True)
class PublishedAdvisory:
    """One advisory that was attached: the statement's status, its image, and the referrer's digest."""

    status: Status
    subject: Reference
    referrer: Digest
    version: int


@dataclass(frozen=True, slots=True)
class PublishedDocument:
    """One document that was attached: the referrer's digest, and the document's version."""

    referrer: Digest
    version: int


@dataclass(frozen=True, slots=True)
class NewStatement:
    """A new statement about an image, or about ``components`` of it, each a package URL or a name.
    ``timestamp`` is when it was known to be true."""

    vulnerability: str
    status: Status
    author: str
    timestamp: datetime.datetime
    justification: str = ""
    note: str = ""
    action: str = ""
    """The advice for ``affected``, if no image is known that fixes it."""
    aliases: tuple[str, ...] = ()
    components: tuple[str, ...] = ()

    def check(self, *, fixes: bool) -> None:
        """Raise :class:`InvalidConfiguration` if OpenVEX does not allow it, or it says nothing."""
        if not self.vulnerability.strip():
            raise InvalidConfiguration("the vulnerability has no name", hint="write --id CVE-2026-1234")
        if self.justification and self.status != "not_affected":
            raise InvalidConfiguration("only not_affected has a justification")
        if self.status == "not_affected" and not (self.justification or self.note):
            raise InvalidConfiguration(
                "not_affected needs to say why not",
                hint=f"give --justification, one of {', '.join(openvex_writer.JUSTIFICATIONS)}, or --note",
            )
        if fixes and self.status != "affected":
            raise InvalidConfiguration("--fixed-by goes with --status affected only")


def find_image(
    registries: PublishingRegistries,
    reference: Reference,
    *,
    hint: str = "nothing was written; check the name, or push it first",
) -> TargetImage:
    """Return the image that ``reference`` names, its tag resolved. Raises :class:`NotFound` with ``hint``."""
    named = reference.or_latest()
    try:
        descriptor = registries.repository(named).resolve(named.target)
    except RemoteNotFound as error:
        raise NotFound(f"{named} is not in its registry", hint=hint) from error
    tag = named.tag if named.digest is None else None
    return TargetImage(named.with_digest(descriptor.digest), descriptor, tag)


def attach_statement(
    registries: PublishingRegistries,
    subject: TargetImage,
    statement: NewStatement,
    fixed_by: Sequence[TargetImage] = (),
    *,
    new_queries: Callable[[], AttachmentQueries],
    signing: Signing | None = None,
) -> list[PublishedAdvisory]:
    """Attach ``statement`` to ``subject``, and to each of ``fixed_by`` that the same vulnerability is fixed
    there. ``new_queries`` makes queries without cached answers.

    Each new document holds every statement in force about its digest, since scanners read one document only.
    Raises :class:`InvalidConfiguration`, :class:`Refused` and its family; documents that were attached by
    then stay, and a repetition completes the rest.
    """
    return attach_with_fixes(
        registries, subject, [statement], fixed_by, new_queries=new_queries, signing=signing
    )


def attach_with_fixes(
    registries: PublishingRegistries,
    subject: TargetImage,
    statements: Sequence[NewStatement],
    fixed_by: Sequence[TargetImage] = (),
    *,
    new_queries: Callable[[], AttachmentQueries],
    signing: Signing | None = None,
) -> list[PublishedAdvisory]:
    """Do as :func:`attach_statement` does, for several statements of one author in one document."""
    for statement in statements:
        statement.check(fixes=bool(fixed_by))
    if any(target.digest == subject.digest for target in fixed_by):
        raise InvalidConfiguration(f"{subject.image} cannot be what fixes itself")
    written = []
    # The fixed image first, so that readers of "affected" find the statement about its fix.
    for target in fixed_by:
        note = f"Fixed here; {subject.image} is affected."
        # The package that was affected is not there in that version.
        good = [
            replace(statement, status="fixed", note=note, justification="", components=())
            for statement in statements
        ]
        written += attach_statements(registries, target, good, new_queries=new_queries, signing=signing)
    written += attach_statements(
        registries, subject, statements, fixed_by, new_queries=new_queries, signing=signing
    )
    return written


def attach_statements(
    registries: PublishingRegistries,
    target: TargetImage,
    statements: Sequence[NewStatement],
    fixed_by: Sequence[TargetImage] = (),
    *,
    new_queries: Callable[[], AttachmentQueries],
    signing: Signing | None = None,
) -> list[PublishedAdvisory]:
    """Attach ``statements``, at least one and all of one author, to ``target`` in one document, and return it
    once for each status. Each statement that is affected names ``fixed_by``. Raises as
    :func:`attach_statement` does."""
    for statement in statements:
        statement.check(fixes=bool(fixed_by) and statement.status == "affected")
    new = [
        openvex_writer.make_statement(
            target.image,
            target.digest,
            vulnerability=statement.vulnerability,
            status=statement.status,
            timestamp=statement.timestamp,
            fixed_by=[fix.image for fix in fixed_by],
            justification=statement.justification,
            note=statement.note,
            action=statement.action,
            aliases=statement.aliases,
            components=statement.components,
        )
        for statement in statements
    ]
    where = target.image.repository_only()
    reading = read_advisories(new_queries(), where, [target.digest])
    newest = max(statement.timestamp for statement in statements)
    document = attach_document(
        registries,
        target,
        reading,
        [*_carried_on(reading, statements, signing), *new],
        author=statements[0].author,
        timestamp=newest,
        signing=signing,
    )
    statuses = dict.fromkeys(statement.status for statement in statements)
    return [
        PublishedAdvisory(status, target.image, document.referrer, document.version) for status in statuses
    ]


def attach_document(
    registries: PublishingRegistries,
    target: TargetImage,
    reading: AdvisoryReading,
    statements: Sequence[JsonObject],
    *,
    author: str,
    timestamp: datetime.datetime,
    signing: Signing | None = None,
) -> PublishedDocument:
    """Attach one document of ``statements`` to ``target``, whose version follows those of ``reading``.

    One that is signed has the predicate type that cosign calls ``openvex``, without a version. Raises
    :class:`InvalidConfiguration` for a form that is for images alone, :class:`TooLarge` for a document that
    no audit would read, and :class:`Refused` and its family.
    """
    if target.part is not None and signing is not None and signing.form == "tag":
        raise InvalidConfiguration(
            f"{target.digest} is a {target.part}, and cosign's tags are those of images",
            hint="attach a bundle: --signed-as bundle",
        )
    where = target.image.repository_only()
    repository = registries.repository(where)
    version = 1 + max((one.document.version for one in reading.attached), default=0)
    predicate_type = PREDICATE_TYPE if signing is None else media_types.OPENVEX
    content = openvex_writer.make_attestation(
        target.image,
        target.digest,
        list(statements),
        author=author,
        timestamp=timestamp,
        version=version,
        predicate_type=predicate_type,
    )
    size = len(content) if signing is None else enveloped_size(content)
    if size > LARGEST_ADVISORY:
        raise TooLarge(
            f"the advisory of {len(statements)} statements about {target.image} has {size} bytes, "
            f"and an audit reads {LARGEST_ADVISORY}",
            limit=LARGEST_ADVISORY,
            hint="nothing was written; state less, such as what is severe (--severity)",
        )
    attestation = Attestation(content, predicate_type, target.descriptor, timestamp)
    return PublishedDocument(attach_attestation(repository, attestation, signing), version)


def _carried_on(
    reading: AdvisoryReading, statements: Sequence[NewStatement], signing: Signing | None
) -> list[JsonObject]:
    """Return the statements in force that digestry wrote, except for those that ``statements`` replace.

    Statements of others stay where they are, and are not repeated: a key signs nothing that it has not signed
    before, and what is signed is not repeated without a signature.
    """
    newest: dict[tuple[str, str], datetime.datetime] = {}
    for new in statements:
        for component in new.components or ("",):
            place = new.vulnerability, component
            newest[place] = max(newest.get(place, new.timestamp), new.timestamp)

    def is_replaced(old: Advisory) -> bool:
        name, at = old.statement.vulnerability, old.statement.timestamp
        # A statement about the whole image replaces those about parts of it.
        return any(newest[place] >= at for place in ((name, ""), (name, old.component)) if place in newest)

    # A statement about several components is in force as often, and is carried on once.
    kept = {
        id(one.statement): one.statement.raw for one in own_in_force(reading, signing) if not is_replaced(one)
    }
    return list(kept.values())


def own_in_force(reading: AdvisoryReading, signing: Signing | None = None) -> list[Advisory]:
    """Return the statements in force that documents of digestry have: those that the key of ``signing`` has
    signed, without one those that are not signed."""
    own = [attached.document for attached in reading.attached if is_own(attached.document, signing)]
    # Not by their manifests: cosign's tag is one manifest with documents of many.
    ours = {id(statement) for document in own for statement in document.statements}
    return in_force(one for one in reading.advisories if id(one.statement) in ours)


def is_own(document: Document, signing: Signing | None = None) -> bool:
    """Return whether digestry wrote ``document``, and signed it with ``signing``, or else did not sign it."""
    if not document.ours or document.enveloped != (signing is not None):
        return False
    envelope = document.envelope
    if signing is None:
        return True
    return envelope is not None and any(
        signing.key.public_key.verifies(signature, envelope.message) for signature in envelope.signatures
    )
