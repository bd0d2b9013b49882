"""The findings below the table: the reasons for the states of bad containers, and the advice."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.reports.table_layout import STYLES, TableOptions, Text, uncoloured
from digestry.audit.reports.words import (
    BY_ID,
    container_name,
    place,
    severity,
    short_reference,
    state_word,
    statement_words,
    tag_words,
    worst_first,
)
from digestry.model.text import number_of, printable

_DIGITS: Final = 12
_MOST_NAMES: Final = 5
_MOST_STATEMENTS: Final = 10
_MOST_REASONS: Final = 20


def explanations(report: AuditReport, options: TableOptions) -> list[Text]:
    """Return lines: for each set of containers with equal findings, the reasons and the advised
    action."""
    lines: list[Text] = []
    for members in equal_findings(report):
        example = members[0]
        word = state_word(example)
        heading = _together(members, options)
        lines.append(((word, STYLES.get(word, "")), (printable(f": {heading}"), "")))
        statements = [statement_words(advisory) for advisory in example.assessment.advisories]
        shown = len(statements) if options.whole else _MOST_STATEMENTS
        for statement in statements[:shown]:
            lines += wrapped(statement, options)
        if len(statements) > shown:
            lines += wrapped(f"and {len(statements) - shown} statements more; --no-trunc shows all", options)
        moves = dict.fromkeys(
            f"- {named(finding, options)} {tag_words(finding, whole=options.whole, digits=_DIGITS)}"
            for finding in members
            if finding.tag.state == "moved"
        )
        reasons = example.reasons if options.whole else example.reasons[:_MOST_REASONS]
        for reason in (*list(moves)[:_MOST_NAMES], *(f"- {reason}" for reason in reasons)):
            lines += wrapped(reason, options)
        if len(example.reasons) > len(reasons):
            left = len(example.reasons) - len(reasons)
            lines += wrapped(f"- and {number_of(left, 'reason')} more; --no-trunc shows all", options)
        action = f"-> {example.action}"
        # With an image it is not shortened, so that it can be copied.
        lines += wrapped(action, options) if example.fixed_image is None else [uncoloured(f"  {action}")]
    return lines


def equal_findings(report: AuditReport) -> list[list[ContainerFinding]]:
    """Return the containers that are not fine, the worst first, in lists of equal findings."""
    found: dict[tuple[object, ...], list[ContainerFinding]] = {}
    for finding in worst_first(report.findings):
        if severity(finding) not in {"affected", "never", "unknown"}:
            continue
        advisories = tuple(
            (
                advisory.referrer,
                advisory.statement.vulnerability,
                advisory.statement.identity,
                advisory.part and advisory.part.digest,
            )
            for advisory in finding.assessment.advisories
        )
        key = (finding.assessment.state, state_word(finding), advisories, finding.reasons, finding.action)
        found.setdefault(key, []).append(finding)
    return list(found.values())


def named(finding: ContainerFinding, options: TableOptions) -> str:
    """Return the name that a container's image was started by."""
    reference = finding.container.image.reference
    return (reference or BY_ID) if options.whole else short_reference(reference)


def _together(members: Sequence[ContainerFinding], options: TableOptions) -> str:
    if len(members) == 1:
        return place(members[0])
    shown = members if options.whole else members[:_MOST_NAMES]
    more = f" and {len(members) - len(shown)} more" if len(shown) < len(members) else ""
    hosts = {finding.container.host for finding in members}
    if len(hosts) == 1:
        names = ", ".join(container_name(finding) for finding in shown)
        host = hosts.pop()
        return f"{names}{more}" + (f" on {host}" if host else "")
    return ", ".join(place(finding) for finding in shown) + more


def wrapped(text: str, options: TableOptions) -> list[Text]:
    """Return ``text`` as indented lines that fit into the width."""
    text = printable(text)
    if options.whole:
        return [((f"  {text}", ""),)]
    wrapped = textwrap.wrap(
        text,
        max(options.width, 40),
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [((line, ""),) for line in wrapped]
