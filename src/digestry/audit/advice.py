"""Advice: one line for a person about what to do with a container."""

from __future__ import annotations

from digestry.audit.assessment import Assessment
from digestry.audit.facts import FixedImage, ImageUse, RegistryFacts
from digestry.audit.tag_verdict import UNTAGGED_HERE, TagVerdict
from digestry.inventory.waiting_reasons import ADVICE, PRESENT
from digestry.model.text import few


def advise(container: ImageUse, facts: RegistryFacts, tag: TagVerdict, verdict: Assessment) -> str:
    """Return the advice for ``container``, by the verdict on its tag and the assessment of its code.

    For a template, both are about the image that would be started from it now.
    """
    if verdict.state == "affected":
        bad = [advisory for advisory in verdict.advisories if advisory.statement.status == "affected"]
        names = few(advisory.statement.vulnerability for advisory in bad)
        return _replace(facts.fix, names, runs=container.runs)
    if verdict.state == "unknown":
        return _find_out(container, facts, tag)
    if tag.state == UNTAGGED_HERE:
        return "find out where its image came from: its tag never pointed to it"
    if tag.state == "moved" and tag.digest is not None:
        known = "nobody has assessed it" if verdict.state == "not_assessed" else "nothing is known against it"
        return f"{known}; restart it to follow its tag"
    if verdict.state == "not_assessed":
        return "have it assessed: no advisory states whether it is vulnerable"
    return "nothing to do"


def _find_out(container: ImageUse, facts: RegistryFacts, tag: TagVerdict) -> str:
    if container.waiting and facts.identity is None:
        # The image in the registry may be judged, but the failed pull is the first problem.
        present = container.waiting == "pull" and tag.digest is not None
        return PRESENT if present else ADVICE[container.waiting]
    if facts.unanswered:
        return "audit again when the registry answers"
    if not container.runs:
        return "audit again when it runs"
    if facts.identity is None:
        return "push its image to a registry, or start it as repository@digest, so that it can be judged"
    return "look at the reasons"


def _replace(fix: FixedImage, names: str, *, runs: bool) -> str:
    if fix.image is not None:
        return f"restart from {fix.image}" if runs else f"before it runs again, let it name {fix.image}"
    if fix.bases:
        bases = " or ".join(str(base) for base in fix.bases)
        if runs:
            return f"rebuild it on {bases} and restart from that; stop it or shield it until then"
        return f"before it runs again, rebuild it on {bases}"
    why = "; ".join(fix.refused)
    if runs:
        return f"stop it or shield it: {why or f'no fixed image is named for {names}'}"
    return f"let it not run again: {why or f'{names} has no fix'}"
