"""The rows of a report as plain values, for JSON and its published schema.

Scripts rely on the keys: new ones may be added, but none is removed or changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from digestry.advisories.advisory import Advisory, ImagePart
from digestry.advisories.signatures import SignatureState
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.remediation import Origins, Remediation, plan
from digestry.audit.tag_verdict import UNTAGGED_HERE
from digestry.inventory.observation import Note, Unseen
from digestry.model.digest import Digest
from digestry.model.history import TagSpan
from digestry.model.json_values import JsonObject
from digestry.model.platform import Platform
from digestry.model.timestamps import rfc3339

VERSION: Final = 1
SCHEMA_ID: Final = "urn:digestry:schema:audit:1"
"""Of the published schema, docs/schemas/audit.json."""

_Digest = Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")]
_Time = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$")]
_Count = Annotated[int, Meta(ge=0)]


class PartRow(Struct, frozen=True):
    """The layer or config of an image that a statement is about."""

    kind: Literal["layer", "config"]
    digest: _Digest
    base: Annotated[
        str | None,
        Meta(
            description="The image that the layer came with, REPOSITORY:TAG@DIGEST: the one with the fewest "
            "layers; null if it is not known."
        ),
    ]
    made_by: Annotated[
        str | None, Meta(description="The step of the build that made the layer; null if it is not known.")
    ]


class AdvisoryRow(Struct, frozen=True):
    """One OpenVEX statement that is in force for what a container runs."""

    id: Annotated[str, Meta(description="The vulnerability, such as CVE-2026-1505.")]
    aliases: Annotated[list[str], Meta(description="Other names of it.")]
    status: Literal["affected", "not_affected", "fixed", "under_investigation"]
    fixed_by: Annotated[list[str], Meta(description="Images without it: REPOSITORY@DIGEST.")]
    author: str
    timestamp: _Time
    justification: str | None
    note: str | None
    action_statement: str | None
    subject: Annotated[str, Meta(description="The image that it is about: REPOSITORY@DIGEST.")]
    referrer: Annotated[_Digest, Meta(description="The manifest that carries it.")]
    component: Annotated[str | None, Meta(description="What of the image it is about; null if all of it.")]
    signature: Annotated[
        Literal["verified", "not verified"] | None,
        Meta(
            description="null: unsigned; verified: a trusted key has signed it; not verified: no key is"
            " trusted in that repository."
        ),
    ]
    signer: Annotated[str | None, Meta(description="Whose trusted key has signed it.")]
    part: Annotated[
        PartRow | None,
        Meta(description="The layer or config that it is about; null if it is about the image itself."),
    ] = None


class FixRow(Struct, frozen=True):
    """The remediation of one container, which was not run."""

    commands: Annotated[list[str], Meta(description="For a shell, one after the other.")]
    notes: Annotated[list[str], Meta(description="What must be filled in, or known before.")]


class PastTagRow(Struct, frozen=True):
    """A span in which a tag pointed to the image of a container, or to an index of it."""

    tag: str
    digest: Annotated[_Digest, Meta(description="What the tag pointed to.")]
    since: _Time
    until: Annotated[_Time | None, Meta(description="When it moved on, or was deleted.")]


class ContainerRow(Struct, frozen=True):
    """One container, with its verdicts."""

    source: Annotated[str, Meta(description="Who saw it: docker, podman:URL, file:PATH …")]
    host: str
    namespace: Annotated[str, Meta(description="Compose project, pod or namespace; may be empty.")]
    name: str
    id: str
    reference: Annotated[
        str | None, Meta(description="The image as it was typed; null if it was started by image ID.")
    ]
    running_digest: Annotated[
        _Digest | None, Meta(description="What the container really runs; null if that is not known.")
    ]
    found_by: Annotated[
        Literal["repo-digest", "image-id", "inventory"] | None,
        Meta(description="How running_digest was found."),
    ]
    confirmed: Annotated[bool, Meta(description="Whether a registry knows running_digest.")]
    repository: str | None
    manifest_digest: Annotated[_Digest | None, Meta(description="The platform's manifest.")]
    image_id: _Digest | None
    platform: Annotated[str | None, Meta(description="OS/ARCHITECTURE[/VARIANT].")]
    tag_state: Literal["current", "moved", "pinned", "never", "unknown"]
    tag_digest: Annotated[_Digest | None, Meta(description="Where the tag points now.")]
    moved_at: Annotated[_Time | None, Meta(description="When the tag left running_digest.")]
    advisory_state: Annotated[
        Literal["affected", "fixed", "not_affected", "not_assessed", "unknown"],
        Meta(
            description="fixed and not_affected: the advisories say so, and name who. not_assessed: "
            "everything was read, and no advisory states anything. unknown: the reasons say why."
        ),
    ]
    advisories: list[AdvisoryRow]
    action: Annotated[str, Meta(description="What to do, in one line for a person.")]
    reasons: Annotated[list[str], Meta(description="Why, and what could not be known.")]
    seen_at: _Time
    runs: Annotated[
        bool,
        Meta(description="False for a template: the image that would be started from it now is judged."),
    ]
    indexes: Annotated[list[_Digest], Meta(description="Indexes that hold what it runs.")]
    tags: Annotated[
        list[str] | None,
        Meta(
            description="Tags that point now to what it runs, or to an index of it. If the registry "
            "cannot list them, its own tag if that points there; null if that is not known."
        ),
    ]
    past_tags: Annotated[
        list[PastTagRow] | None,
        Meta(
            description="When tags pointed there that have left it, the newest first, up to 100; null if "
            "the registry does not remember."
        ),
    ]
    fix: Annotated[
        FixRow | UnsetType, Meta(description="Only with --fix-plan, and where there is something to fix.")
    ] = UNSET


class ProblemRow(Struct, frozen=True):
    """Something that could not be seen."""

    source: str
    message: str
    hint: str | None


class NoteRow(Struct, frozen=True):
    """A note of a source: the format of a file, or why no container in it runs."""

    source: str
    message: str
    hint: str | None


class Summary(Struct, frozen=True):
    """How many containers there are of each kind."""

    containers: _Count
    affected: _Count
    unknown: _Count
    fixed: _Count
    not_affected: _Count
    not_assessed: Annotated[_Count, Meta(description="No advisory states anything about them.")]
    moved: Annotated[_Count, Meta(description="Whose tag points elsewhere now.")]
    never: Annotated[_Count, Meta(description="Whose tag never pointed to what they run.")]
    problems: _Count


class AuditDocument(Struct, frozen=True):
    """The output of `digestry audit --format json`."""

    version: Annotated[Literal[1], Meta(description="Of this form; a change that breaks readers raises it.")]
    summary: Summary
    containers: Annotated[list[ContainerRow], Meta(description="The vulnerable first.")]
    problems: list[ProblemRow]
    notes: list[NoteRow] = []


def schema() -> JsonObject:
    """Return the JSON Schema (2020-12) of :class:`AuditDocument`. Readers must accept further keys."""
    described = msgspec.json.schema(AuditDocument)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "digestry audit",
    } | described


def as_values(report: AuditReport, *, fixes: Origins | None = None) -> JsonObject:
    """Return the report as plain values: those of :class:`AuditDocument`. ``fixes`` are
    the sources' origins; with them each container has its fix."""
    document = AuditDocument(
        VERSION,
        totals(report),
        [container_row(finding, fixes=fixes) for finding in report.findings],
        [problem_row(problem) for problem in report.problems],
        [note_row(note) for note in report.notes],
    )
    values: JsonObject = msgspec.to_builtins(document)
    return values


