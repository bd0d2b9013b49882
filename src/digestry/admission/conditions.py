"""The conditions of one image: which of them hold, by what is known of it. Nothing here sends a request."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.pod_templates import ImagePlace
from digestry.admission.policy import Condition, Exemption, Rule
from digestry.advisories.advisory import Advisory
from digestry.advisories.statements import SEVERITIES
from digestry.model.text import few, length_of_time
from digestry.model.timestamps import rfc3339

_MINUTE: Final = 60.0
_TOLERANCE: Final = 300.0
"""Seconds that the registry's clock may be ahead of this one."""


@dataclass(frozen=True, slots=True)
class Met:
    """A condition that holds, with the reason and the advice, each a clause for a person.

    ``about`` is the condition whose question got no answer, for ``unknown`` and ``away``.
    """

    condition: Condition
    reason: str
    advice: str = ""
    about: tuple[Condition, ...] = ()


def conditions_of(
    place: ImagePlace,
    known: ImageKnowledge,
    rule: Rule,
    now: datetime.datetime,
    forgiven: tuple[Exemption, ...] = (),
) -> list[Met]:
    """Return the conditions that hold for the image at ``place`` under the settings of ``rule``.

    ``forgiven`` are exemptions in force whose vulnerabilities do not count. A question that a rule does not
    care for is left out of ``unknown``.
    """
    met = list(_of_name(place, known))
    if not known.asked_registry:
        return met
    if known.away:
        met.append(Met("away", f"the registry did not answer: {known.away}", "try again when it is back"))
        # What it said before: only what counts against the image.
        met += _affected(known, rule, forgiven)
        if known.missing:
            met.append(Met("missing", known.missing, "push it, or correct the name"))
        met += [*_never_pointed(known), *_moved(known, rule, now), *_no_proof(known)]
        return met
    if known.missing:
        met.append(Met("missing", known.missing, "push it, or correct the name"))
        return met
    if known.behind:
        why = f"the registry is a mirror, and may be behind the registry that it mirrors: {known.behind}"
        met.append(Met("behind", why))
    met += _affected(known, rule, forgiven)
    if known.assessment == "not_assessed":
        met.append(Met("not-assessed", "no advisory says anything of it", "scan it: digestry scan IMAGE"))
    met += [*_never_pointed(known), *_moved(known, rule, now), *_no_proof(known)]
    unknown = [one for one in _unknown(place, known, now) if rule.actions[one[0]] != "allow"]
    if unknown:
        reasons = "; ".join(dict.fromkeys(reason for _, reason in unknown))
        met.append(Met("unknown", f"not known: {reasons}", about=tuple(one for one, _ in unknown)))
    return met


def _of_name(place: ImagePlace, known: ImageKnowledge) -> Iterator[Met]:
    reference = known.reference
    if reference is None:
        yield Met("missing", known.missing or "it is not the name of an image", "correct the name")
        return
    if reference.digest is None:
        advice = f"write {place.image}@{known.digest}" if known.digest else "write NAME:TAG@sha256:…"
        yield Met("not-pinned", "it has no digest: what the tag points to is pulled", advice)
    if not known.asked_registry:
        why = f"{reference.host} is not one of the registries of the policy, and was not asked"
        yield Met("unknown-registry", why, "name it in registries, or copy the image to one of those")


def _affected(known: ImageKnowledge, rule: Rule, forgiven: tuple[Exemption, ...]) -> Iterator[Met]:
    excused = {name for exemption in forgiven for name in exemption.vulnerabilities}
    counted = [
        advisory
        for advisory in known.affecting
        if not _is_less(advisory, rule.affected_from)
        and not excused.intersection((advisory.statement.vulnerability, *advisory.statement.aliases))
    ]
    if not counted:
        return
    names = few([_named(advisory) for advisory in counted], most=3)
    digest = f"{known.digest} is " if known.digest is not None else ""
    advice = f"run {known.fixed_image}" if known.fixed_image is not None else "no fixed image is known"
    yield Met("affected", f"{digest}affected by {names}", advice)


