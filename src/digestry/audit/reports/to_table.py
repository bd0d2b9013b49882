"""The report for a terminal: a table, and the lines below it that say why and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.reports.explanations import explanations, named, wrapped
from digestry.audit.reports.grouping import FEW, By, Group, Line, grouped, merged, merged_tags
from digestry.audit.reports.table_layout import CONTAINER, Row, TableOptions, Text, lay_out, uncoloured
from digestry.audit.reports.words import (
    ELLIPSIS,
    container_name,
    counted,
    good_statements,
    state_word,
    summary,
    tag_words,
    worst_first,
)
from digestry.model.text import number_of, printable

_MOST_GOOD: Final = 12


def write(report: AuditReport, options: TableOptions | None = None) -> Iterator[Text]:
    """Yield the report for a person, line by line."""
    options = options or TableOptions()
    if report.findings:
        yield from table(report, options)
        below = explanations(report, options)
        if below:
            yield ()
            yield (("FINDINGS", "title"),)
            yield from below
        statements = good_statements(report.findings)
        if statements:
            yield ()
            yield (("SAID TO BE FIXED, OR NOT AFFECTED", "title"),)
            shown = statements if options.whole or options.every else statements[:_MOST_GOOD]
            for line in shown:
                yield from wrapped(line, options)
            if len(shown) < len(statements):
                yield uncoloured(
                    f"  {ELLIPSIS} and {number_of(len(statements) - len(shown), 'more statement')}"
                )
        yield ()
    if report.problems:
        yield (("PROBLEMS", "title"),)
        for problem in report.problems:
            yield uncoloured(f"  {problem.source}: {problem.message}")
            if problem.hint:
                yield uncoloured(f"    hint: {problem.hint}")
        yield ()
    if report.notes:
        yield (("NOTES", "title"),)
        for note in report.notes:
            yield uncoloured(f"  {note.source}: {note.message}")
            if note.hint:
                yield uncoloured(f"    hint: {note.hint}")
        yield ()
    yield uncoloured(summary(report))


def table(report: AuditReport, options: TableOptions) -> Iterator[Text]:
    """Yield the headings and the rows, to fit into the width. The worst come first."""
    by = options.by
    if by is None and not options.every and len(report.findings) > FEW:
        by = "image"
    parts: list[Row | str]  # a string is a line between rows
    if by is None:
        parts = [_row(Line((finding,)), options) for finding in worst_first(report.findings)]
    else:
        parts = list(_groups(grouped(report.findings, by, every=options.every), by, options))
    yield from lay_out(parts, options, hide_host=by == "host")


def _groups(groups: Sequence[Group], by: By, options: TableOptions) -> Iterator[Row | str]:
    bad = [group for group in groups if not group.good and not group.unassessed]
    for position, group in enumerate(bad):
        if position:
            yield ""
        yield f"{group.key}: {number_of(len(group.findings), 'container')}: {counted(group.findings)}"
        for line in group.lines:
            yield _row(line, options)
    first = not bad
    # Containers without an assessment have a heading of their own: they are not known to be good.
    for title, quiet in (
        ("nobody has assessed what runs", [group for group in groups if group.unassessed]),
        ("nothing is known against what runs", [group for group in groups if group.good]),
    ):
        if quiet:
            yield from _quiet(quiet, by, options, title, first=first)
            first = False


def _quiet(
    good: Sequence[Group], by: By, options: TableOptions, title: str, *, first: bool
) -> Iterator[Row | str]:
    """Yield groups that take a line each, below one heading unless nothing comes before it."""
    if not first:
        yield ""
    if not first or good[0].unassessed:
        yield f"{_PLURALS[by][len(good) > 1]}: {title}"
    shown = good if options.every or options.whole else good[:_MOST_GOOD]
    for group in shown:
        for line in group.lines:
            row = _row(line, options)
            if by in {"namespace", "advisory"} and len(line.findings) > 1:
                row[CONTAINER] = f"{row[CONTAINER]} in {printable(group.key)}"
            yield row
    hidden = good[len(shown) :]
    if hidden:
        containers = sum(len(group.findings) for group in hidden)
        yield (
            f"{ELLIPSIS} and {number_of(containers, 'container')} in {len(hidden)} more groups"
            " (--all-rows shows each)"
        )


_PLURALS: Final[dict[By, tuple[str, str]]] = {
    "host": ("one other host", "the other hosts"),
    "image": ("one other image", "the other images"),
    "namespace": ("one other namespace", "the other namespaces"),
    "advisory": ("the other containers", "the others"),
}


def _row(line: Line, options: TableOptions) -> Row:
    example, many = line.first, line.findings
    if len(many) == 1:
        name, host = container_name(example), example.container.host or "-"
    else:
        name = number_of(len(many), "container")
        host = merged(many, lambda finding: finding.container.host or "-", "host")
    cells = [
        state_word(example),
        name,
        host,
        merged(many, lambda finding: named(finding, options), "image"),
        merged(many, lambda finding: _running(finding, options), "digest"),
        tag_words(example, whole=options.whole) if len(many) == 1 else merged_tags(many),
    ]
    return [printable(cell) for cell in cells]


def _running(finding: ContainerFinding, options: TableOptions) -> str:
    if finding.identity is None:
        return "-" if finding.container.runs else "(does not run)"
    return str(finding.identity.running) if options.whole else finding.identity.running.short
