"""The test of a policy on manifests: the decision about each object of some files, as the webhook would make
it now."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from digestry.admission.decision import Decision, Finding, Subject, decide
from digestry.admission.decision_scope import NotLookedAt, subject_of, templates_in
from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.manifest_files import ManifestObject
from digestry.admission.policy import Policy
from digestry.admission.shared_inquiries import unasked

Inquire = Callable[[list[str], bool], Mapping[str, ImageKnowledge]]
"""Asks registries about images, and, if that is true, their transparency logs."""
FailOn = Literal["deny", "warn"]
"""What is a failure."""


@dataclass(frozen=True, slots=True)
class JudgedManifest:
    """An object, and the decision about it; None for one of a kind without pods. ``overlooked`` is whether it
    probably has images that were not looked at."""

    manifest: ManifestObject
    decision: Decision | None
    overlooked: bool = False
    note: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said of the object as a whole."""
        return (self.note,) if self.note else () if self.decision is None else self.decision.notes

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that holds for its images."""
        return () if self.decision is None else self.decision.findings

    @property
    def faulty(self) -> bool:
        """Whether the object is denied for what it is, and not for an image."""
        return self.decision is not None and self.decision.would_deny and not self.decision.having("deny")

    @property
    def unanswered(self) -> tuple[Finding, ...]:
        """What the policy asks for, and is not known."""
        return tuple(one for one in self.findings if one.condition in {"away", "unknown"})

    def line(self, finding: Finding) -> int:
        """Return the line of a finding's first field."""
        return self.manifest.lines.line(finding.fields[0])

    def fails(self, fail_on: FailOn) -> bool:
        """Return whether the object fails the test."""
        if self.decision is None:
            return False
        return self.decision.would_deny or (fail_on == "warn" and bool(self.decision.having("warn")))


def decide_manifests(
    objects: Sequence[ManifestObject],
    policy: Policy,
    inquire: Inquire,
    namespace: str,
    labels: Mapping[str, str] | None,
) -> list[JudgedManifest]:
    """Return the decision about each object. ``namespace`` is that of objects that name none, ``labels`` are
    those of the namespace; the policy's mode does not matter."""
    subjects: list[tuple[ManifestObject, Subject | NotLookedAt | None]] = []
    for one in objects:
        change = replace(one.change, namespace=one.change.namespace or namespace)
        if not change.names_images:
            subjects.append((one, None))
            continue
        templates = templates_in(change, policy)
        if isinstance(templates, NotLookedAt):
            subjects.append((one, templates))
        else:
            subjects.append((one, subject_of(change, templates, policy, labels)))
    images = dict.fromkeys(
        image for _, subject in subjects if isinstance(subject, Subject) for image in subject.images
    )
    knowledge = {image: unasked(image) for image in images}
    knowledge |= inquire(
        [one.image for one in knowledge.values() if one.reference and policy.asks(one.reference.host)],
        policy.needs_proofs,
    )
    now = datetime.datetime.now(datetime.UTC)
    enforced = replace(policy, mode="enforce")
    return [_tested(one, subject, enforced, knowledge, now) for one, subject in subjects]


def _tested(
    one: ManifestObject,
    subject: Subject | NotLookedAt | None,
    policy: Policy,
    knowledge: Mapping[str, ImageKnowledge],
    now: datetime.datetime,
) -> JudgedManifest:
    allowed = Decision(allowed=True, would_deny=False)
    if subject is None:
        return JudgedManifest(one, allowed)
    if isinstance(subject, NotLookedAt):
        # Of a kind that the policy knows, the webhook decides; of others there is no decision.
        decision = replace(allowed, notes=(subject.reason,)) if one.change.kind in policy.paths else None
        return JudgedManifest(one, decision, subject.suspected, subject.reason if subject.suspected else "")
    return JudgedManifest(one, decide(subject, policy, knowledge, now))
