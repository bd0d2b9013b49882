"""The words and the order of containers that all forms of a report share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from digestry.advisories.advisory import Advisory, ImagePart
from digestry.advisories.statements import LONG_AGO, Status
from digestry.audit.assessment import State
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.tag_verdict import UNTAGGED_HERE
from digestry.inventory.engine_values import reference_of
from digestry.model.text import number_of
from digestry.model.timestamps import rfc3339

Severity: TypeAlias = Literal["affected", "never", "unknown", "not_assessed", "moved", "good"]
"""The severity of a container, in one word: the worst that is known of it. ``moved`` and ``good`` are only
containers that an advisory calls fixed, or not affected."""
FailState: TypeAlias = Literal["affected", "never", "moved", "unknown", "not_assessed"]

SEVERITIES: Final[tuple[Severity, ...]] = ("affected", "never", "unknown", "not_assessed", "moved", "good")
"""Worst first."""
STATED: Final[frozenset[State]] = frozenset({"fixed", "not_affected"})
"""The states that are good by an advisory's statement."""
WORDS: Final[dict[State, str]] = {
    "affected": "VULNERABLE",
    "unknown": "unknown",
    "not_assessed": "not assessed",
    "fixed": "FIXED",
    "not_affected": "not affected",
}
UNTAGGED_WORD: Final = "NOT FROM TAG"
NOT_FROM_TAG: Final = "not from this tag"
STATUS_WORDS: Final[dict[Status, str]] = {
    "affected": "affected",
    "not_affected": "not affected",
    "fixed": "fixed",
    "under_investigation": "under investigation",
}
ELLIPSIS: Final = "…"
BY_ID: Final = "(started by image ID)"

_COUNTED: Final = {
    WORDS["affected"]: "vulnerable",
    UNTAGGED_WORD: "not from tag",
    WORDS["unknown"]: "unknown",
    WORDS["not_assessed"]: "not assessed",
    WORDS["fixed"]: "fixed",
    WORDS["not_affected"]: "not affected",
}
_FAILING: Final[dict[State, FailState]] = {
    "affected": "affected",
    "unknown": "unknown",
    "not_assessed": "not_assessed",
}
_RANK: Final = {severity: rank for rank, severity in enumerate(SEVERITIES)}


def severity(finding: ContainerFinding) -> Severity:
    """Return the worst that is known of a container."""
    if finding.assessment.state == "affected":
        return "affected"
    if finding.tag.state == UNTAGGED_HERE:
        return "never"
    state = finding.assessment.state
    if state not in STATED:
        return "not_assessed" if state == "not_assessed" else "unknown"
    return "moved" if finding.tag.state == "moved" else "good"


def worst_first(findings: Iterable[ContainerFinding]) -> list[ContainerFinding]:
    """Return ``findings`` in the order of :data:`SEVERITIES`; equal ones stay in their order."""
    return sorted(findings, key=lambda finding: _RANK[severity(finding)])


def states(finding: ContainerFinding) -> set[FailState]:
    """Return which of the states that may fail an audit a container is in."""
    found: set[FailState] = set()
    state = finding.assessment.state
    if state in _FAILING:
        found.add(_FAILING[state])
    if finding.tag.state == UNTAGGED_HERE:
        found.add("never")
    elif finding.tag.state == "moved":
        found.add("moved")
    return found


def container_name(finding: ContainerFinding) -> str:
    """Return a container's name with its namespace; the start of its ID if it has none."""
    seen = finding.container
    name = seen.name or seen.id[:12] or "-"
    return f"{seen.namespace}/{name}" if seen.namespace else name


def place(finding: ContainerFinding) -> str:
    """Return ``NAME on HOST``."""
    host = finding.container.host
    return f"{container_name(finding)} on {host}" if host else container_name(finding)


