"""The report as JSON: one document, with one line for each container."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.remediation import Origins
from digestry.audit.reports.values import VERSION, container_row, note_row, problem_row, rows, totals
from digestry.model.text import printable_json

_ENCODER: Final = msgspec.json.Encoder()
_MOST_TAILS: Final = 20_000


def write(report: AuditReport, *, fixes: Origins | None = None) -> Iterator[str]:
    """Yield the document, in pieces. ``fixes`` adds the remediation of each container."""
    yield f'{{\n"version": {VERSION},\n"summary": {_line(totals(report))},\n"containers": ['
    yield from _joined(_containers(report.findings) if fixes is None else _rows(report.findings, fixes))
    yield '],\n"problems": ['
    yield from _joined(_line(problem_row(problem)) for problem in report.problems)
    yield '],\n"notes": ['
    yield from _joined(_line(note_row(note)) for note in report.notes)
    yield "]\n}\n"


def _joined(lines: Iterable[str]) -> Iterator[str]:
    between = "\n"
    for line in lines:
        yield between + line
        between = ",\n"
    if between != "\n":
        yield "\n"


def _rows(findings: Iterable[ContainerFinding], fixes: Origins) -> Iterator[str]:
    return (_line(row) for row in rows(findings, fixes=fixes))


class _Head(msgspec.Struct):
    """The first keys of a container's row: those that only it has."""

    source: str
    host: str
    namespace: str
    name: str
    id: str


def _containers(findings: Iterable[ContainerFinding]) -> Iterator[str]:
    """Yield each container's row. Those of one image differ in their first keys alone: the rest of the line
    is written once."""
    tails: dict[tuple[object, ...], str] = {}
    for finding in findings:
        seen = finding.container
        head = _line(_Head(seen.source, seen.host, seen.namespace, seen.name, seen.id))[:-1]
        # The report holds all of these, so that no identity is used twice.
        key = (
            id(finding.identity),
            id(finding.tag),
            id(finding.assessment),
            id(finding.reasons),
            id(finding.placement),
            finding.action,
            seen.image.reference,
            seen.image.image_id,
            seen.image.platform,
            seen.seen_at,
            seen.runs,
        )
        tail = tails.get(key)
        if tail is None:
            if len(tails) == _MOST_TAILS:
                tails.clear()
            line = _line(container_row(finding))
            assert line.startswith(head)  # noqa: S101 - the keys are in that order
            tail = tails[key] = line[len(head) :]
        yield head + tail


def _line(value: object) -> str:
    return printable_json(_ENCODER.encode(value).decode())
