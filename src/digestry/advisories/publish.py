"""Publishing a statement about an image: as an advisory that is attached to it in its registry."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, Protocol

from digestry.advisories import openvex_writer
from digestry.advisories.advisory import Advisory, AdvisoryReading, PartKind, in_force
from digestry.advisories.attachment_queries import AttachmentQueries
from digestry.advisories.attachments import LARGEST_ADVISORY, read_advisories
from digestry.advisories.openvex import PREDICATE_TYPE
from digestry.advisories.statements import Status
from digestry.errors import InvalidConfiguration, NotFound, Refused, RemoteNotFound, TooLarge
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.json_values import JsonObject
from digestry.model.manifest import encode
from digestry.model.reference import Reference

_EMPTY: Final = b"{}"
_CREATED: Final = "org.opencontainers.image.created"


class PublishingRepository(Protocol):
    """One repository, as far as publishing uses it. Its methods raise
    :class:`~digestry.errors.DigestryError`."""

    def resolve(self, target: str) -> Descriptor: ...

    def push_blob(self, descriptor: Descriptor, source: Callable[[], BinaryIO]) -> object: ...

    def push_manifest(self, raw: bytes, media_type: str) -> Digest: ...

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> Sequence[Descriptor]: ...


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
) -> list[PublishedAdvisory]:
    """Attach ``statement`` to ``subject``, and to each of ``fixed_by`` that the same vulnerability is fixed
    there. ``new_queries`` makes queries without cached answers.

    Each new document holds every statement in force about its digest, since scanners read one document only.
    Raises :class:`InvalidConfiguration`, :class:`Refused` and its family; documents that were attached by
    then stay, and a repetition completes the rest.
    """
    return attach_with_fixes(registries, subject, [statement], fixed_by, new_queries=new_queries)


def attach_with_fixes(
    registries: PublishingRegistries,
    subject: TargetImage,
    statements: Sequence[NewStatement],
    fixed_by: Sequence[TargetImage] = (),
    *,
    new_queries: Callable[[], AttachmentQueries],
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
        written += attach_statements(registries, target, good, new_queries=new_queries)
    written += attach_statements(registries, subject, statements, fixed_by, new_queries=new_queries)
    return written


def attach_statements(
    registries: PublishingRegistries,
    target: TargetImage,
    statements: Sequence[NewStatement],
    fixed_by: Sequence[TargetImage] = (),
    *,
    new_queries: Callable[[], AttachmentQueries],
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
        [*_carried_on(reading, statements), *new],
        author=statements[0].author,
        timestamp=newest,
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
) -> PublishedDocument:
    """Attach one document of ``statements`` to ``target``, whose version follows those of ``reading``.

    Raises :class:`TooLarge` for a document that no audit would read, and :class:`Refused` and its family.
    """
    where = target.image.repository_only()
    repository = registries.repository(where)
    version = 1 + max((one.document.version for one in reading.attached), default=0)
    content = openvex_writer.make_attestation(
        target.image, target.digest, list(statements), author=author, timestamp=timestamp, version=version
    )
    if len(content) > LARGEST_ADVISORY:
        raise TooLarge(
            f"the advisory of {len(statements)} statements about {target.image} has {len(content)} bytes, "
            f"and an audit reads {LARGEST_ADVISORY}",
            limit=LARGEST_ADVISORY,
            hint="nothing was written; state less, such as what is severe (--severity)",
        )
    config = Descriptor(media_types.OCI_EMPTY, Digest.of(_EMPTY), len(_EMPTY))
    annotations = {media_types.PREDICATE_TYPE: PREDICATE_TYPE}
    layer = Descriptor(media_types.IN_TOTO, Digest.of(content), len(content), annotations=annotations)
    raw = encode(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": media_types.IN_TOTO,
            "config": config,
            "layers": [layer],
            "subject": Descriptor(
                target.descriptor.media_type, target.descriptor.digest, target.descriptor.size
            ),
            "annotations": {**annotations, _CREATED: openvex_writer.openvex_time(timestamp)},
        }
    )
    repository.push_blob(config, lambda: io.BytesIO(_EMPTY))
    repository.push_blob(layer, lambda: io.BytesIO(content))
    referrer = repository.push_manifest(raw, media_types.OCI_MANIFEST)
    if all(one.digest != referrer for one in repository.referrers(target.digest)):
        raise Refused(
            f"{where.host} took the advisory {referrer}, but does not list it with {target.image}",
            status=200,
            hint="this registry does not keep referrers; an audit would not find the advisory",
        )
    return PublishedDocument(referrer, version)


def _carried_on(reading: AdvisoryReading, statements: Sequence[NewStatement]) -> list[JsonObject]:
    """Return the statements in force that digestry wrote, except for those that ``statements`` replace.

    Statements of others, perhaps signed, stay where they are, and are not repeated.
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
    kept = {id(one.statement): one.statement.raw for one in own_in_force(reading) if not is_replaced(one)}
    return list(kept.values())


def own_in_force(reading: AdvisoryReading) -> list[Advisory]:
    """Return the statements in force that documents of digestry have."""
    ours = {one.referrer for one in reading.attached if one.document.ours}
    return in_force(one for one in reading.advisories if one.referrer in ours)
