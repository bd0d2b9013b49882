"""The assessment of an image by its advisories: affected, fixed, not affected, not assessed or unknown.

Nothing here sends a request: :func:`assess` decides by the facts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from digestry.advisories.advisory import Advisory, AdvisoryReading, contradictions, in_force
from digestry.advisories.products import SubjectImage, match_product
from digestry.advisories.statements import GOOD
from digestry.audit.facts import RegistryFacts
from digestry.audit.image_identity import ImageIdentity
from digestry.model.digest import Digest
from digestry.model.reference import Reference

State: TypeAlias = Literal["affected", "fixed", "not_affected", "not_assessed", "unknown"]
"""``fixed`` and ``not_affected``: an advisory says so. ``not_assessed``: everything was read, and no advisory
states anything. ``unknown``: anything else, with its reasons."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The state of some code, with the advisories and reasons for it."""

    state: State
    advisories: tuple[Advisory, ...] = ()
    reasons: tuple[str, ...] = ()
    complete: bool = True


class AdvisoryIndex:
    """The advisories of all images, indexed by subject and by config."""

    def __init__(self) -> None:
        self._by_subject: dict[Digest, dict[int, Advisory]] = {}
        self._by_config: dict[Digest, dict[int, Advisory]] = {}

    def add(self, config: Digest | None, advisories: Iterable[Advisory]) -> None:
        """Add the advisories of one image, with the digest of its config, if known."""
        for advisory in advisories:
            self._by_subject.setdefault(advisory.subject, {})[id(advisory)] = advisory
            if config is not None:
                self._by_config.setdefault(config, {})[id(advisory)] = advisory

    def about(self, identity: ImageIdentity) -> list[Advisory]:
        """Return the advisories about the code of ``identity``, from any repository."""
        found: dict[int, Advisory] = {}
        for digest in sorted(identity.closure):
            # An advisory of a shared index may be about another image of it.
            some = self._by_subject.get(digest, {})
            found |= {key: advisory for key, advisory in some.items() if _is_about(advisory, identity)}
        if identity.config is not None:
            found |= self._by_config.get(identity.config, {})
        return list(found.values())

    def fixed_images(self) -> set[Reference]:
        """Return the images that advisories name as fixes."""
        return {
            image
            for stated in self._by_subject.values()
            for advisory in stated.values()
            if advisory.statement.status == "affected"
            for image in advisory.statement.fixed_by
        }


def _is_about(advisory: Advisory, identity: ImageIdentity) -> bool:
    about = SubjectImage(identity.closure, (advisory.repository,))
    named = advisory.statement.products
    return not named or any(match_product(product, about).match == "digest" for product in named)


def known_in_force(reading: AdvisoryReading, elsewhere: Iterable[Advisory]) -> list[Advisory]:
    """Return the statements in force, the worst first, of an image's own advisories and ``elsewhere``."""
    known = {_key(advisory) for advisory in (*reading.advisories, *reading.superseded)}
    return in_force(
        [*reading.advisories, *(advisory for advisory in elsewhere if _key(advisory) not in known)]
    )


def assess(facts: RegistryFacts) -> Assessment:
    """Return the assessment of the code that runs, by the advisories of ``facts``.

    An index's advisory holds for its children, and manifests that share a config are the same code, in any
    repository. A good statement is believed only if everything was read, and a registry knows the image that
    runs.
    """
    identity, reading = facts.identity, facts.reading
    if identity is None:
        return Assessment("unknown")
    current = known_in_force(reading, facts.elsewhere)
    reasons = [*reading.reasons, *contradictions(current)]
    reasons += [
        f"{advisory.statement.vulnerability}: stated in {advisory.repository.name}, about the same code"
        for advisory in current
        if advisory.repository != identity.repository
    ]
    state, why = _state(current, reading, identity)
    reasons += why
    if state != "affected":
        doubts = _doubts(facts, good=identity.assumed and state in GOOD)
        if doubts:
            state = "unknown"
            reasons += doubts
    return Assessment(state, tuple(current), tuple(dict.fromkeys(reasons)), reading.complete)


def _key(advisory: Advisory) -> tuple[object, ...]:
    statement = advisory.statement
    return (
        advisory.referrer, statement.identity, statement.vulnerability, statement.status, advisory.product,
        advisory.component,
    )  # fmt: skip


def _state(
    current: list[Advisory], reading: AdvisoryReading, identity: ImageIdentity
) -> tuple[State, list[str]]:
    statuses = {advisory.statement.status for advisory in current}
    if "affected" in statuses:
        return "affected", []
    if "under_investigation" in statuses:
        return "unknown", [
            f"{advisory.statement.vulnerability} is under investigation"
            for advisory in current
            if advisory.statement.status == "under_investigation"
        ]
    if not reading.complete:
        return "unknown", []
    if identity.contested:
        return "unknown", [f"it may as well be {identity.contested[0]} that runs, which is other code"]
    if not identity.confirmed:
        return "unknown", ["no registry knows what runs, so that no advisory is known to be about it"]
    good = {
        advisory.statement.status
        for advisory in current
        if advisory.sure and advisory.statement.status in GOOD
    }
    if good:
        return "fixed" if "fixed" in good else "not_affected", []
    if current:
        return "unknown", [
            f"{advisory.statement.vulnerability}: {advisory.statement.status.replace('_', ' ')} is said of"
            f" {advisory.product} only, and it is not known whether the image has that"
            for advisory in current
        ]
    return "not_assessed", []


def _doubts(facts: RegistryFacts, *, good: bool) -> list[str]:
    """Return the statements against other images that may be the one that runs; and, if the state is ``good``
    and the image was only assumed, the other images that no advisory assesses."""
    found = []
    for image in facts.possible:
        for advisory in image.reading.current():
            status = advisory.statement.status
            if status not in GOOD:
                verb = "affects" if status == "affected" else "is under investigation for"
                found.append(
                    f"{advisory.statement.vulnerability} {verb} {image.digest}, which may be what runs"
                )
        if not image.reading.complete:
            found += image.reading.reasons
        if good and not image.reading.advisories:
            found.append(f"no advisory states anything about {image.digest}, which may be what runs")
    return found
