"""The JSON documents of commands that do something, which are no listings; fields are the JSON's keys."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from digestry.admission.policy import Action, Condition
from digestry.model.digest import Digest


class CopiedImage(Struct, frozen=True):
    """An image of a copy, with its digests there, here, and before."""

    name: str | None
    digest: Digest
    source_digest: Digest
    previous_digest: Digest | None
    referrers: Sequence[Digest]


class SkippedBlob(Struct, frozen=True):
    """A blob that was not copied, with the reason."""

    digest: Digest
    reason: str


class Copy(Struct, frozen=True):
    """The outcome of `digestry copy`."""

    source: str
    target: str
    dry_run: bool
    images: Sequence[CopiedImage]
    blobs_sent: int
    bytes_sent: int
    blobs_mounted: int
    blobs_present: int
    skipped: Sequence[SkippedBlob]


class StandingDigest(Struct, frozen=True):
    """A digest, and for how many seconds it is known to have stood under the tag, from when to when."""

    digest: Digest
    seconds: int
    since: datetime.datetime | None
    until: datetime.datetime | None
    periods: int


class Resolve(Struct, frozen=True):
    """The outcome of `digestry resolve`; ``stood`` is null with a ``refusal``."""

    repository: str
    tag: str
    at: datetime.datetime
    least_seconds: int
    basis: Literal["journal", "observations"]
    reason: str
    stood: StandingDigest | None
    newer: Sequence[StandingDigest]
    current: Digest | None
    refusal: Literal["absent", "unobserved", "young", "clock"] | None
    let_through: str | None
    ready_at: datetime.datetime | None


class DeclaredCopy(Struct, frozen=True):
    """The outcome of one copy of a file; ``error`` is null if it was done."""

    source: str
    target: str
    images: Sequence[CopiedImage]
    bytes_sent: int
    error: str | None


class Sync(Struct, frozen=True):
    """The outcome of a round of `digestry sync`."""

    dry_run: bool
    copies: Sequence[DeclaredCopy]


class DeletedTag(Struct, frozen=True):
    """A tag or a digest that `digestry rm` deleted, and the number of others that need the digest."""

    name: str
    tag: str | None
    digest: Digest
    other_tags: Sequence[str]
    indexes: int | None
    referrers: int | None
    deleted: Literal["tag", "digest"] | None


class Prune(Struct, frozen=True):
    """The names and content that `digestry prune` removed, or would remove."""

    names: Sequence[str]
    digests: Sequence[Digest]
    size: int
    partial_downloads: int
    removed: bool


class AttachedFile(Struct, frozen=True):
    """A file of an artifact."""

    name: str | None
    digest: Digest
    size: int
    media_type: str


class Attach(Struct, frozen=True):
    """The artifact that `digestry attach` made."""

    digest: Digest
    subject: Digest
    artifact_type: str
    files: Sequence[AttachedFile]


class AttachedAdvisory(Struct, frozen=True):
    """A document that is attached to an image, as it is."""

    image: str
    referrer: str
    kind: str
    signature: str | None
    signer: str | None
    document: Mapping[str, object]


class ImportedImage(Struct, frozen=True):
    """The statements about an image: ``new`` has the number of statements of each status."""

    name: str
    digest: str
    new: Mapping[str, int]
    stated: int
    assessed: int
    advisories: Sequence[str]


class UnmatchedProduct(Struct, frozen=True):
    """A product of a file that is no image that is known, and why."""

    file: str
    product: str | None
    statements: int
    reason: str


class AdvisoryImport(Struct, frozen=True):
    """The outcome of `digestry advisory import` or `digestry scan`."""

    images: Sequence[ImportedImage]
    unmatched: Sequence[UnmatchedProduct]
    less_severe: int
    problems: Sequence[str]
    dry_run: bool


class TestedFinding(Struct, frozen=True):
    """A condition that holds for an image, and what the policy says of it. ``users`` are the containers and
    volumes with the image, ``fields`` their paths in the object, ``lines`` their lines in the file. What an
    exemption lets through is allowed, and ``exempted`` says why."""

    condition: Condition
    action: Action
    users: Sequence[str]
    fields: Sequence[str]
    lines: Sequence[int]
    rule: str
    reason: str
    advice: str | None
    exempted: str | None


class TestedImage(Struct, frozen=True):
    """An image of an object; ``since`` is when its tag came to its digest, ``away`` why its registry did not
    answer."""

    image: str
    digest: Digest | None
    assessment: Literal["affected", "fixed", "not_affected", "not_assessed", "unknown"]
    since: datetime.datetime | None
    away: str | None
    findings: Sequence[TestedFinding]


class TestedObject(Struct, frozen=True):
    """An object of a file, which begins at ``line``; ``decision`` is null for one of a kind without pod
    templates."""

    place: str
    line: int
    kind: str
    group: str
    namespace: str | None
    name: str | None
    decision: Action | None
    rules: Sequence[str]
    notes: Sequence[str]
    images: Sequence[TestedImage]


class AdmissionTest(Struct, frozen=True):
    """The outcome of `digestry admission test`."""

    objects: Sequence[TestedObject]


class Setting(Struct, frozen=True):
    """A setting; ``value`` is null if it is not set."""

    key: str
    value: str | None
    meaning: str


class RegistryKey(Struct, frozen=True):
    """A setting for one registry, or for names with a prefix."""

    name: str
    key: str
    value: str


class Settings(Struct, frozen=True):
    """The settings, their file, the directory of the local store, and the other programs' files that are
    read."""

    settings: Sequence[Setting]
    registries: Sequence[RegistryKey]
    file: str
    images: str
    read: Sequence[str]


class Statement(Struct, frozen=True):
    """The value of a key, and its file, `default`, or the kind of host that implies it."""

    key: str
    value: str
    origin: str


class Explanation(Struct, frozen=True):
    """The settings for a registry or an image."""

    name: str
    statements: Sequence[Statement]


class FleetCounts(Struct, frozen=True):
    """What runs, as agents reported it: containers and images by the audit's state."""

    registry: str
    at: str
    containers: Mapping[str, int]
    images: Mapping[str, int]
    silent_containers: int
    places: int
    silent_places: int
    agents: int
    silent_agents: int
    oldest_affected: str | None
    unknown_hosts: Mapping[str, int]


