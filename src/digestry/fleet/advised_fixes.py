"""The job that lets fixes through before their minimum age: what an advisory names as the fix, or as fixed.

One node at a time does it, in the maintenance process. It looks at the advisories of repositories with a
minimum age soon after one was attached or removed, and at all of them from time to time. Each digest that one
lets through is an override, whose reason is in the journal, and which ends with the advisory
(docs/min-age.md).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from digestry.advisories.advisory import Advisory, AdvisoryReading
from digestry.advisories.attachments import read_advisories
from digestry.audit.registry_queries import RegistryQueries
from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.age_overrides import LONGEST_REASON, AgeOverride
from digestry.catalog.age_policy import Advice, AgePolicy
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet.judgements import Referrer
from digestry.catalog.journal import Origin
from digestry.coordination.protocol import FencedLock, Job
from digestry.fleet.own_names import OwnNames
from digestry.fleet.own_registry import OwnRegistries
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.model.text import printable
from digestry.registry.config import RegistryConfig
from digestry.registry.exclusive_job import ExclusiveJob

log: Final = logging.getLogger("digestry.registry")

ACTOR: Final = "advisories"
"""Who the journal says made these overrides."""
_LOOK_SECONDS: Final = 1.0
_EVERYTHING_SECONDS: Final = 600.0
_LOOKED_SHARE: Final = 20
"""Looking takes one part of so many of the time at the most."""
_OVERLAP: Final = 60 * clock.SECOND
"""A manifest's time is taken before its transaction commits."""
_QUESTION_SECONDS: Final = 60.0
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class _Fix:
    """What an advisory lets through, and why."""

    repository: str
    digest: str
    advisory: str
    advised: str
    reason: str


class AdvisedFixesJob(ExclusiveJob):
    """Lets fixes through."""

    name = "advised fixes"
    lock = Job.ADVICE

    def __init__(self, config: RegistryConfig, backend: Backend) -> None:
        super().__init__(backend)
        self._names = OwnNames(config)

    def work(self, catalog: Catalog, lock: FencedLock, stop: threading.Event) -> None:
        """Look until ``stop`` is set."""
        fixes = AdvisedFixes(catalog, self._backend, self._names, lock)
        while not stop.is_set():
            lock.check()
            stop.wait(fixes.step())


