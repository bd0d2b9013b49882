"""The verdict on a container's tag: whether it points to the image that runs, or has ever pointed there.

Nothing here sends a request: :func:`judge_tag` decides by the facts.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal, TypeAlias

from digestry.audit.image_identity import ImageIdentity
from digestry.inventory.observation import ImageFacts
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.reference import Reference
from digestry.model.timestamps import rfc3339

TagState: TypeAlias = Literal["current", "moved", "pinned", "never", "unknown"]

UNTAGGED_HERE: Final[TagState] = "never"
"""The tag has never pointed to the image that runs, which is not from this tag."""

_NO_REGISTRY: Final = "the name has no registry, so no registry was asked"
_REWRITTEN: Final = "the engine's store may have written this digest itself, of an image that it loaded"


@dataclass(frozen=True, slots=True)
class TagFacts:
    """The facts of a registry about a tag, as far as they matter for the image that runs."""

    reference: Reference | None = None
    """The tag, in its repository; None if the container's image has no name."""
    asked: bool = True
    """False if no query was sent, because the image's own repository was unreachable."""
    comparable: bool = True
    """False if no digest is known to compare with the tag."""
    target: Digest | None = None
    """What a pull by the tag gets now; None if there is no such tag."""
    refused: bool = False
    """Whether a pull by the tag, which points to ``target``, gets nothing: that is too young."""
    passed_over: Digest | None = None
    """Where the tag points by the journal, if a minimum age has the registry serve the older ``target``."""
    closure: frozenset[Digest] = frozenset()
    """The digests in the tag's repository that are or hold the image that runs."""
    objection: str = ""
    """Why the registry may be wrong that the tag points to the image that runs."""
    instead: Digest | None = None
    """Another image that may be the one that runs, to which the tag points."""
    history: tuple[TagEvent, ...] | None = None
    """Where the tag has pointed, newest first; None if the registry keeps no history."""
    doubt: str = ""
    """Why the tag may have pointed to the image that runs at some time."""
    failure: str = ""
    """The queries that failed, and why."""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TagVerdict:
    """``digest`` is where the tag points now, None if it is not known or the tag is gone.

    ``moved_at`` is when it first left the container's image. ``complete`` is False if a query of the registry
    failed.
    """

    state: TagState
    digest: Digest | None = None
    moved_at: datetime.datetime | None = None
    reasons: tuple[str, ...] = ()
    complete: bool = True


def judge_tag(facts: TagFacts, identity: ImageIdentity | None, image: ImageFacts) -> TagVerdict:
    """Return the verdict on the tag of ``facts``, given ``identity``, the code that runs.

    ``image`` is the source's report of it.
    """
    reference = facts.reference
    if reference is None:
        return TagVerdict("unknown")
    if reference.digest is not None:
        return TagVerdict("pinned")
    if not image.registry_named:
        return TagVerdict("unknown", reasons=(_NO_REGISTRY,))
    if not facts.asked:
        return TagVerdict("unknown")
    verdict = _compared(facts, reference, identity)
    confirmed = identity is not None and identity.confirmed
    if verdict.state == UNTAGGED_HERE and not confirmed and any(claim.rewritten for claim in image.claims):
        return replace(verdict, state="unknown", reasons=(_REWRITTEN,))
    return replace(verdict, reasons=(*facts.remarks, *verdict.reasons))


def left_at(history: tuple[TagEvent, ...], closure: frozenset[Digest]) -> TagEvent | None:
    """Return the event by which a tag last left ``closure``; None if ``history`` does not know of one."""
    for later, event in pairwise(history):
        if event.to_digest in closure:
            return later
    if history and history[-1].from_digest in closure:
        return history[-1]
    return None


def contradicted(facts: TagFacts, history: tuple[TagEvent, ...]) -> str:
    """Return why ``history`` does not agree with where the tag points now; empty if it does."""
    last = history[0].to_digest if history else None
    agrees = last == facts.target or (last is not None and last == facts.passed_over)
    if agrees or facts.reference is None:
        return ""
    now = "nowhere" if facts.target is None else f"to {facts.target}"
    then = "nowhere" if last is None else f"to {last}"
    return (
        f"the tag points {now}, and by the history that {facts.reference.host} keeps {then}: it moved while "
        "the audit ran, the registry serves an older image for its minimum age, or one of the two is wrong"
    )


