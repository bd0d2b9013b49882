"""An audit's report as text for people, and as values for JSON. Nothing here prints."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from digestry.fleet.advisories import Advisory, State
from digestry.fleet.audit import Finding, Report
from digestry.fleet.tags import moment
from digestry.model.digest import Digest
from digestry.model.platform import Platform

WIDTH: Final = 100
"""Columns that a line of text may take, unless ``--no-trunc`` asks for everything."""
HEADINGS: Final = ("STATE", "CONTAINER", "HOST", "REFERENCE", "RUNS", "TAG")

_HOST: Final = 2
_SHRINKING: Final = frozenset({"CONTAINER", "HOST", "REFERENCE"})

_WORDS: Final[dict[State, str]] = {
    "affected": "VULNERABLE",
    "unknown": "unknown",
    "fixed": "FIXED",
    "clear": "clear",
}
_COUNTED: Final = {"affected": "vulnerable", "unknown": "unknown", "fixed": "fixed", "clear": "clear"}
_GAP: Final = 3
_NARROWEST: Final = 10
_ELLIPSIS: Final = "…"
_LONG_DIGEST: Final = re.compile(r"(@sha\d+:[0-9a-f]{12})[0-9a-f]+$", re.ASCII)


# -- JSON ---------------------------------------------------------------------------------------


def as_values(report: Report) -> dict[str, Any]:
    """The report as plain values: an object with ``containers`` and ``problems``."""
    return {
        "containers": [container_values(finding) for finding in report.findings],
        "problems": [
            {"source": problem.source, "message": problem.message, "hint": problem.hint or None}
            for problem in report.problems
        ],
    }


def container_values(finding: Finding) -> dict[str, Any]:
    """One container as plain values."""
    seen, identity, tag = finding.sighting, finding.identity, finding.tag
    return {
        "source": seen.source,
        "host": seen.host,
        "namespace": seen.namespace,
        "name": seen.name,
        "id": seen.id,
        "reference": seen.reference,
        "running_digest": None if identity is None else str(identity.running),
        "found_by": None if identity is None else identity.found_by,
        "confirmed": identity is not None and identity.confirmed,
        "repository": None if identity is None else identity.repository.name,
        "manifest_digest": _text(None if identity is None else identity.manifest),
        "image_id": _text(seen.image_id),
        "platform": _text(seen.platform),
        "tag_state": tag.state,
        "tag_digest": _text(tag.digest),
        "moved_at": None if tag.moved_at is None else moment(tag.moved_at),
        "advisory_state": finding.verdict.state,
        "advisories": [advisory_values(advisory) for advisory in finding.verdict.advisories],
        "action": finding.action,
        "reasons": list(finding.reasons),
        "seen_at": moment(seen.seen_at),
    }


def advisory_values(advisory: Advisory) -> dict[str, Any]:
    """One statement as plain values."""
    statement = advisory.statement
    return {
        "id": statement.vulnerability,
        "aliases": list(statement.aliases),
        "status": statement.status,
        "fixed_by": [str(image) for image in statement.fixed_by],
        "author": advisory.author,
        "timestamp": moment(statement.timestamp),
        "justification": statement.justification or None,
        "note": statement.notes or statement.impact or None,
        "action_statement": statement.action or None,
        "subject": f"{advisory.repository.name}@{advisory.subject}",
        "referrer": str(advisory.referrer),
        "signature": "not verified" if advisory.enveloped else None,
    }


def _text(value: Digest | Platform | None) -> str | None:
    return None if value is None else str(value)


# -- text ---------------------------------------------------------------------------------------


def table(
    report: Report, *, trunc: bool = True, clean: Callable[[str], str] = str
) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of the table, to fit into :data:`WIDTH` if ``trunc``.

    ``clean`` makes a stranger's text harmless; it comes before the fitting, since it may lengthen.
    A host that all containers share is left to the summary.
    """
    cells = [[clean(cell) for cell in _row(finding, trunc=trunc)] for finding in report.findings]
    headings = list(HEADINGS)
    if trunc and len({row[_HOST] for row in cells}) == 1:
        for row in (headings, *cells):
            del row[_HOST]
    return headings, _fitted(headings, cells) if trunc else cells