def totals(report: AuditReport) -> Summary:
    """Return the counts of a whole report."""
    advisory = dict.fromkeys(("affected", "unknown", "fixed", "not_affected", "not_assessed"), 0)
    moved = never = 0
    for finding in report.findings:
        advisory[finding.assessment.state] += 1
        moved += finding.tag.state == "moved"
        never += finding.tag.state == UNTAGGED_HERE
    return Summary(len(report.findings), **advisory, moved=moved, never=never, problems=len(report.problems))


def container_row(finding: ContainerFinding, *, fixes: Origins | None = None) -> ContainerRow:
    """Return one container."""
    seen, identity, tag, where = finding.container, finding.identity, finding.tag, finding.placement
    return ContainerRow(
        source=seen.source,
        host=seen.host,
        namespace=seen.namespace,
        name=seen.name,
        id=seen.id,
        reference=seen.image.reference,
        running_digest=None if identity is None else str(identity.running),
        found_by=None if identity is None else identity.found_by,
        confirmed=identity is not None and identity.confirmed,
        repository=None if identity is None else identity.repository.name,
        manifest_digest=_text(None if identity is None else identity.manifest),
        image_id=_text(seen.image.image_id),
        platform=_text(seen.image.platform),
        tag_state=tag.state,
        tag_digest=_text(tag.digest),
        moved_at=None if tag.moved_at is None else rfc3339(tag.moved_at),
        advisory_state=finding.assessment.state,
        advisories=[advisory_row(advisory) for advisory in finding.assessment.advisories],
        action=finding.action,
        reasons=list(finding.reasons),
        seen_at=rfc3339(seen.seen_at),
        runs=seen.runs,
        indexes=[str(digest) for digest in where.indexes],
        tags=None if where.tags is None else list(where.tags),
        past_tags=None if where.past is None else [_past(span) for span in where.past],
        fix=UNSET if fixes is None else _fix(plan(finding, fixes)),
    )


