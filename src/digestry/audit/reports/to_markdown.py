"""The report as Markdown for a pull request: a summary, the bad ones in a table, the rest folded away.

A stranger's text is in code spans or code blocks alone, where Markdown has no links, mentions,
images or HTML; one with a character that a table could take for its own is spelled in entities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from digestry.audit import remediation
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.remediation import Origins
from digestry.audit.reports.explanations import explanations
from digestry.audit.reports.grouping import grouped, merged, merged_tags
from digestry.audit.reports.table_layout import TableOptions, plain
from digestry.audit.reports.words import (
    WORDS,
    container_name,
    good_statements,
    place,
    severity,
    short_reference,
    state_word,
    summary,
    tag_words,
    worst_first,
)
from digestry.model.text import number_of, printable

MOST_ROWS: Final = 50
"""Bad containers that are listed, unless all are requested: a comment has a limit of 65,536 characters."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9 ._:/@+,=()…-]+")
_MARKS: Final = {
    "affected": "🔴", "never": "🟣", "unknown": "🟡", "not_assessed": "⚪", "moved": "🔵", "good": "🟢",
}  # fmt: skip


def write(report: AuditReport, *, fixes: Origins | None = None, every: bool = False) -> Iterator[str]:
    """Yield the text, in pieces. ``every`` lists each container, however many there are."""
    worst = worst_first(report.findings)
    bad = [finding for finding in worst if severity(finding) in {"affected", "never", "unknown"}]
    mark = _MARKS[severity(worst[0])] if worst else "⚪"
    if report.problems and mark not in {"🔴", "🟣"}:
        mark = "🟡"
    yield f"### {mark} digestry audit\n\n"
    yield f"{code(summary(report))}\n\n"
    if report.problems:
        yield f"**{number_of(len(report.problems), 'thing')} could not be seen:**\n\n"
        for problem in report.problems:
            yield f"- {code(f'{problem.source}: {problem.message}')}\n"
        yield "\n"
    for note in report.notes:
        yield f"{code(f'{note.source}: {note.message}')}\n\n"
    if bad:
        yield from _table(bad if every else bad[:MOST_ROWS])
        if not every and len(bad) > MOST_ROWS:
            yield f"\n… and {number_of(len(bad) - MOST_ROWS, 'more container')} of these kinds.\n"
        yield "\n"
        lines = [plain(line) for line in explanations(report, TableOptions())]
        yield from _details("Why, and what to do", lines if every else lines[: 4 * MOST_ROWS])
    statements = good_statements(report.findings)
    if statements:
        lines = [printable(line) for line in (statements if every else statements[:MOST_ROWS])]
        yield from _details("Who says that something is fixed, or not affected", lines)
    if fixes is not None:
        yield from _details(
            "What would fix it (nothing of it was run)", list(_fixes(worst, fixes, every=every))
        )
    if report.findings:
        yield "<details><summary>All images</summary>\n\n"
        yield from _images(report.findings, every=every)
        yield "\n</details>\n"


def code(text: str) -> str:
    """Return ``text`` as an inert code span, in a table's cell or outside."""
    shown = printable(text)
    if _PLAIN.fullmatch(shown) and shown.strip():
        return f"`{shown}`"
    return "<code>" + "".join(_entity(character) for character in shown) + "</code>"


def _entity(character: str) -> str:
    return character if character.isalnum() or character == " " else f"&#{ord(character)};"


def _table(bad: Sequence[ContainerFinding]) -> Iterator[str]:
    yield "| | State | Container | Host | Started as | Runs | Tag | What to do |\n"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    for finding in bad:
        word = state_word(finding)
        running = "-" if finding.identity is None else finding.identity.running.short
        cells = [
            _MARKS[severity(finding)],
            f"**{word}**" if word != WORDS["unknown"] else word,
            *(
                code(text or "-")
                for text in (
                    container_name(finding),
                    finding.container.host,
                    short_reference(finding.container.image.reference),
                    running,
                    tag_words(finding),
                    finding.action,
                )
            ),
        ]
        yield f"| {' | '.join(cells)} |\n"


def _images(every_finding: Sequence[ContainerFinding], *, every: bool) -> Iterator[str]:
    yield "| | State | Containers | Started as | Runs | Tag |\n| --- | --- | --- | --- | --- | --- |\n"
    groups = grouped(every_finding, "image", every=every)
    lines = [line for group in groups for line in group.lines]
    for line in lines if every else lines[: 2 * MOST_ROWS]:
        finding = line.first
        name = (
            container_name(finding) if len(line.findings) == 1 else number_of(len(line.findings), "container")
        )
        running = merged(line.findings, _running, "digest")
        cells = (
            name,
            short_reference(finding.container.image.reference),
            running,
            merged_tags(line.findings),
        )
        shown = " | ".join(code(text) for text in cells)
        yield f"| {_MARKS[severity(finding)]} | {state_word(finding)} | {shown} |\n"
    if not every and len(lines) > 2 * MOST_ROWS:
        yield f"\n… and {len(lines) - 2 * MOST_ROWS} more lines.\n"


def _running(finding: ContainerFinding) -> str:
    return "-" if finding.identity is None else finding.identity.running.short


def _fixes(worst: Sequence[ContainerFinding], origins: Origins, *, every: bool) -> Iterator[str]:
    shown = 0
    for finding in worst:
        lines = remediation.lines(finding, origins)
        if not lines:
            continue
        if shown == MOST_ROWS and not every:
            yield "# … and more: see `digestry audit --fix-plan`"
            return
        shown += 1
        yield printable(f"# {place(finding)}")
        yield from lines


def _details(title: str, lines: Sequence[str]) -> Iterator[str]:
    """Return ``lines`` folded away, in a code block whose fence nothing inside can close."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"<details><summary>{title}</summary>\n\n{fence}text\n"
    for line in lines:
        yield f"{line}\n"
    yield f"{fence}\n\n</details>\n\n"