def cut_off(facts: TagFacts, history: tuple[TagEvent, ...]) -> str:
    """Return why ``history`` cannot be all that became of the tag; empty if nothing speaks against it."""
    if facts.reference is not None and history and history[-1].from_digest is not None:
        return (
            f"the history that {facts.reference.host} keeps begins when the tag left "
            f"{history[-1].from_digest}: what it pointed to before is not known"
        )
    return ""


def _compared(facts: TagFacts, reference: Reference, identity: ImageIdentity | None) -> TagVerdict:
    if facts.failure:
        return TagVerdict("unknown", facts.target, reasons=(facts.failure,), complete=False)
    if reference.tag is None:
        return TagVerdict("unknown", reasons=("the reference has no tag",))
    if not facts.comparable:
        gone = () if facts.target is not None else (f"there is no tag {reference.tag!r}",)
        return TagVerdict("unknown", facts.target, reasons=gone)
    contested = () if identity is None else identity.contested
    pointed = [digest for digest in (facts.target, facts.passed_over) if digest in facts.closure]
    if pointed:
        why = facts.objection
        if contested:
            why = f"it may as well be {contested[0]} that runs, which the tag does not point to"
        return (
            TagVerdict("unknown", facts.target, reasons=(why,))
            if why
            else TagVerdict("current", pointed[0], reasons=_aged(facts))
        )
    if facts.instead is not None:
        why = f"it may be {facts.instead} that runs, which the tag points to"
        return TagVerdict("unknown", facts.target, reasons=(why,))
    if facts.history is None:
        return _without_history(facts, reference)
    return _with_history(facts, reference, facts.history, contested)


def _aged(facts: TagFacts) -> tuple[str, ...]:
    """Return what a minimum age makes of the tag."""
    if facts.refused:
        return (f"the tag points to {facts.target}, and a pull by it is refused: the registry's minimum age",)
    if facts.passed_over is None:
        return ()
    served = f"a pull by it gets the older {facts.target}: the registry's minimum age"
    return (f"the tag points to {facts.passed_over}, and {served}",)


def _without_history(facts: TagFacts, reference: Reference) -> TagVerdict:
    keeps_none = f"{reference.host} keeps no tag history"
    why = f"the tag points to something else, and {keeps_none} to tell if it pointed here before"
    if facts.target is None:
        why = f"there is no tag {reference.tag} now, and {keeps_none} to tell if there was one"
    return TagVerdict("unknown", facts.target, reasons=(why,))


def _with_history(
    facts: TagFacts, reference: Reference, history: tuple[TagEvent, ...], contested: tuple[Digest, ...]
) -> TagVerdict:
    wrong = contradicted(facts, history)
    if wrong and history and history[0].to_digest in facts.closure:
        return TagVerdict("unknown", facts.target, reasons=(wrong,))
    gone = _deletions(reference, history) if facts.target is None else ()
    left = left_at(history, facts.closure)
    if left is not None:
        pointed = {event.to_digest for event in history}
        elsewhere = next((digest for digest in contested if digest not in pointed), None)
        if elsewhere is not None:
            why = f"it may as well be {elsewhere} that runs, which the tag is not known to have pointed to"
            return TagVerdict("unknown", facts.target, reasons=(why,))
        return TagVerdict("moved", facts.target, left.at.astimezone(datetime.UTC), (*gone, *_aged(facts)))
    doubt = wrong or cut_off(facts, history) or facts.doubt
    if doubt:
        return TagVerdict("unknown", facts.target, reasons=(doubt, *gone))
    why = f"the tag {reference.tag!r} never pointed to what runs"
    return TagVerdict(UNTAGGED_HERE, facts.target, reasons=(why, *gone))


def _deletions(reference: Reference, history: tuple[TagEvent, ...]) -> tuple[str, ...]:
    """Return since when there is no such tag."""
    if history and history[0].event == "deleted":
        return (f"the tag {reference.tag!r} was deleted at {rfc3339(history[0].at)}",)
    return (f"there is no tag {reference.tag!r}",)