def _past(span: TagSpan) -> PastTagRow:
    until = None if span.until is None else rfc3339(span.until)
    return PastTagRow(span.tag, str(span.digest), rfc3339(span.since), until)


def _fix(fix: Remediation | None) -> FixRow | UnsetType:
    return UNSET if fix is None else FixRow(list(fix.commands), list(fix.notes))


def problem_row(problem: Unseen) -> ProblemRow:
    """Return the row of something that could not be seen."""
    return ProblemRow(problem.source, problem.message, problem.hint or None)


def note_row(note: Note) -> NoteRow:
    """Return the row of a source's note."""
    return NoteRow(note.source, note.message, note.hint or None)


def advisory_row(advisory: Advisory) -> AdvisoryRow:
    """Return one statement."""
    statement = advisory.statement
    return AdvisoryRow(
        id=statement.vulnerability,
        aliases=list(statement.aliases),
        status=statement.status,
        fixed_by=[str(image) for image in statement.fixed_by],
        author=advisory.author,
        timestamp=rfc3339(statement.timestamp),
        justification=statement.justification or None,
        note=statement.notes or statement.impact or None,
        action_statement=statement.action or None,
        subject=f"{advisory.repository.name}@{advisory.subject}",
        referrer=str(advisory.referrer),
        component=advisory.component or advisory.product or None,
        signature=_signature(advisory.signature.state),
        signer=advisory.signature.signer or None,
        part=None if advisory.part is None else _part(advisory.part),
    )


def _part(part: ImagePart) -> PartRow:
    base = None if part.base is None else str(part.base)
    return PartRow(part.kind, str(part.digest), base, part.made_by or None)


def _signature(state: SignatureState) -> Literal["verified", "not verified"] | None:
    return state if state in {"verified", "not verified"} else None


def rows(findings: Iterable[ContainerFinding], *, fixes: Origins | None = None) -> Iterable[ContainerRow]:
    """Yield the row of each container in turn: a long report should not be in memory twice."""
    return (container_row(finding, fixes=fixes) for finding in findings)


def _text(value: Digest | Platform | None) -> str | None:
    return None if value is None else str(value)