class HistoryPoint(Struct, frozen=True):
    """How many containers ran from ``at`` (RFC 3339) on."""

    at: str
    containers: int


class SilentRuns(Struct, frozen=True):
    """Containers without an end in a place that has been silent since ``since`` (RFC 3339)."""

    place: str
    since: str
    containers: int


class FleetHistory(Struct, frozen=True):
    """How many containers ran an image over time, and when the last one ended.

    ``last_end`` is null while one runs, and while it is not known; the end was after ``last_end_after``.
    ``exact`` is false if the points are of equal steps, and not of each change.
    """

    registry: str
    target: str
    points: Sequence[HistoryPoint]
    exact: bool
    running: int
    unknown: int
    total: int
    first: str | None
    last_end: str | None
    last_end_after: str | None
    silent: Sequence[SilentRuns]
    sentence: str


class LogKey(Struct, frozen=True):
    """A key of a log, since when it is trusted, and why: first use, given or rotated."""

    key: str
    since: str
    why: str


class LogEntry(Struct, frozen=True):
    """An entry of a history, and what the log says: included, pending, missing or different (``reason`` is
    the field). ``index`` is its place in the log."""

    at: str
    tag: str
    event: str
    from_digest: Digest | None
    to_digest: Digest | None
    number: int | None
    index: int | None
    state: str
    reason: str


class LogVerification(Struct, frozen=True):
    """The outcome of `digestry log verify`. Without ``problems``, all that was asked is proven."""

    registry: str | None = None
    repository: str | None = None
    tag: str | None = None
    origin: str | None = None
    size: int | None = None
    root: str | None = None
    keys: Sequence[LogKey] = ()
    seen_size: int | None = None
    seen_at: str | None = None
    witnesses: Sequence[str] = ()
    witnessed_at: str | None = None
    entries: Sequence[LogEntry] = ()
    complete: bool | None = None
    complete_reason: str = ""
    problems: Sequence[str] = ()
    evidence: str | None = None