class AdvisedFixes:
    """The work of one holder of the lock, which fences what it writes."""

    def __init__(self, catalog: Catalog, backend: Backend, names: OwnNames, lock: FencedLock) -> None:
        self._catalog = catalog
        self._policy = names.config.ages
        self._trust = names.config.trust
        self._host = names.primary
        # What makes overrides of ages does not depend on them.
        self._registries = OwnRegistries(catalog, backend.blobs, names.is_own, AgePolicy(), backend.now)
        self._lock = lock
        self._now = backend.now
        self._since = self._now() - _OVERLAP
        self._seen: set[Referrer] = set()
        self._next_everything = 0.0

    def step(self) -> float:
        """Look at what has changed; return after how many seconds to look again."""
        began = time.monotonic()
        at = self._now()
        everything = began >= self._next_everything
        found = set(self._catalog.fleet_judgements.referrers(0 if everything else self._since))
        changed = found if everything else found - self._seen
        self._seen, self._since = set() if everything else found, at - _OVERLAP
        subjects: dict[str, set[str]] = {}
        for one in changed:
            if self._policy.advice(one.repository) != "off":
                subjects.setdefault(one.repository, set()).add(one.subject)
        overrides = self._catalog.age_overrides.advised() if subjects or everything else []
        queries = RegistryQueries(self._registries, timeout=_QUESTION_SECONDS, trust=self._trust)
        for name in sorted(subjects | {one.repository: set() for one in overrides if everything}):
            mine = [one for one in overrides if one.repository == name]
            self._repository(queries, name, subjects.get(name, set()), mine, everything=everything)
        took = time.monotonic() - began
        if everything:
            self._next_everything = time.monotonic() + max(_EVERYTHING_SECONDS, took * _LOOKED_SHARE)
        return max(_LOOK_SECONDS, took * _LOOKED_SHARE)

    def _repository(
        self,
        queries: RegistryQueries,
        name: str,
        subjects: Collection[str],
        overrides: Iterable[AgeOverride],
        *,
        everything: bool,
    ) -> None:
        """Make the overrides of a repository true, as far as they follow from advisories of ``subjects``."""
        about = Reference(self._host, name)
        advice = self._policy.advice(name)
        readings: dict[str, AdvisoryReading] = {}

        def read(subject: str) -> AdvisoryReading:
            if subject not in readings:
                readings[subject] = read_advisories(queries, about, [Digest.parse(subject)])
            return readings[subject]

        for override in overrides:
            touched = override.advised in subjects or override.digest in subjects
            if everything or touched:
                self._end_unless_true(override, advice, read(override.advised), read(override.digest))
        if advice == "off":
            return
        for subject in sorted(subjects):
            reading = read(subject)
            for fix in _fixes(name, subject, reading, advice):
                self._let_through(fix, reading, read(fix.digest))

    def _let_through(self, fix: _Fix, *readings: AdvisoryReading) -> None:
        if not all(reading.complete for reading in readings):
            log.warning(
                "%s@%s is not let through before its age: not all that is stated about it could be read",
                fix.repository,
                fix.digest,
            )
            return
        if _is_affected(readings[-1]):
            return
        made = self._catalog.age_overrides.advise(
            fix.repository,
            fix.digest,
            advisory=fix.advisory,
            advised=fix.advised,
            origin=Origin(ACTOR, client="digestry", reason=fix.reason),
            fence=self._lock,
        )
        if made is not None:
            log.info("%s is let through before its age: %s", made.subject, fix.reason)

    def _end_unless_true(
        self, override: AgeOverride, advice: Advice, reading: AdvisoryReading, fixed: AdvisoryReading
    ) -> None:
        name, advisory = override.repository, override.advisory
        still = {(fix.digest, fix.advisory) for fix in _fixes(name, override.advised, reading, advice)}
        if advice == "off":
            why = "advisories let nothing through here"
        elif self._catalog.manifest(name, Digest.parse(advisory)) is None:
            why = "it was removed"
        elif _is_affected(fixed):
            why = "another says that it is affected"
        elif (override.digest, advisory) in still or not reading.complete:
            return  # what could not be read now is no reason to end it
        else:
            why = "what it states is not in force, or does not count"
        reason = f"advisory {advisory} does not let it through any more: {why}"
        origin = Origin(ACTOR, client="digestry", reason=reason)
        if self._catalog.age_overrides.end_advised(override.number, origin=origin, fence=self._lock):
            log.info("%s: %s", override.subject, reason)


def _fixes(name: str, subject: str, reading: AdvisoryReading, advice: Advice) -> list[_Fix]:
    """Return what the advisories of ``subject`` that are in force let through."""
    if advice == "off":
        return []
    found: dict[tuple[str, str], _Fix] = {}
    for advisory in reading.current():
        if advice == "signed" and advisory.signature.state != "verified":
            continue
        for digest in _fixed_by(advisory):
            made = _Fix(name, digest, str(advisory.referrer), subject, _reason(advisory, digest))
            found.setdefault((made.digest, made.advisory), made)
    return list(found.values())


def _fixed_by(advisory: Advisory) -> list[str]:
    """Return the digests that an advisory says are fixed."""
    if advisory.product or advisory.component or not advisory.sure:
        return []  # of a part of the image
    if advisory.statement.status == "fixed":
        return [str(advisory.subject)]
    if advisory.statement.status != "affected":
        return []
    named = (image.digest for image in advisory.statement.fixed_by)
    return [str(digest) for digest in named if digest is not None and digest != advisory.subject]


def _reason(advisory: Advisory, digest: str) -> str:
    """Return why ``digest`` is let through, as one line that an override may have as its reason."""
    vulnerability = printable(advisory.statement.vulnerability)[:_LONGEST_NAME]
    if digest == str(advisory.subject):
        text = f"fixed by advisory {advisory.referrer}: {vulnerability} is fixed in it"
    else:
        text = f"fixed by advisory {advisory.referrer}: the fix of {vulnerability} in {advisory.subject}"
    signer = printable(advisory.signature.signer)[:_LONGEST_NAME]
    return (f"{text}, signed by {signer}" if signer else text)[:LONGEST_REASON]


def _is_affected(reading: AdvisoryReading) -> bool:
    return any(advisory.statement.status == "affected" for advisory in reading.current())
