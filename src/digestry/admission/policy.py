"""The policy of admission: for whom which condition of an image is allowed, warned of, or denied."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

from digestry.admission.pod_templates import KNOWN, Paths
from digestry.admission.selectors import EVERYTHING, Selector
from digestry.model.digest import Digest
from digestry.model.name_pattern import matches
from digestry.model.reference import Reference

Action: TypeAlias = Literal["allow", "warn", "deny"]
Condition: TypeAlias = Literal[
    "affected",
    "not-assessed",
    "missing",
    "moved",
    "never-pointed",
    "not-pinned",
    "unknown-registry",
    "no-proof",
    "behind",
    "away",
    "unknown",
]
CONDITIONS: Final[tuple[Condition, ...]] = get_args(Condition)
STRICTER: Final[Mapping[Action, int]] = MappingProxyType({"allow": 0, "warn": 1, "deny": 2})

DEFAULT_ACTIONS: Final[Mapping[Condition, Action]] = MappingProxyType(
    {
        "affected": "deny",
        "not-assessed": "allow",
        "missing": "warn",
        "moved": "warn",
        "never-pointed": "deny",
        "not-pinned": "allow",
        "unknown-registry": "warn",
        "no-proof": "allow",
        "behind": "warn",
        "away": "warn",
        "unknown": "warn",
    }
)
DEFAULT_MOVED_WITHIN: Final = 24 * 3600.0
"""In seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Some pods: by patterns of their namespaces, their own labels, and the labels of their namespaces."""

    namespaces: tuple[str, ...] = ()
    labels: Selector = EVERYTHING
    namespace_labels: Selector = EVERYTHING

    def __bool__(self) -> bool:
        return bool(self.namespaces or self.labels or self.namespace_labels)

    def matches(
        self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str] | None
    ) -> bool | None:
        """Return whether it has a pod; None if that depends on labels of the namespace that are not known."""
        if self.namespaces and not any(matches(pattern, namespace) for pattern in self.namespaces):
            return False
        if not self.labels.matches(labels):
            return False
        if not self.namespace_labels:
            return True
        return None if namespace_labels is None else self.namespace_labels.matches(namespace_labels)


@dataclass(frozen=True, slots=True)
class Rule:
    """The actions for the pods of ``match`` without those of ``exclude``. ``moved_within`` is in seconds;
    ``affected_from`` is the least severity that ``affected`` is about, empty for all."""

    name: str
    match: Target = field(default_factory=Target)
    exclude: Target = field(default_factory=Target)
    actions: Mapping[Condition, Action] = field(default_factory=lambda: DEFAULT_ACTIONS)
    moved_within: float = DEFAULT_MOVED_WITHIN
    affected_from: str = ""

    def has(
        self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str] | None
    ) -> bool | None:
        """Return whether the rule is about a pod; None if that is not known."""
        inside = self.match.matches(namespace, labels, namespace_labels)
        if inside is False:
            return False
        outside = self.exclude.matches(namespace, labels, namespace_labels) if self.exclude else False
        if outside:
            return False
        return None if inside is None or outside is None else True


@dataclass(frozen=True, slots=True)
class Exemption:
    """What is let through until ``until``, and why. Each empty field is about everything.

    ``images`` are patterns of ``host/repository``; ``vulnerabilities`` are those that do not count against an
    image.
    """

    reason: str
    until: datetime.datetime
    images: tuple[str, ...] = ()
    digests: frozenset[Digest] = frozenset()
    namespaces: tuple[str, ...] = ()
    conditions: frozenset[Condition] = frozenset()
    vulnerabilities: frozenset[str] = frozenset()

    def has(
        self, condition: Condition, namespace: str, reference: Reference | None, digest: Digest | None
    ) -> bool:
        """Return whether it is about this condition of an image in this namespace, whatever the time is."""
        if self.conditions and condition not in self.conditions:
            return False
        if self.namespaces and not any(matches(pattern, namespace) for pattern in self.namespaces):
            return False
        if self.digests and digest not in self.digests:
            return False
        if not self.images:
            return True
        return reference is not None and any(matches(pattern, reference.name) for pattern in self.images)


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole policy. ``registries`` are patterns of the hosts that are asked; ``default`` is the rule for
    pods that none of ``rules`` is about. In the mode ``audit`` everything is allowed."""

    registries: tuple[str, ...]
    mode: Literal["enforce", "audit"] = "enforce"
    audit_warnings: bool = True
    unchanged: Literal["allow", "judge"] = "allow"
    default: Rule = field(default_factory=lambda: Rule("default"))
    rules: tuple[Rule, ...] = ()
    exemptions: tuple[Exemption, ...] = ()
    paths: Paths = field(default_factory=lambda: KNOWN)

    def rules_for(
        self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str] | None
    ) -> tuple[Rule, ...]:
        """Return the first rule about a pod. If that depends on what is not known: all that it may be."""
        possible = []
        for rule in self.rules:
            found = rule.has(namespace, labels, namespace_labels)
            if found is not False:
                possible.append(rule)
            if found:
                return tuple(possible)
        return (*possible, self.default)

    def asks(self, host: str) -> bool:
        """Return whether the registry ``host`` is one that is asked."""
        return any(matches(pattern, host) for pattern in self.registries)

    @property
    def needs_proofs(self) -> bool:
        """Whether a rule asks for proofs by transparency logs."""
        return any(rule.actions["no-proof"] != "allow" for rule in (*self.rules, self.default))

    @property
    def needs_namespace_labels(self) -> bool:
        """Whether a rule selects by the labels of namespaces."""
        return any(rule.match.namespace_labels or rule.exclude.namespace_labels for rule in self.rules)
