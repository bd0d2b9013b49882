"""The report for a terminal: a table, and the lines below it that say why and what to do."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from digestry.audit import remediation
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.remediation import NO_ORIGINS, Origins
from digestry.audit.reports.grouping import FEW, By, Group, Line, grouped, merged, merged_tags
from digestry.audit.reports.words import (
    BY_ID,
    ELLIPSIS,
    NOT_FROM_TAG,
    UNTAGGED_WORD,
    WORDS,
    container_name,
    counted,
    good_statements,
    number,
    parsed,
    place,
    severity,
    short_reference,
    state_word,
    statement_words,
    summary,
    tag_words,
    worst_first,
)
from digestry.model.text import columns, printable

WIDTH: Final = 100
"""Columns that a line takes where there is no terminal to fit into."""
HEADINGS: Final = ("STATE", "CONTAINER", "HOST", "REFERENCE", "RUNS", "TAG")

Style: TypeAlias = Literal["", "bad", "alarm", "doubt", "good", "title"]
Text: TypeAlias = tuple[tuple[str, Style], ...]
"""One line, in parts that may each have a colour."""

_CONTAINER, _HOST, _REFERENCE, _RUNS, _TAG = range(1, 6)
_GAP: Final = "   "
_COMFORTABLE: Final = 22
_NARROWEST: Final = 4
_SHOWN: Final = 12
_TIME_OF_DAY: Final = re.compile(r"(?<=\d{4}-\d\d-\d\d)T[0-9:.]+Z")
_SHORT: Final = re.compile(r"[0-9a-f]{12}")
_MOST_GOOD: Final = 12
_MOST_NAMES: Final = 5
_STYLES: Final[dict[str, Style]] = {
    WORDS["affected"]: "bad",
    WORDS["unknown"]: "doubt",
    WORDS["fixed"]: "good",
    WORDS["not_affected"]: "good",
    UNTAGGED_WORD: "alarm",
    NOT_FROM_TAG: "alarm",
}


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How the table is to look. ``width`` is in columns; ``by`` groups, which None does only where
    there are many containers; ``every`` gives each container a row of its own; ``whole`` shortens
    nothing."""

    width: int = WIDTH
    by: By | None = None
    every: bool = False
    whole: bool = False


def write(report: AuditReport, look: TableOptions | None = None) -> Iterator[Text]:
    """Yield everything that the audit tells a person, line by line."""
    look = look or TableOptions()
    if report.findings:
        yield from table(report, look)
        below = findings(report, look)
        if below:
            yield ()
            yield (("FINDINGS", "title"),)
            yield from below
        said = good_statements(report.findings)
        if said:
            yield ()
            yield (("SAID TO BE FIXED, OR NOT AFFECTED", "title"),)
            shown = said if look.whole or look.every else said[:_MOST_GOOD]
            for line in shown:
                yield from _wrapped(line, look)
            if len(shown) < len(said):
                yield _plain(f"  {ELLIPSIS} and {number(len(said) - len(shown), 'more statement')}")
        yield ()
    if report.problems:
        yield (("PROBLEMS", "title"),)
        for problem in report.problems:
            yield _plain(f"  {problem.source}: {problem.message}")
            if problem.hint:
                yield _plain(f"    hint: {problem.hint}")
        yield ()
    if report.notes:
        yield (("NOTES", "title"),)
        for note in report.notes:
            yield _plain(f"  {note.source}: {note.message}")
            if note.hint:
                yield _plain(f"    hint: {note.hint}")
        yield ()
    yield _plain(summary(report))


def plain(line: Text) -> str:
    """Return a line without its colours."""
    return "".join(text for text, _ in line)


def _plain(text: str) -> Text:
    return ((printable(text), ""),)


# -- the table ----------------------------------------------------------------------------------

_Row: TypeAlias = list[str]


def table(report: AuditReport, look: TableOptions) -> Iterator[Text]:
    """Yield the headings and the rows, to fit into the width. The worst come first."""
    by = look.by
    if by is None and not look.every and len(report.findings) > FEW:
        by = "image"
    parts: list[_Row | str]  # a string is a line between rows
    if by is None:
        parts = [_row(Line((finding,)), look) for finding in worst_first(report.findings)]
    else:
        parts = list(_groups(grouped(report.findings, by, every=look.every), by, look))
    yield from _laid_out(parts, look, hide_host=by == "host")


def _groups(groups: Sequence[Group], by: By, look: TableOptions) -> Iterator[_Row | str]:
    bad = [group for group in groups if not group.good and not group.unassessed]
    for position, group in enumerate(bad):
        if position:
            yield ""
        yield f"{group.key}: {number(len(group.findings), 'container')}: {counted(group.findings)}"
        for line in group.lines:
            yield _row(line, look)
    first = not bad
    # What nobody assessed has a heading of its own: it is no part of what is known to be good.
    for title, quiet in (
        ("nobody has assessed what runs", [group for group in groups if group.unassessed]),
        ("nothing is known against what runs", [group for group in groups if group.good]),
    ):
        if quiet:
            yield from _quiet(quiet, by, look, title, first=first)
            first = False


