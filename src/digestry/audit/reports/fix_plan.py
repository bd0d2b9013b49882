"""The fix plan: the commands that would fix the findings, as a shell script."""

from __future__ import annotations

from collections.abc import Iterator

from digestry.audit import remediation
from digestry.audit.findings import AuditReport
from digestry.audit.remediation import NO_ORIGINS, Origins
from digestry.audit.reports.table_layout import Text, uncoloured
from digestry.audit.reports.words import (
    place,
    severity,
    short_reference,
    state_word,
    worst_first,
)
from digestry.inventory.engine_values import reference_of


def write(report: AuditReport, origins: Origins = NO_ORIGINS) -> Iterator[Text]:
    """Yield the plan, line by line. Nothing of it was run."""
    yield uncoloured("# What would fix what the audit found. Read it: nothing of it was run.")
    nothing = True
    for finding in worst_first(report.findings):
        lines = remediation.lines(finding, origins)
        if not lines:
            continue
        nothing = False
        yield ()
        word = state_word(finding) if severity(finding) != "moved" else "moved"
        runs = short_reference(finding.container.image.reference)
        if reference_of(finding.container.image.reference) is not None and finding.identity is not None:
            runs += f", runs {finding.identity.running.short}"
        yield uncoloured(f"# {word}: {place(finding)} ({runs})")
        for line in lines:
            yield ((line, ""),)
    if nothing:
        yield uncoloured("# Nothing is to be fixed.")
    for problem in report.problems:
        yield uncoloured(f"# could not be seen: {problem.source}: {problem.message}")
