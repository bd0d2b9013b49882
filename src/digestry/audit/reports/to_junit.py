"""The report as JUnit XML, for a build server: a test case for each container.

Only a container that an advisory calls fixed, or not affected, passes. Any other that does not fail is
skipped, which no build server shows in green.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.reports.junit_suite import Case, Counts, write_suite
from digestry.audit.reports.words import (
    NOT_FROM_TAG,
    FailState,
    container_name,
    severity,
    short_reference,
    state_word,
    statement_words,
    states,
    tag_words,
)
from digestry.inventory.observation import Unseen

_ORDER: Final[tuple[FailState, ...]] = ("affected", "never", "unknown", "not_assessed", "moved")


def write(report: AuditReport, *, fail_on: frozenset[FailState] = frozenset({"affected"})) -> Iterator[str]:
    """Yield the document, in pieces. Containers in one of the states ``fail_on`` are failures; problems of
    sources are errors."""
    failing = [not fail_on.isdisjoint(states(finding)) for finding in report.findings]
    skipped = sum(
        not fails and not _passes(finding) for finding, fails in zip(report.findings, failing, strict=True)
    )
    problems = len(report.problems)
    counts = Counts(len(report.findings) + problems, sum(failing), problems, skipped)
    containers = (_container(finding, fail_on) for finding in report.findings)
    return write_suite("digestry audit", counts, itertools.chain(containers, map(_problem, report.problems)))


def _container(finding: ContainerFinding, fail_on: frozenset[FailState]) -> Case:
    seen = finding.container
    failing = [state for state in _ORDER if state in fail_on and state in states(finding)]
    running = "an unknown image" if finding.identity is None else str(finding.identity.running)
    about = (
        f"runs {running}",
        f"started as {short_reference(seen.image.reference)}",
        f"advisories: {_words(finding.assessment.state)}; tag: {tag_words(finding)}",
        *(statement_words(advisory) for advisory in finding.assessment.advisories),
        *finding.reasons,
    )
    case = Case(seen.host or "no host", container_name(finding), output=about)
    if failing:
        names = ", ".join(_words(state) for state in failing)
        message = f"{names}: {finding.action}"
        return replace(case, outcome="failure", kind=failing[0], message=message, details=about, output=())
    if _passes(finding):
        return case
    return replace(case, outcome="skipped", message=f"{state_word(finding)}: {finding.action}")


def _passes(finding: ContainerFinding) -> bool:
    return severity(finding) in {"good", "moved"}


def _words(state: str) -> str:
    return NOT_FROM_TAG if state == "never" else state.replace("_", " ")


def _problem(problem: Unseen) -> Case:
    return Case(
        "could not be seen", problem.source, "error", "unseen", problem.message, details=(problem.hint,)
    )