def _quiet(
    good: Sequence[Group], by: By, look: TableOptions, title: str, *, first: bool
) -> Iterator[_Row | str]:
    """Yield groups that take a line each, below one heading unless nothing comes before it."""
    if not first:
        yield ""
    if not first or good[0].unassessed:
        yield f"{_PLURALS[by][len(good) > 1]}: {title}"
    shown = good if look.every or look.whole else good[:_MOST_GOOD]
    for group in shown:
        for line in group.lines:
            row = _row(line, look)
            if by in {"namespace", "advisory"} and len(line.findings) > 1:
                row[_CONTAINER] = f"{row[_CONTAINER]} in {printable(group.key)}"
            yield row
    hidden = good[len(shown) :]
    if hidden:
        containers = sum(len(group.findings) for group in hidden)
        yield (
            f"{ELLIPSIS} and {number(containers, 'container')} in {len(hidden)} more groups"
            " (--all-rows shows each)"
        )


_PLURALS: Final[dict[By, tuple[str, str]]] = {
    "host": ("one other host", "the other hosts"),
    "image": ("one other image", "the other images"),
    "namespace": ("one other namespace", "the other namespaces"),
    "advisory": ("the other containers", "the others"),
}


def _row(line: Line, look: TableOptions) -> _Row:
    one, many = line.first, line.findings
    if len(many) == 1:
        name, host = container_name(one), one.container.host or "-"
    else:
        name = number(len(many), "container")
        host = merged(many, lambda finding: finding.container.host or "-", "host")
    cells = [
        state_word(one),
        name,
        host,
        merged(many, lambda finding: _named(finding, look), "image"),
        merged(many, lambda finding: _running(finding, look), "digest"),
        tag_words(one, whole=look.whole) if len(many) == 1 else merged_tags(many),
    ]
    return [printable(cell) for cell in cells]


def _named(finding: ContainerFinding, look: TableOptions) -> str:
    reference = finding.container.image.reference
    return (reference or BY_ID) if look.whole else short_reference(reference)


def _running(finding: ContainerFinding, look: TableOptions) -> str:
    if finding.identity is None:
        return "-" if finding.container.runs else "(does not run)"
    return str(finding.identity.running) if look.whole else finding.identity.running.short


def _laid_out(parts: Sequence[_Row | str], look: TableOptions, *, hide_host: bool) -> Iterator[Text]:
    rows = [part for part in parts if not isinstance(part, str)]
    shown = list(range(len(HEADINGS)))
    if not look.whole and not hide_host and len({row[_HOST] for row in rows}) == 1:
        shown.remove(_HOST)
    widths = _widths(rows, shown, look)
    heads = [_shortened(HEADINGS[at], widths[at]) for at in shown]
    yield _line(heads, [widths[at] for at in shown], paint=False)
    for part in parts:
        if isinstance(part, str):
            yield ((_shortened(printable(part), look.width), "title"),) if part else ()
        else:
            cells = [_shortened(part[at], widths[at], end=at == _REFERENCE) for at in shown]
            yield _line(cells, [widths[at] for at in shown], paint=True)


def _widths(rows: Sequence[_Row], shown: Sequence[int], look: TableOptions) -> dict[int, int]:
    """Return how wide each column may be. What is least missed gives way first, until a line fits; it is
    taken out of ``rows``."""
    widths = {at: _needed(rows, at) for at in shown}

    def fits() -> bool:
        return look.whole or sum(widths.values()) + len(_GAP) * (len(widths) - 1) <= look.width

    def cut(at: int, shorten: Callable[[str], str]) -> None:
        for row in rows:
            row[at] = shorten(row[at])
        widths[at] = _needed(rows, at)

    def squeeze(least: int, *columns: int) -> None:
        giving = [at for at in columns if at in widths]
        while not fits():
            widest = max(giving, key=lambda at: widths[at])
            if widths[widest] <= least:
                return
            widths[widest] -= 1

    hosts = _without_hosts(rows)
    steps: tuple[Callable[[], None], ...] = (
        lambda: cut(_REFERENCE, lambda name: hosts.get(name, name)),
        lambda: cut(_RUNS, lambda digest: digest[:7] if _SHORT.fullmatch(digest) else digest),
        lambda: cut(_TAG, lambda tag: tag.partition(" to ")[0]),
        lambda: squeeze(_COMFORTABLE, _CONTAINER, _HOST, _REFERENCE),
        # What is left of a time is one: a day. The findings below have it in full.
        lambda: cut(_TAG, lambda tag: _TIME_OF_DAY.sub("", tag)),
        lambda: cut(_TAG, lambda tag: tag.partition(" ")[0] if tag.startswith("moved") else tag),
        lambda: squeeze(_NARROWEST, _CONTAINER, _HOST, _REFERENCE, _TAG),
    )
    for step in steps:
        if fits():
            break
        step()
    return widths


