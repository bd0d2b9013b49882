"""One line for a person: what to do about a container."""

from __future__ import annotations

from dataclasses import dataclass

from digestry.audit.assessment import AdvisoryVerdict
from digestry.audit.fixed_images import Fixes, find_fix
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.tag_verdict import TagVerdict
from digestry.inventory.waiting import ADVICE, PRESENT, Waiting
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class Advice:
    """``text`` is one line for a person; ``image`` is what to run in place of what is vulnerable;
    ``notes`` name images that were called a fix, and are none."""

    text: str
    image: Reference | None = None
    notes: tuple[str, ...] = ()


def advise(
    lookup: RegistryQueries,
    identity: ImageIdentity | None,
    tag: TagVerdict,
    verdict: AdvisoryVerdict,
    *,
    failed: bool,
    runs: bool = True,
    waiting: Waiting = "",
) -> Advice:
    """What to do about a container of which this is known; ``failed`` if a registry was silent.

    ``runs`` is False for a template, of which all this is what would be started from it now.
    ``waiting`` is why a container was not started yet.
    """
    if verdict.state == "affected":
        bad = [one for one in verdict.advisories if one.statement.status == "affected"]
        names = ", ".join(dict.fromkeys(one.statement.vulnerability for one in bad))
        return _replace(find_fix(lookup, identity, bad), names, runs=runs)
    if verdict.state == "unknown":
        if waiting and identity is None:
            # What could be pulled may be judged: that it is not pulled comes first.
            present = waiting == "pull" and tag.digest is not None
            return Advice(PRESENT if present else ADVICE[waiting])
        if failed:
            return Advice("audit again when the registry answers")
        if not runs:
            return Advice("audit again when it runs")
        if identity is None:
            return Advice(
                "push its image to a registry, or start it as repository@digest, so that it can be judged"
            )
        return Advice("look at the reasons")
    if tag.state == "never":
        return Advice("find out where its image came from: its tag never pointed to it")
    if tag.state == "moved" and tag.digest is not None:
        known = "nobody has assessed it" if verdict.state == "not_assessed" else "nothing is known against it"
        return Advice(f"{known}; restart it to follow its tag")
    if verdict.state == "not_assessed":
        return Advice("have it assessed: nobody has stated whether it is vulnerable")
    return Advice("nothing to do")


def _replace(fixes: Fixes, names: str, *, runs: bool) -> Advice:
    good, notes = fixes.image, fixes.refused
    if good is not None:
        return Advice(
            f"restart from {good}" if runs else f"before it runs again, let it name {good}", good, notes
        )
    why = "; ".join(notes) or f"no fixed image is named for {names}"
    if not runs:
        return Advice(
            f"let it not run again: {why}" if notes else f"let it not run again: {names} has no fix",
            None,
            notes,
        )
    return Advice(f"stop it or shield it: {why}", None, notes)
