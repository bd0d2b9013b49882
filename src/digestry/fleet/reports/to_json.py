"""JSON: one document, written a container at a time, with one line for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from digestry.fleet.audit import Report
from digestry.fleet.fix_plan import Origins
from digestry.fleet.reports.values import VERSION, problem_row, rows, totals
from digestry.model.text import printable_json

_ENCODER: Final = msgspec.json.Encoder()


def write(report: Report, *, fixes: Origins | None = None) -> Iterator[str]:
    """The document, in pieces. ``fixes`` adds what would mend each container."""
    yield f'{{\n"version": {VERSION},\n"summary": {_line(totals(report))},\n"containers": ['
    yield from _lines(rows(report.findings, fixes=fixes))
    yield '],\n"problems": ['
    yield from _lines(problem_row(problem) for problem in report.problems)
    yield "]\n}\n"


def _lines(values: Iterable[Any]) -> Iterator[str]:
    between = "\n"
    for value in values:
        yield between + _line(value)
        between = ",\n"
    if between != "\n":
        yield "\n"


def _line(value: Any) -> str:
    return printable_json(_ENCODER.encode(value).decode())