def _never_pointed(known: ImageKnowledge) -> Iterator[Met]:
    if known.tag == "never" and known.reference is not None and known.reference.digest is not None:
        why = f"the tag {known.reference.tag} never pointed to {known.reference.digest}"
        yield Met("never-pointed", why, f"see digestry log {_tagged(known)}")


def _no_proof(known: ImageKnowledge) -> Iterator[Met]:
    if known.proof_refused:
        name = "" if known.reference is None else known.reference.name
        why = f"the registry's transparency log does not prove it: {known.proof_refused}"
        yield Met("no-proof", why, f"see digestry log verify {name}")


def _named(advisory: Advisory) -> str:
    severity = advisory.statement.severity
    return advisory.statement.vulnerability + (f" ({severity})" if severity else "")


def _is_less(advisory: Advisory, least: str) -> bool:
    """Return whether an advisory is known to be less severe than ``least``."""
    severity = advisory.statement.severity
    if not least or severity not in SEVERITIES:
        return False
    return SEVERITIES.index(severity) < SEVERITIES.index(least)


def _moved(known: ImageKnowledge, rule: Rule, now: datetime.datetime) -> Iterator[Met]:
    if known.since is None or known.reference is None:
        return
    age = (now - known.since).total_seconds()
    if age >= rule.moved_within or age < -_TOLERANCE:
        return  # a time in the future is unknown
    since = rfc3339(known.since)
    if known.not_before is not None:
        since = f"between {rfc3339(known.not_before)} and {since}"
    verb = "points" if known.reference.digest is None else "came"
    why = (
        f"the tag {known.reference.tag} {verb} there only since {since}, {_rounded(age)} ago,"
        f" and the policy wants {length_of_time(rule.moved_within)}"
    )
    left = _rounded(rule.moved_within - age)
    advice = f"wait {left}, or pin the digest that it had: digestry log {_tagged(known)}"
    yield Met("moved", why, advice)


def _unknown(
    place: ImagePlace, known: ImageKnowledge, now: datetime.datetime
) -> Iterator[tuple[Condition, str]]:
    """Yield the conditions of which it is not known whether they hold, each with the reason."""
    if place.local and (known.reference is None or known.reference.digest is None):
        why = "the node's own image is used (pull policy Never), whatever its registry has"
        yield "affected", why
        yield "not-assessed", why
        yield "moved", why
    if known.assessment == "unknown":
        reason = few(known.assessment_reasons, most=3) or "its registry does not identify the image"
        for condition in ("affected", "not-assessed"):
            yield condition, f"whether it is affected: {reason}"
    if known.reference is None or known.reference.tag is None:
        return
    if known.reference.digest is not None and known.tag == "unknown":
        reason = few(known.tag_reasons, most=2) or "its registry does not say"
        yield "never-pointed", f"whether its tag ever pointed there: {reason}"
    if known.age_unknown and known.tag != "never":
        yield "moved", f"since when its tag points there: {known.age_unknown}"
    elif known.since is not None and (now - known.since).total_seconds() < -_TOLERANCE:
        why = f"its registry says {rfc3339(known.since)}, which is yet to come: one of two clocks is wrong"
        yield "moved", f"since when its tag points there: {why}"
    if not known.proven and known.proof_unknown:
        yield "no-proof", known.proof_unknown


def _tagged(known: ImageKnowledge) -> str:
    return "" if known.reference is None else f"{known.reference.name}:{known.reference.tag}"


def _rounded(seconds: float) -> str:
    """Return a length of time, rounded to a unit that a person reads."""
    seconds = max(0.0, seconds)
    for size in (86400.0, 3600.0, _MINUTE):
        if seconds >= 2 * size:
            return length_of_time(round(seconds / size) * size)
    return length_of_time(max(1.0, round(seconds)))
