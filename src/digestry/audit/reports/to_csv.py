"""The report as CSV for spreadsheets (RFC 4180): a row for each container, and for each problem.

A spreadsheet runs a cell that begins with one of ``= + - @`` as a formula. An apostrophe before such a cell
makes it text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Final

from digestry.audit.findings import AuditReport
from digestry.audit.reports.values import AdvisoryRow, container_row
from digestry.audit.reports.words import NOT_FROM_TAG, STATUS_WORDS
from digestry.audit.tag_verdict import UNTAGGED_HERE
from digestry.model.text import printable

HEADINGS: Final = (
    "row", "host", "namespace", "name", "id", "reference", "running_digest", "found_by", "tag_state",
    "tag_digest", "moved_at", "advisory_state", "advisories", "action", "reasons", "source", "platform",
    "image_id", "seen_at",
)  # fmt: skip
"""``row`` is ``container`` or ``problem``; a problem has its source, its message as the reason and
its hint as the action."""

_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r")


def write(report: AuditReport) -> Iterator[str]:
    """Yield the lines, each with its end."""
    yield _line(HEADINGS)
    for finding in report.findings:
        row = container_row(finding)
        yield _line(
            (
                "container",
                row.host,
                row.namespace,
                row.name,
                row.id,
                row.reference or "",
                row.running_digest or "",
                row.found_by or "",
                NOT_FROM_TAG if row.tag_state == UNTAGGED_HERE else row.tag_state,
                row.tag_digest or "",
                row.moved_at or "",
                row.advisory_state.replace("_", " "),
                "; ".join(_advisory_text(advisory) for advisory in row.advisories),
                row.action,
                "; ".join(row.reasons),
                row.source,
                row.platform or "",
                row.image_id or "",
                row.seen_at,
            )
        )
    for problem in report.problems:
        values = {"row": "problem", "source": problem.source, "reasons": problem.message}
        values["action"] = problem.hint
        yield _line([values.get(heading, "") for heading in HEADINGS])


def _advisory_text(advisory: AdvisoryRow) -> str:
    by = f" by {advisory.author}" if advisory.author else ""
    part = advisory.part
    inside = "" if part is None else f" in the {part.kind} {part.digest}"
    came = "" if part is None or part.base is None else f" of {part.base}"
    signed = f"signed by {advisory.signer}" if advisory.signer else advisory.signature or "unsigned"
    return f"{advisory.id} {STATUS_WORDS[advisory.status]}{by}{inside}{came} ({signed})"


def _line(cells: Sequence[str]) -> str:
    out = io.StringIO(newline="")
    # Everything is quoted: where a semicolon divides cells, one inside a cell must not.
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow([_inert(cell) for cell in cells])
    return out.getvalue()


def _inert(cell: str) -> str:
    # Before escaping as well as after it: an escaped tab begins with a backslash.
    shown = printable(cell)
    return f"'{shown}" if cell.lstrip().startswith(_FORMULA) or cell.startswith(_FORMULA) else shown
