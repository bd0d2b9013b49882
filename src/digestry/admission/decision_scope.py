"""The scope of a decision: which images of a changed object it is about.

The webhook and ``admission test`` both take it from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.admission.decision import Subject, unchanged_images
from digestry.admission.pod_templates import KNOWN, Kind, PodTemplate, template_in, templates_of
from digestry.admission.policy import Policy
from digestry.model.json_values import JsonObject

MOST_IMAGES: Final = 500
"""Different images of one object. Whoever names more wants a registry to have no time for the one that
matters."""

_OPERATIONS: Final = frozenset({"CREATE", "UPDATE"})
_WITH_IMAGES: Final = frozenset({"", "ephemeralcontainers", "resize"})


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done to an object of ``kind``: ``old`` is the object before, None for a creation."""

    kind: Kind
    namespace: str
    content: JsonObject
    old: JsonObject | None = None
    operation: str = "CREATE"
    subresource: str = ""

    @property
    def names_images(self) -> bool:
        """Whether such a change can bring an image."""
        return self.operation in _OPERATIONS and self.subresource in _WITH_IMAGES


@dataclass(frozen=True, slots=True)
class NotLookedAt:
    """Nothing of an object was looked at, and why. ``suspected`` is whether it probably has images."""

    reason: str
    suspected: bool = False


def templates_in(change: Change, policy: Policy) -> Sequence[PodTemplate] | NotLookedAt:
    """Return the pod templates of an object, or why nothing of it is looked at."""
    templates = templates_of(change.content, change.kind, policy.paths)
    if templates is None:
        group, kind = change.kind
        why = f"it is not known where a {kind} ({group or 'core'}) names images: nothing was looked at"
        where = template_in(change.content)
        if where is None:
            return NotLookedAt(why)
        return NotLookedAt(f"{why}; a [[workload]] with paths = [{where!r}] would look", suspected=True)
    if not templates and change.kind not in KNOWN:
        where = ", ".join(policy.paths[change.kind])
        return NotLookedAt(f"there is no pod template at {where}: nothing was looked at", suspected=True)
    return templates


def subject_of(
    change: Change,
    templates: Sequence[PodTemplate],
    policy: Policy,
    labels: Mapping[str, str] | None,
) -> Subject:
    """Return what is to be decided about: the images that the object did not have before, or all of them.

    ``labels`` are those of the namespace; None if they are not known.
    """
    skip: frozenset[str] = frozenset()
    if change.operation == "UPDATE" and change.old is not None:
        before = templates_of(change.old, change.kind, policy.paths) or []
        skip = unchanged_images(policy, change.namespace, labels, before, templates)
    subject = Subject(change.namespace, templates, labels, skip)
    count = len(subject.images)
    if count <= MOST_IMAGES:
        return subject
    fault = f"it names {count} different images, and {MOST_IMAGES} are the most"
    kept = frozenset(subject.images[:MOST_IMAGES])
    cut = [
        PodTemplate(
            template.labels,
            tuple(place for place in template.places if place.image in kept),
            (*template.faults, fault) if not number else template.faults,
        )
        for number, template in enumerate(templates)
    ]
    return Subject(change.namespace, cut, labels, skip)
