"""The judgement of a container: whether it is current, moved, vulnerable or fixed, and what to do.

:func:`judge` is a pure function: it sends no requests, and the same facts give the same verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from digestry.audit.advice import advise
from digestry.audit.assessment import Assessment, assess
from digestry.audit.facts import ImageUse, RegistryFacts
from digestry.audit.tag_verdict import TagVerdict, judge_tag


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a container: its state relative to its ``tag``, the assessment of its code, and the
    advised action, in one line for a person."""

    tag: TagVerdict
    assessment: Assessment
    action: str
    reasons: tuple[str, ...]


def judge(container: ImageUse, facts: RegistryFacts) -> Verdict:
    """Return the verdict on ``container``, given ``facts`` about its image.

    A template does not run: the verdict is on the image that would be started from it now.
    """
    tag = judge_tag(facts.tag, facts.identity, container.image)
    assessment = assess(facts)
    identified = () if facts.identity is None else facts.identity.reasons
    return Verdict(
        tag,
        assessment,
        advise(container, facts, tag, assessment),
        (
            *facts.reasons,
            *identified,
            *tag.reasons,
            *assessment.reasons,
            *facts.fix.refused,
            *facts.fix.remarks,
        ),
    )
