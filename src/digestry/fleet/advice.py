"""One line for a person: what to do about a container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.errors import DigestryError
from digestry.fleet.advisories import Advisory, AdvisoryVerdict, read
from digestry.fleet.identity import Identity
from digestry.fleet.lookup import Lookup
from digestry.fleet.tags import TagVerdict
from digestry.fleet.waiting import ADVICE, PRESENT, Waiting
from digestry.model.reference import Reference

_LONGEST_CHAIN: Final = 8


@dataclass(frozen=True, slots=True)
class Advice:
    """``text`` is one line for a person; ``image`` is what to run in place of what is vulnerable."""

    text: str
    image: Reference | None = None


def advise(
    lookup: Lookup,
    identity: Identity | None,
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
        names = ", ".join(one.statement.vulnerability for one in bad)
        good = _fixed_image(lookup, bad)
        if not runs:
            instead = f"before it runs again, let it name {good}"
            return Advice(instead if good is not None else f"let it not run again: {names} has no fix", good)
        if good is not None:
            return Advice(f"restart from {good}", good)
        return Advice(f"stop it or shield it: no fixed image is named for {names}")
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


def _fixed_image(lookup: Lookup, bad: list[Advisory]) -> Reference | None:
    """The image that fixes most of ``bad``, itself not known to be bad; None if there is none."""
    named: dict[Reference, int] = {}
    for advisory in bad:
        for image in advisory.statement.fixed_by:
            named[image] = named.get(image, 0) + 1
    for image in sorted(named, key=lambda one: -named[one]):
        good = _followed(lookup, image)
        if good is not None:
            return good
    return None


def _followed(lookup: Lookup, image: Reference) -> Reference | None:
    """``image``, or, if it was found bad later, what fixes it in turn."""
    seen: set[Reference] = set()
    while image not in seen and len(seen) < _LONGEST_CHAIN:
        seen.add(image)
        if image.digest is None:
            return None
        try:
            current = read(lookup, image.repository_only(), [image.digest]).current()
        except DigestryError:
            return image
        worse = [one for one in current if one.statement.status == "affected"]
        if not worse:
            return image
        following = [fix for one in worse for fix in one.statement.fixed_by]
        if not following:
            return None
        image = following[0]
    return None
