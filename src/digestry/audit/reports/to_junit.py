"""The report as JUnit XML, for a build server: a test case for each container.

Only a container that an advisory calls fixed, or not affected, passes. Any other that does not fail is
skipped, which no build server shows in green.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from digestry.audit.findings import AuditReport, ContainerFinding
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
from digestry.model.text import printable

_ORDER: Final[tuple[FailState, ...]] = ("affected", "never", "unknown", "not_assessed", "moved")


def write(report: AuditReport, *, fail_on: frozenset[FailState] = frozenset({"affected"})) -> Iterator[str]:
    """Yield the document, in pieces. Containers in one of the states ``fail_on`` are failures; problems of
    sources are errors."""
    failing = [not fail_on.isdisjoint(states(finding)) for finding in report.findings]
    failures = sum(failing)
    skipped = sum(
        not fails and not _passes(finding) for finding, fails in zip(report.findings, failing, strict=True)
    )
    cases = len(report.findings) + len(report.problems)
    counts = f'tests="{cases}" failures="{failures}" errors="{len(report.problems)}"'
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="digestry audit" {counts}>\n'
    yield f'<testsuite name="digestry audit" {counts} skipped="{skipped}">\n'
    for finding in report.findings:
        yield _container(finding, fail_on)
    for problem in report.problems:
        yield _problem(problem)
    yield "</testsuite>\n</testsuites>\n"


def _container(finding: ContainerFinding, fail_on: frozenset[FailState]) -> str:
    seen = finding.container
    failing = [state for state in _ORDER if state in fail_on and state in states(finding)]
    head = (
        f"<testcase classname={_attribute(seen.host or 'no host')} name={_attribute(container_name(finding))}"
        ' time="0"'
    )
    running = "an unknown image" if finding.identity is None else str(finding.identity.running)
    about = [
        f"runs {running}",
        f"started as {short_reference(seen.image.reference)}",
        f"advisories: {_words(finding.assessment.state)}; tag: {tag_words(finding)}",
        *(statement_words(advisory) for advisory in finding.assessment.advisories),
        *finding.reasons,
    ]
    if not failing:
        skipped = "" if _passes(finding) else f"<skipped message={_attribute(_why(finding))}/>"
        return f"{head}>{skipped}<system-out>{_lines(about)}</system-out></testcase>\n"
    names = ", ".join(_words(state) for state in failing)
    return (
        f"{head}><failure type={_attribute(failing[0])} message={_attribute(f'{names}: {finding.action}')}>"
        f"{_lines(about)}</failure></testcase>\n"
    )


def _passes(finding: ContainerFinding) -> bool:
    return severity(finding) in {"good", "moved"}


def _why(finding: ContainerFinding) -> str:
    return f"{state_word(finding)}: {finding.action}"


def _words(state: str) -> str:
    return NOT_FROM_TAG if state == "never" else state.replace("_", " ")


def _problem(problem: Unseen) -> str:
    return (
        f'<testcase classname="could not be seen" name={_attribute(problem.source)} time="0">'
        f'<error type="unseen" message={_attribute(problem.message)}>{_lines([problem.hint])}</error>'
        "</testcase>\n"
    )


def _attribute(text: str) -> str:
    return quoteattr(printable(text))


def _lines(lines: list[str]) -> str:
    # Characters that XML 1.0 does not allow (section 2.2) are not printable either.
    return "\n".join(escape(printable(line)) for line in lines if line)
