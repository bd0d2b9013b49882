"""Advisories: OpenVEX statements about digests, as they hang on an image in its registry.

Each is a referrer of the image's manifest (distribution-spec, "Listing Referrers"), in the form
in which scanners look for it. Whoever may push to a repository may state something there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from digestry.errors import DigestryError, TooLarge, Unreachable
from digestry.fleet import vex
from digestry.fleet.identity import Identity
from digestry.fleet.lookup import Lookup
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference

State: TypeAlias = Literal["affected", "fixed", "not_affected", "not_assessed", "unknown"]
"""``fixed`` and ``not_affected``: somebody said so. ``not_assessed``: everything was read, and nobody
stated anything. ``unknown``: anything else, with its reasons."""

LARGEST_ADVISORY: Final = 1 << 20
"""In bytes."""
MOST_REFERRERS: Final = 100
"""Of one digest; further ones are not read, and that is said."""
MOST_SUBJECTS: Final = 64
"""Manifests and indexes of the same code whose advisories are read."""
PREDICATE_ANNOTATION: Final = "in-toto.io/predicate-type"

_BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
_ENVELOPE: Final = "application/vnd.dsse.envelope"
_OPENVEX: Final = "application/vnd.openvex"
_MOST_LAYERS: Final = 16
# On a tie of time and version the worse of two statements is believed.
_SEVERITY: Final[dict[vex.Status, int]] = {
    "affected": 3,
    "under_investigation": 2,
    "fixed": 1,
    "not_affected": 0,
}


@dataclass(frozen=True, slots=True)
class Advisory:
    """One statement, where it hangs (``subject``) and in which referrer it was read."""

    statement: vex.Statement
    repository: Reference
    subject: Digest
    referrer: Digest
    enveloped: bool
    author: str


@dataclass(frozen=True, slots=True)
class Attached:
    """One OpenVEX document that hangs on ``subject``."""

    document: vex.Document
    subject: Digest
    referrer: Digest


@dataclass(slots=True)
class Reading:
    """What was read of some digests' advisories. ``complete`` is False if something could not be;
    ``reasons`` say what, and what was skipped because it cannot be decoded."""

    attached: list[Attached] = field(default_factory=list)
    advisories: list[Advisory] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    complete: bool = True

    def current(self) -> list[Advisory]:
        """The statement in force for each vulnerability: the latest, by time, then by version."""
        return latest(self.advisories)


def read(
    lookup: Lookup,
    repository: Reference,
    subjects: Iterable[Digest],
    *,
    same_code: frozenset[Digest] = frozenset(),
) -> Reading:
    """Reads every advisory that hangs on one of ``subjects``. Errors are reasons.

    A statement whose products name other images than the subject and ``same_code`` is not about it.
    """
    reader = _Reader(lookup, repository)
    for position, subject in enumerate(sorted(subjects)):
        if position == MOST_SUBJECTS:
            reader.miss(f"more than {MOST_SUBJECTS} manifests have this code: not all were looked at")
            break
        if not reader.subject(subject, same_code | {subject}):
            break
    _attribute(reader.reading)
    return reader.reading


class _Reader:
    def __init__(self, lookup: Lookup, repository: Reference) -> None:
        self._lookup = lookup
        self._repository = repository
        self.reading = Reading()

    def miss(self, reason: str) -> None:
        """Notes something that there is, or may be, and that was not read."""
        self.reading.complete = False
        self.reading.reasons.append(reason)

    def subject(self, subject: Digest, about: frozenset[Digest]) -> bool:
        """Reads what hangs on one digest; False if there is no use in asking for more."""
        try:
            referrers = self._lookup.referrers(self._repository, subject)
        except DigestryError as error:
            self.miss(f"the advisories of {subject} could not be read: {error.message}")
            return not isinstance(error, Unreachable)
        # Those that announce themselves come first, so that a flood of others cannot hide them.
        wanted = sorted(filter(_may_be_openvex, referrers), key=lambda one: not _announces(one))
        if len(wanted) > MOST_REFERRERS:
            self.miss(f"{subject} has {len(wanted)} attestations: only {MOST_REFERRERS} were read")
        for referrer in wanted[:MOST_REFERRERS]:
            try:
                self._referrer(subject, referrer, about)
            except DigestryError as error:
                self.miss(f"the advisory {referrer.digest} could not be read: {error.message}")
                if isinstance(error, Unreachable):
                    return False
        return True

    def _referrer(self, subject: Digest, referrer: Descriptor, about: frozenset[Digest]) -> None:
        digest = referrer.digest
        skip = self.reading.reasons.append
        manifest = self._lookup.listed(self._repository, digest)
        if manifest is None:
            skip(f"the referrer {digest} is listed, but not there: it was skipped")
            return
        if manifest.subject is None or manifest.subject.digest != subject:
            skip(f"the referrer {digest} is attached to something else: it was skipped")
            return
        own = manifest.artifact_type or ""
        if _tells_nothing(referrer) and not _may_hold_openvex(own, manifest.annotations):
            return
        for layer in manifest.layers[:_MOST_LAYERS]:
            if layer.size > LARGEST_ADVISORY:
                raise TooLarge(f"it is larger than {LARGEST_ADVISORY} bytes", limit=LARGEST_ADVISORY)
            document = vex.decode(self._lookup.blob(self._repository, layer, limit=LARGEST_ADVISORY))
            if isinstance(document, vex.Unreadable):
                skip(f"the referrer {digest} cannot be decoded, and was skipped: {document.reason}")
            elif isinstance(document, vex.Document):
                if document.subjects and not document.subjects & about:
                    skip(f"the advisory {digest} says that it is about another image: it was skipped")
                else:
                    self._document(Attached(document, subject, digest), about)

    def _document(self, attached: Attached, about: frozenset[Digest]) -> None:
        document, digest = attached.document, attached.referrer
        reading = self.reading
        reading.attached.append(attached)
        reading.reasons += [f"in the advisory {digest}, {fault}: it was skipped" for fault in document.faults]
        if document.enveloped:
            reading.reasons.append(f"the advisory {digest} is signed; the signature was not verified")
        reading.advisories += [
            Advisory(
                statement, self._repository, attached.subject, digest, document.enveloped, statement.author
            )
            for statement in document.statements
            if not statement.about or statement.about & about
        ]


def _announces(referrer: Descriptor) -> bool:
    return vex.is_openvex((referrer.annotations or {}).get(PREDICATE_ANNOTATION, ""))


def _tells_nothing(referrer: Descriptor) -> bool:
    announced = PREDICATE_ANNOTATION in (referrer.annotations or {})
    return not announced and (referrer.artifact_type or "") in {"", media_types.OCI_EMPTY}


def _may_be_openvex(referrer: Descriptor) -> bool:
    return _may_hold_openvex(referrer.artifact_type or "", referrer.annotations)


def _may_hold_openvex(kind: str, annotations: Mapping[str, str] | None) -> bool:
    announced = (annotations or {}).get(PREDICATE_ANNOTATION)
    if announced is not None:
        return vex.is_openvex(announced)
    # cosign lists its bundles by the type of their empty config, in a registry without referrers.
    return kind in {"", media_types.OCI_EMPTY, media_types.IN_TOTO} or kind.startswith(
        (_BUNDLE, _ENVELOPE, _OPENVEX)
    )


def _attribute(reading: Reading) -> None:
    """Gives a statement that was carried on into later documents to whoever made it first."""
    first: dict[str, tuple[int, str, str]] = {}
    for one in reading.attached:
        for statement in one.document.statements:
            if statement.identity:
                key = (one.document.version, str(one.referrer), statement.author)
                first[statement.identity] = min(first.get(statement.identity, key), key)
    reading.advisories = [
        Advisory(
            one.statement,
            one.repository,
            one.subject,
            one.referrer,
            one.enveloped,
            first[one.statement.identity][2] if one.statement.identity in first else one.author,
        )
        for one in reading.advisories
    ]


def latest(advisories: Iterable[Advisory]) -> list[Advisory]:
    """The one in force for each vulnerability, by whatever name: the worst state first."""
    groups: list[tuple[set[str], list[Advisory]]] = []
    for advisory in advisories:
        names = {advisory.statement.vulnerability, *advisory.statement.aliases}
        same = [group for group in groups if group[0] & names]
        members = [advisory]
        for group in same:
            names |= group[0]
            members = group[1] + members
            groups.remove(group)
        groups.append((names, members))
    chosen = [max(members, key=_rank) for _, members in groups]
    return sorted(chosen, key=lambda one: (-_SEVERITY[one.statement.status], one.statement.vulnerability))


def _rank(advisory: Advisory) -> tuple[object, ...]:
    statement = advisory.statement
    return statement.timestamp, statement.version, _SEVERITY[statement.status], str(advisory.referrer)


# -- judging ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AdvisoryVerdict:
    """What is known against, and for, some code."""

    state: State
    advisories: tuple[Advisory, ...] = ()
    reasons: tuple[str, ...] = ()
    complete: bool = True


def gather(
    lookup: Lookup, identity: Identity, elsewhere: Mapping[Reference, frozenset[Digest]] | None = None
) -> Reading:
    """Reads the advisories of everything that is or holds the code of ``identity``.

    In the repositories ``elsewhere``, which have the same code as the given digests, they are looked for
    as well: whoever mirrors an image does not mirror what is said about it. Errors are reasons, and
    those from elsewhere leave the reading complete.
    """
    subjects = identity.closure - {identity.config} if identity.config else identity.closure
    reading = read(lookup, identity.repository, subjects, same_code=identity.closure)
    for repository, there in (elsewhere or {}).items():
        about = there - {identity.config} if identity.config else there
        other = read(lookup, repository, about, same_code=identity.closure | there)
        reading.attached += other.attached
        reading.advisories += other.advisories
        reading.reasons += [f"in {repository.name}: {reason}" for reason in other.reasons]
    return reading


class Stated:
    """What was read of all images, to be found by what it is about."""

    def __init__(self) -> None:
        self._by_subject: dict[Digest, dict[int, Advisory]] = {}
        self._by_config: dict[Digest, dict[int, Advisory]] = {}

    def add(self, config: Digest | None, advisories: Iterable[Advisory]) -> None:
        """Adds what was read of one image, whose config this is, if that is known."""
        for one in advisories:
            self._by_subject.setdefault(one.subject, {})[id(one)] = one
            if config is not None:
                self._by_config.setdefault(config, {})[id(one)] = one

    def about(self, identity: Identity) -> list[Advisory]:
        """What is about the code of ``identity``, wherever it was read."""
        found: dict[int, Advisory] = {}
        for digest in sorted(identity.closure):
            found |= self._by_subject.get(digest, {})
        if identity.config is not None:
            found |= self._by_config.get(identity.config, {})
        return list(found.values())

    def cures(self) -> set[Reference]:
        """The images that are said to fix something."""
        return {
            image
            for stated in self._by_subject.values()
            for one in stated.values()
            if one.statement.status == "affected"
            for image in one.statement.fixed_by
        }


def conclude(
    lookup: Lookup, identity: Identity | None, reading: Reading, others: Stated | None = None
) -> AdvisoryVerdict:
    """Judges the code of ``identity`` by what was read of it, and by ``others``: what was read of
    other images.

    What an index's advisory says holds for its children, and manifests that share a config are the
    same code, whichever repository they are in.
    """
    if identity is None:
        return AdvisoryVerdict("unknown")
    reasons = list(reading.reasons)
    known = {
        (one.referrer, one.statement.identity, one.statement.vulnerability) for one in reading.advisories
    }
    further = [
        one
        for one in (() if others is None else others.about(identity))
        if (one.referrer, one.statement.identity, one.statement.vulnerability) not in known
    ]
    current = latest([*reading.advisories, *further])
    reasons += [
        f"{one.statement.vulnerability}: stated in {one.repository.name}, about the same code"
        for one in current
        if one.repository != identity.repository
    ]
    statuses = {one.statement.status for one in current}
    state: State
    if "affected" in statuses:
        state = "affected"
    elif "under_investigation" in statuses:
        state = "unknown"
        reasons += [
            f"{one.statement.vulnerability} is under investigation"
            for one in current
            if one.statement.status == "under_investigation"
        ]
    elif not reading.complete or not identity.confirmed or identity.contested:
        state = "unknown"
    elif "fixed" in statuses:
        state = "fixed"
    else:
        state = "not_affected" if current else "not_assessed"
    if state != "affected":
        doubts = _doubts(lookup, identity)
        if doubts:
            state = "unknown"
            reasons += doubts
    if state == "unknown" and not identity.confirmed:
        reasons.append("no registry knows what runs, so that nothing can be known to be about it")
    return AdvisoryVerdict(state, tuple(current), tuple(dict.fromkeys(reasons)), reading.complete)


def _doubts(lookup: Lookup, identity: Identity) -> list[str]:
    """What is said against images of which one may be what runs."""
    found = []
    for digest in sorted(identity.possible):
        reading = read(lookup, identity.repository, identity.holding(digest))
        bad = [one for one in reading.current() if one.statement.status == "affected"]
        found += [f"{one.statement.vulnerability} affects {digest}, which may be what runs" for one in bad]
        if not reading.complete:
            found += reading.reasons
    return found
