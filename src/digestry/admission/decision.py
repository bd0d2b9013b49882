"""The decision about one object: every image in it, each condition that holds, and what the policy says."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from digestry.admission.conditions import Met, conditions_of
from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.pod_templates import ImagePlace, PodTemplate
from digestry.admission.policy import STRICTER, Action, Condition, Exemption, Policy, Rule
from digestry.model.text import few
from digestry.model.timestamps import rfc3339

_DIGITS = 12
_HALF = 48


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that holds for an image. ``action`` is what the policy says of it, before the mode; a
    finding that an exemption lets through has the action ``allow``, and ``exempted`` says why.

    ``users`` are the containers and volumes with the image, ``fields`` their paths.
    """

    condition: Condition
    action: Action
    image: str
    users: tuple[str, ...]
    fields: tuple[str, ...]
    rule: str
    reason: str
    advice: str = ""
    exempted: str = ""

    @property
    def text(self) -> str:
        """The finding as one sentence: where, what, what to do."""
        tail = f" ({self.advice})" if self.advice else ""
        return f"{', '.join(self.users)}: {self.image}: {self.condition}: {self.reason}{tail}"

    @property
    def short_text(self) -> str:
        """The same with short names, so that the reason is in the part that API servers pass on."""
        tail = f" ({self.advice})" if self.advice else ""
        users = few(self.users, most=2)
        return f"{users}: {_short(self.image)}: {self.condition}: {self.reason}{tail}"


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision. ``allowed`` obeys the mode; ``would_deny`` is what the rules say. ``notes`` are about the
    object as a whole."""

    allowed: bool
    would_deny: bool
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    images: tuple[ImageKnowledge, ...] = ()
    rules: tuple[str, ...] = ()

    def having(self, action: Action) -> list[Finding]:
        """Return the findings with ``action``."""
        return [finding for finding in self.findings if finding.action == action]


@dataclass(frozen=True, slots=True)
class Subject:
    """An object to decide about: its namespace, the labels of that (None: not known), its pod templates.

    ``skip`` are images that it had before, which are not judged.
    """

    namespace: str
    templates: Sequence[PodTemplate]
    namespace_labels: Mapping[str, str] | None = None
    skip: frozenset[str] = field(default_factory=frozenset)

    @property
    def images(self) -> tuple[str, ...]:
        """The images to judge, each once."""
        places = (place for template in self.templates for place in template.places)
        return tuple(dict.fromkeys(place.image for place in places if place.image not in self.skip))


def unchanged_images(
    policy: Policy,
    namespace: str,
    labels: Mapping[str, str] | None,
    before: Sequence[PodTemplate],
    after: Sequence[PodTemplate],
) -> frozenset[str]:
    """Return the images that a change is not judged by: those that were there before, under the same rule.

    ``labels`` are those of the namespace. A pod that leaves a lenient rule by a change of its labels is
    judged whole.
    """

    def rules(templates: Sequence[PodTemplate]) -> set[str]:
        every = (policy.rules_for(namespace, template.labels, labels) for template in templates)
        return {rule.name for some in every for rule in some}

    if policy.unchanged != "allow" or not rules(after) <= rules(before):
        return frozenset()
    return frozenset(place.image for template in before for place in template.places)


def decide(
    subject: Subject,
    policy: Policy,
    knowledge: Mapping[str, ImageKnowledge],
    now: datetime.datetime,
) -> Decision:
    """Return the decision about ``subject``; ``knowledge`` has each of its images."""
    judge = _Judge(policy, subject.namespace, now)
    findings: dict[tuple[str, Condition, str], Finding] = {}
    notes: list[str] = []
    used: dict[str, None] = {}
    for template in subject.templates:
        rules = policy.rules_for(subject.namespace, template.labels, subject.namespace_labels)
        used.update(dict.fromkeys(rule.name for rule in rules))
        if len(rules) > 1:
            names = " or ".join(rule.name for rule in rules)
            notes.append(
                f"the labels of the namespace {subject.namespace or '-'} are not known, so that the rule may"
                f" be {names}: the strictest counts"
            )
        notes += template.faults
        for place in template.places:
            if place.image in subject.skip:
                continue
            for finding in judge.judge(place, knowledge[place.image], rules):
                key = finding.image, finding.condition, finding.reason
                findings[key] = _joined(findings.get(key), finding)
    ordered = sorted(findings.values(), key=lambda one: -STRICTER[one.action])
    denied = any(one.action == "deny" for one in ordered) or any(
        template.faults for template in subject.templates
    )
    return Decision(
        allowed=policy.mode == "audit" or not denied,
        would_deny=denied,
        findings=tuple(ordered),
        notes=tuple(dict.fromkeys(notes)),
        images=tuple(knowledge[image] for image in subject.images),
        rules=tuple(used),
    )


@dataclass(frozen=True, slots=True)
class _Judge:
    """What the images of one object are judged by."""

    policy: Policy
    namespace: str
    now: datetime.datetime

    def judge(self, place: ImagePlace, known: ImageKnowledge, rules: Sequence[Rule]) -> list[Finding]:
        """Return the findings about one place: of all ``rules``, the strictest of each condition."""
        strictest: dict[Condition, Finding] = {}
        forgiven = tuple(
            one
            for one in self.policy.exemptions
            if one.vulnerabilities
            and self.now < one.until
            and one.has("affected", self.namespace, known.reference, known.digest)
        )
        for rule in rules:
            for met in conditions_of(place, known, rule, self.now, forgiven):
                finding = self._finding(place, known, met, rule)
                other = strictest.get(met.condition)
                if other is None or STRICTER[finding.action] > STRICTER[other.action]:
                    strictest[met.condition] = finding
        return list(strictest.values())

    def _finding(self, place: ImagePlace, known: ImageKnowledge, met: Met, rule: Rule) -> Finding:
        action = rule.actions[met.condition]
        advice, exempted = met.advice, ""
        if action != "allow":
            exemption = self._exemption(met.condition, known)
            if exemption is not None and self.now < exemption.until:
                action = "allow"
                exempted = f"exempted until {rfc3339(exemption.until)}: {exemption.reason}"
            elif exemption is not None:
                over = f"an exemption ended at {rfc3339(exemption.until)}"
                advice = f"{advice}; {over}" if advice else over
        return Finding(
            met.condition,
            action,
            place.image,
            (place.user,),
            (place.field,),
            rule.name,
            met.reason,
            advice,
            exempted,
        )

    def _exemption(self, condition: Condition, known: ImageKnowledge) -> Exemption | None:
        """Return the exemption about a condition that lasts longest; those for vulnerabilities are others."""
        found = [
            one
            for one in self.policy.exemptions
            if not one.vulnerabilities and one.has(condition, self.namespace, known.reference, known.digest)
        ]
        return max(found, key=lambda one: one.until, default=None)


def _short(image: str) -> str:
    """Return the name of an image with few digits of its digest, and without the middle of a long one."""
    name, at, digest = image.partition("@")
    algorithm, colon, encoded = digest.partition(":")
    shown = f"{name}{at}{algorithm}{colon}{encoded[:_DIGITS]}{'…' if encoded[_DIGITS:] else ''}"
    return shown if len(shown) <= 2 * _HALF else f"{shown[:_HALF]}…{shown[-_HALF:]}"


def _joined(one: Finding | None, other: Finding) -> Finding:
    """Return both findings about the same image as one, with the stricter action."""
    if one is None:
        return other
    stricter = other if STRICTER[other.action] > STRICTER[one.action] else one
    return Finding(
        stricter.condition,
        stricter.action,
        stricter.image,
        tuple(dict.fromkeys((*one.users, *other.users))),
        (*one.fields, *other.fields),
        stricter.rule,
        stricter.reason,
        stricter.advice,
        stricter.exempted,
    )
