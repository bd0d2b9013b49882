"""The groups of containers in a report, which make two bad containers among three hundred easy to find.

A group shows each bad container in full; containers in the same good state share one line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from digestry.audit.findings import ContainerFinding
from digestry.audit.reports.words import (
    BY_ID,
    NOT_FROM_TAG,
    SEVERITIES,
    Severity,
    severity,
    short_reference,
    tag_words,
    worst_first,
)
from digestry.inventory.engine_values import reference_of
from digestry.model.text import number_of

By: TypeAlias = Literal["host", "image", "namespace", "advisory"]

WAYS: Final[tuple[By, ...]] = ("host", "image", "namespace", "advisory")
FEW: Final = 20
"""Containers that are listed one by one, unless a grouping is requested."""
MOST_ALIKE: Final = 10
"""Containers of one group with the same unknown facts that have lines of their own; more share a line."""
OTHERS: Final = {
    "host": "(no host)",
    "image": BY_ID,
    "namespace": "(no namespace)",
    "advisory": "(no advisory)",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a group: one container, or several in the same state."""

    findings: tuple[ContainerFinding, ...]

    @property
    def first(self) -> ContainerFinding:
        return self.findings[0]


@dataclass(frozen=True, slots=True)
class Group:
    """Containers with one ``key``; ``severity`` is the worst of theirs."""

    key: str
    severity: Severity
    findings: tuple[ContainerFinding, ...]
    lines: tuple[Line, ...]

    @property
    def good(self) -> bool:
        """Return whether advisories state that all of them are fixed or not affected."""
        return self.severity in {"good", "moved"}

    @property
    def unassessed(self) -> bool:
        """Return whether no advisory states anything about any container of the group."""
        return all(finding.assessment.state == "not_assessed" for finding in self.findings) and (
            self.severity == "not_assessed"
        )


def grouped(findings: Sequence[ContainerFinding], by: By, *, every: bool = False) -> list[Group]:
    """Return the groups, the worst first, then the largest. ``every`` gives each container its own line.

    By advisory, a container is in the group of each vulnerability that something is stated about.
    """
    found: dict[str, list[ContainerFinding]] = {}
    keys = _KEYS[by]
    for finding in findings:
        for key in keys(finding):
            found.setdefault(key or OTHERS[by], []).append(finding)
    groups = []
    for key, members in found.items():
        ordered = worst_first(members)
        worst = severity(ordered[0])
        groups.append(Group(key, worst, tuple(ordered), tuple(_lines(ordered, by, every=every))))
    return sorted(
        groups, key=lambda group: (SEVERITIES.index(group.severity), -len(group.findings), group.key)
    )


def _lines(findings: Sequence[ContainerFinding], by: By, *, every: bool) -> list[Line]:
    if every:
        return [Line((finding,)) for finding in findings]
    lines: list[Line] = []
    for worst in SEVERITIES:
        members = [finding for finding in findings if severity(finding) == worst]
        if worst in {"affected", "never"}:
            lines += [Line((finding,)) for finding in members]
            continue
        alike: dict[tuple[str, ...], list[ContainerFinding]] = {}
        for finding in members:
            alike.setdefault(_line_key(finding, by), []).append(finding)
        for group in sorted(alike.values(), key=len, reverse=True):
            if worst == "unknown" and len(group) <= MOST_ALIKE:
                lines += [Line((finding,)) for finding in group]
            else:
                lines.append(Line(tuple(group)))
    return lines


def _line_key(finding: ContainerFinding, by: By) -> tuple[str, ...]:
    """Return the key of a container's line: containers with equal keys share a line."""
    state = finding.assessment.state
    if by != "image":
        return (state,)
    running = "" if finding.identity is None else str(finding.identity.running)
    return state, finding.container.image.reference or "", running, tag_words(finding, whole=True)


def merged(findings: Iterable[ContainerFinding], words: Callable[[ContainerFinding], str], thing: str) -> str:
    """Return the value that the containers of one line share, or the number of different values."""
    counts = Counter(words(finding) for finding in findings)
    return next(iter(counts)) if len(counts) == 1 else number_of(len(counts), thing)


def merged_tags(findings: Sequence[ContainerFinding]) -> str:
    """Return the tag state of one line: one word if all share it, else the count of each state."""
    words = {tag_words(finding) for finding in findings}
    if len(words) == 1:
        return words.pop()
    counts = Counter(finding.tag.state for finding in findings)
    return ", ".join(
        f"{count} {NOT_FROM_TAG if state == 'never' else state}" for state, count in counts.most_common()
    )


def repository(finding: ContainerFinding) -> str:
    """Return the image that a container was started as, without tag and digest."""
    read = reference_of(finding.container.image.reference)
    if read is None:
        return short_reference(finding.container.image.reference)
    return read.repository_only().familiar


def _advisories(finding: ContainerFinding) -> list[str]:
    return list(
        dict.fromkeys(advisory.statement.vulnerability for advisory in finding.assessment.advisories)
    ) or [""]


_KEYS: Final[dict[By, Callable[[ContainerFinding], list[str]]]] = {
    "host": lambda finding: [finding.container.host],
    "image": lambda finding: [repository(finding)],
    "namespace": lambda finding: [finding.container.namespace],
    "advisory": _advisories,
}