def short_reference(reference: str | None, *, host: bool = True) -> str:
    """Return an image name for people: ``golftrack:1.5``, or ``golftrack@baad1b40fc15`` if it is pinned.

    Without ``host`` its registry is left out.
    """
    if not reference:
        return BY_ID
    read = reference_of(reference)
    if read is None:
        return reference
    name = reference.partition("@")[0]
    if not host:
        repository = read.repository.removeprefix("library/")
        name = repository if read.tag is None else f"{repository}:{read.tag}"
    elif read.digest is not None and read.tag is None:
        name = name.removesuffix(":")
    return name if read.digest is None else f"{name}@{read.digest.short}"


def tag_words(finding: ContainerFinding, *, whole: bool = False, digits: int = 4) -> str:
    """Return the words for the verdict on a container's tag; ``never`` is an alarm of its own. A digest that
    the tag has moved to is shown with so many hex ``digits``, unless the ``whole`` is required."""
    tag = finding.tag
    if tag.state == UNTAGGED_HERE:
        return NOT_FROM_TAG
    if tag.state != "moved":
        return tag.state
    when = "" if tag.moved_at is None else f" {rfc3339(tag.moved_at)}"
    if tag.digest is None:
        return f"moved{when}, deleted"
    return f"moved{when} to {tag.digest if whole else tag.digest.encoded[:digits] + ELLIPSIS}"


def statement_words(advisory: Advisory) -> str:
    """Return one advisory in one line."""
    statement = advisory.statement
    about = advisory.component or advisory.product
    of = f" ({about})" if about else ""
    when = "undated" if statement.timestamp == LONG_AGO else rfc3339(statement.timestamp)
    says = f"{statement.vulnerability}{of}: {STATUS_WORDS[statement.status]}, {when}"
    if advisory.part is not None:
        says += f", {part_words(advisory.part)}"
    by = f" by {advisory.author or 'an author who is not named'} ({advisory.signature.shown})"
    note = statement.notes or statement.impact
    return f"{says}{by}" + (f": {note}" if note else "")


def part_words(part: ImagePart) -> str:
    """Return which layer or config a statement is about, and the image that the layer came with."""
    if part.kind == "config":
        return f"in the config {part.digest}"
    base = f" of {part.base}" if part.base is not None else ", of which no base image is known"
    step = f", made by {part.made_by!r}" if part.made_by else ""
    return f"in the layer {part.digest}{base}{step}"


def good_statements(findings: Iterable[ContainerFinding]) -> list[str]:
    """Return who states that containers are fixed, or not affected: one line for each statement, with the
    number of containers that are good by it."""
    counts: Counter[str] = Counter()
    for finding in findings:
        if finding.assessment.state in STATED:
            counts.update(dict.fromkeys(map(statement_words, finding.assessment.advisories), 1))
    return [f"{number_of(count, 'container')}: {reason}" for reason, count in counts.most_common()]


def state_word(finding: ContainerFinding) -> str:
    """Return one word for the worst that is known: vulnerable, not from its tag, or the state."""
    return UNTAGGED_WORD if severity(finding) == UNTAGGED_HERE else WORDS[finding.assessment.state]


def counted(findings: Iterable[ContainerFinding]) -> str:
    """Return ``2 vulnerable, 1 not from tag, 1 unknown, 212 fixed``: each container once, by its worst."""
    counts = Counter(state_word(finding) for finding in findings)
    return ", ".join(f"{counts[word]} {_COUNTED[word]}" for word in _COUNTED if counts[word])


def summary(report: AuditReport) -> str:
    """Return one line: how many containers, in which states, and how much could not be seen."""
    line = number_of(len(report.findings), "container")
    hosts = {finding.container.host for finding in report.findings} - {""}
    if len(hosts) == 1:
        line += f" on {hosts.pop()}"
    if report.findings:
        line += f": {counted(report.findings)}"
    elif report.sources:
        line += f" in {', '.join(report.sources)}"
    if report.problems:
        line += f"; {number_of(len(report.problems), 'problem')}: something could not be seen"
    return line