def _row(finding: Finding, *, trunc: bool) -> list[str]:
    seen = finding.sighting
    name = f"{seen.namespace}/{seen.name}" if seen.namespace else seen.name
    return [
        _WORDS[finding.verdict.state],
        name or _short_id(seen.id),
        seen.host or "-",
        _named(seen.reference, trunc=trunc),
        "-" if finding.identity is None else _digest(finding.identity.running, trunc=trunc),
        _tag(finding, trunc=trunc),
    ]


def _tag(finding: Finding, *, trunc: bool) -> str:
    tag = finding.tag
    if tag.state != "moved":
        return tag.state
    when = ""
    if tag.moved_at is not None:
        when = f" {tag.moved_at:%Y-%m-%d %H:%MZ}" if trunc else f" {moment(tag.moved_at)}"
    if tag.digest is None:
        return f"moved{when}, deleted"
    return f"moved{when} to {tag.digest.encoded[:4] + _ELLIPSIS if trunc else tag.digest}"


def _named(reference: str | None, *, trunc: bool) -> str:
    if not reference:
        return "(started by image ID)"
    return _LONG_DIGEST.sub(rf"\1{_ELLIPSIS}", reference) if trunc else reference


def _digest(digest: Digest, *, trunc: bool) -> str:
    return digest.short if trunc else str(digest)


def _short_id(identity: str) -> str:
    return identity[:12] or "-"


def _fitted(headings: list[str], cells: list[list[str]]) -> list[list[str]]:
    """Shortens names, hosts and references, the widest first, until a line fits."""
    columns = range(len(headings))
    widths = [max([len(headings[column]), *(len(row[column]) for row in cells)]) for column in columns]
    shrinking = [column for column in columns if headings[column] in _SHRINKING]
    while sum(widths) + _GAP * (len(widths) - 1) > WIDTH:
        widest = max(shrinking, key=lambda column: widths[column])
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return [
        [_shortened(row[at], widths[at], end=headings[at] == "REFERENCE") for at in columns] for row in cells
    ]


def _shortened(text: str, width: int, *, end: bool) -> str:
    """``text`` in ``width`` characters: a reference keeps its end, with the tag; others their start."""
    if len(text) <= width:
        return text
    return _ELLIPSIS + text[len(text) - width + 1 :] if end else text[: width - 1] + _ELLIPSIS


def findings(report: Report, *, trunc: bool = True) -> list[str]:
    """The lines below the table: for each container that is not fine, why, and what to do."""
    lines: list[str] = []
    for finding in report.findings:
        state = finding.verdict.state
        if state not in {"affected", "unknown"}:
            continue
        seen = finding.sighting
        name = "/".join(part for part in (seen.namespace, seen.name or _short_id(seen.id)) if part)
        lines.append(f"{_WORDS[state]}: {name}" + (f" on {seen.host}" if seen.host else ""))
        for advisory in finding.verdict.advisories:
            lines += _wrapped(_statement(advisory), trunc=trunc)
        for reason in finding.reasons:
            lines += _wrapped(f"- {reason}", trunc=trunc)
        # Whole, whatever its width: it is to be copied.
        lines.append(f"  -> {finding.action}")
    return lines


def _statement(advisory: Advisory) -> str:
    statement = advisory.statement
    says = f"{statement.vulnerability}: {statement.status}, {statement.timestamp:%Y-%m-%d %H:%MZ}"
    by = f" by {advisory.author}" if advisory.author else ""
    note = statement.notes or statement.impact
    return f"{says}{by}" + (f": {note}" if note else "")


def _wrapped(text: str, *, trunc: bool) -> list[str]:
    if not trunc:
        return [f"  {text}"]
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def summary(report: Report) -> str:
    """One line: how many containers, in which states, and how much could not be seen."""
    counts = Counter(finding.verdict.state for finding in report.findings)
    states: Sequence[State] = ("affected", "unknown", "fixed", "clear")
    parts = [f"{counts[state]} {_COUNTED[state]}" for state in states if counts[state]]
    total = len(report.findings)
    line = f"{total} container{'' if total == 1 else 's'}"
    hosts = {finding.sighting.host for finding in report.findings} - {""}
    if len(hosts) == 1:
        line += f" on {hosts.pop()}"
    if parts:
        line += ": " + ", ".join(parts)
    if report.problems:
        number = len(report.problems)
        line += f"; {number} problem{'' if number == 1 else 's'}: something could not be seen"
    return line
