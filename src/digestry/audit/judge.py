"""The judgement of a container: whether it is current, moved, vulnerable or fixed, and what to do.

:func:`judge` is a pure function: it asks nobody, and says the same of the same facts.
"""

from __future__ import annotations

from dataclasses import dataclass

from digestry.audit.advice import advise
from digestry.audit.assessment import Assessment, assess
from digestry.audit.facts import ImageUse, RegistryFacts
from digestry.audit.tag_verdict import TagVerdict, judge_tag


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a container: how it stands to its ``tag``, how its code is assessed, and
    what to do, in one line for a person."""

    tag: TagVerdict
    assessment: Assessment
    action: str
    reasons: tuple[str, ...]


def judge(container: ImageUse, facts: RegistryFacts) -> Verdict:
    """Return the verdict on ``container``, of whose image ``facts`` were found out.

    Of a template, which does not run, it is what would be started from it now that is judged.
    """
    tag = judge_tag(facts.tag, facts.identity, container.image)
    assessment = assess(facts)
    identified = () if facts.identity is None else facts.identity.reasons
    return Verdict(
        tag,
        assessment,
        advise(container, facts, tag, assessment),
        (*facts.reasons, *identified, *tag.reasons, *assessment.reasons, *facts.fix.refused),
    )