def _needed(rows: Sequence[_Row], at: int) -> int:
    return max([len(HEADINGS[at]), *(columns(row[at]) for row in rows)])


def _without_hosts(rows: Sequence[_Row]) -> dict[str, str]:
    """Return each name without its registry's host; empty if two names would look the same."""
    short: dict[str, str] = {}
    for row in rows:
        name = row[_REFERENCE]
        host, slash, rest = name.partition("/")
        looks_like_host = slash and ("." in host or ":" in host or host == "localhost")
        short[name] = rest if looks_like_host else name
    return short if len(set(short.values())) == len(short) else {}


def _line(cells: Sequence[str], widths: Sequence[int], *, paint: bool) -> Text:
    parts: list[tuple[str, Style]] = []
    last = len(cells) - 1
    for position, cell in enumerate(cells):
        style = _STYLES.get(cell, "") if paint else "title"
        parts.append((cell, style if cell else ""))
        if position < last:
            parts.append((" " * (widths[position] - columns(cell)) + _GAP, ""))
    return tuple(parts)


def _shortened(text: str, width: int, *, end: bool = False) -> str:
    """Return ``text`` in ``width`` columns: a reference keeps its end, with the tag; others their start."""
    if columns(text) <= width:
        return text
    kept = text
    while kept and columns(kept) > width - 1:
        kept = kept[1:] if end else kept[:-1]
    return ELLIPSIS + kept if end else kept + ELLIPSIS


# -- below the table ----------------------------------------------------------------------------


def findings(report: AuditReport, look: TableOptions) -> list[Text]:
    """Return why the containers that are not fine are so, and what to do: those of which the same is true
    together."""
    lines: list[Text] = []
    for members in alike(report):
        one = members[0]
        word = state_word(one)
        heading = _together(members, look)
        lines.append(((word, _STYLES.get(word, "")), (printable(f": {heading}"), "")))
        for advisory in one.assessment.advisories:
            lines += _wrapped(statement_words(advisory), look)
        moves = dict.fromkeys(
            f"- {_named(finding, look)} {tag_words(finding, whole=look.whole, digits=_SHOWN)}"
            for finding in members
            if finding.tag.state == "moved"
        )
        for reason in (*list(moves)[:_MOST_NAMES], *(f"- {reason}" for reason in one.reasons)):
            lines += _wrapped(reason, look)
        action = f"-> {one.action}"
        # With an image it is whole, whatever its width: that is to be copied.
        lines += _wrapped(action, look) if one.fixed_image is None else [_plain(f"  {action}")]
    return lines


def alike(report: AuditReport) -> list[list[ContainerFinding]]:
    """Return the containers that are not fine, the worst first; those of which the same is true together."""
    found: dict[tuple[object, ...], list[ContainerFinding]] = {}
    for finding in worst_first(report.findings):
        if severity(finding) not in {"affected", "never", "unknown"}:
            continue
        advisories = tuple(
            (one.referrer, one.statement.vulnerability, one.statement.identity)
            for one in finding.assessment.advisories
        )
        key = (finding.assessment.state, state_word(finding), advisories, finding.reasons, finding.action)
        found.setdefault(key, []).append(finding)
    return list(found.values())


def _together(members: Sequence[ContainerFinding], look: TableOptions) -> str:
    if len(members) == 1:
        return place(members[0])
    shown = members if look.whole else members[:_MOST_NAMES]
    more = f" and {len(members) - len(shown)} more" if len(shown) < len(members) else ""
    hosts = {finding.container.host for finding in members}
    if len(hosts) == 1:
        names = ", ".join(container_name(finding) for finding in shown)
        host = hosts.pop()
        return f"{names}{more}" + (f" on {host}" if host else "")
    return ", ".join(place(finding) for finding in shown) + more


def _wrapped(text: str, look: TableOptions) -> list[Text]:
    text = printable(text)
    if look.whole:
        return [((f"  {text}", ""),)]
    wrapped = textwrap.wrap(
        text,
        max(look.width, 40),
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [((line, ""),) for line in wrapped]


# -- the fix plan -------------------------------------------------------------------------------


def fixes(report: AuditReport, origins: Origins = NO_ORIGINS) -> Iterator[Text]:
    """Yield the plan that fixes what was found, as a shell script of which nothing was run."""
    yield _plain("# What would fix what the audit found. Read it: nothing of it was run.")
    nothing = True
    for finding in worst_first(report.findings):
        lines = remediation.lines(finding, origins)
        if not lines:
            continue
        nothing = False
        yield ()
        word = state_word(finding) if severity(finding) != "moved" else "moved"
        runs = short_reference(finding.container.image.reference)
        if parsed(finding.container.image.reference) is not None and finding.identity is not None:
            runs += f", runs {finding.identity.running.short}"
        yield _plain(f"# {word}: {place(finding)} ({runs})")
        for line in lines:
            yield ((line, ""),)
    if nothing:
        yield _plain("# Nothing is to be fixed.")
    for problem in report.problems:
        yield _plain(f"# could not be seen: {problem.source}: {problem.message}")
