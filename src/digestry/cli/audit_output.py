"""The output of an audit: to a terminal, a pipe or a file, once or repeatedly."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypedDict

import click

from digestry.cli.output import complain, note, printable, say, write_pieces
from digestry.cli.signals import Interrupts
from digestry.errors import DigestryError

if TYPE_CHECKING:
    from digestry.audit.findings import AuditReport
    from digestry.audit.recording import Recording
    from digestry.audit.remediation import Origins
    from digestry.audit.reports.table_layout import TableOptions, Text
    from digestry.audit.reports.words import FailState
    from digestry.audit.timelines import Timeline


class _Look(TypedDict, total=False):
    fg: str
    bold: bool


_COLOURS: Final[dict[str, _Look]] = {
    "bad": {"fg": "red", "bold": True},
    "alarm": {"fg": "magenta", "bold": True},
    "doubt": {"fg": "yellow"},
    "good": {"fg": "green"},
    "title": {"bold": True},
}
WIDTH: Final = 100
"""Columns that a line takes where there is no terminal to fit into."""

_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_BELOW: Final = "\x1b[J"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller asked to see, and where. ``fail_on`` are states that fail the audit.

    ``fixes``, if it is not None, requests the remediation, and has the sources' origins by name.
    """

    format: str
    output: Path | None
    look: TableOptions
    fail_on: frozenset[FailState]
    fixes: Origins | None


def width(output: Path | None) -> int:
    """Return the columns that a line may take: of ``COLUMNS`` or the terminal, or 100 without either."""
    known = output is None and (_terminal() or os.environ.get("COLUMNS"))
    return shutil.get_terminal_size((WIDTH, 24)).columns if known else WIDTH


def _terminal() -> bool:
    # There is no sys.stdout if the caller closed it.
    return sys.stdout is not None and sys.stdout.isatty()


def write(report: AuditReport, wanted: Wanted, histories: Sequence[Timeline] = ()) -> None:
    """Write the report as it was asked for. Raises :class:`~digestry.errors.StorageError`."""
    if wanted.format == "table" and wanted.output is None:
        for line in _lines(report, wanted):
            say(_coloured(line))
        return
    write_pieces(_pieces(report, wanted, histories), wanted.output)
    if wanted.output is not None:
        from digestry.audit.reports.words import summary

        note(printable(f"digestry: {wanted.output}: {summary(report)}"))


def recorded(recording: Recording) -> None:
    """Print on standard error which registries recorded what runs, and what was left out."""
    from digestry.model.text import number_of

    keep_none = [
        outcome.host for outcome in recording.outcomes if outcome.noted is None and outcome.failure is None
    ]
    for outcome in recording.outcomes:
        if outcome.failure is not None:
            complain(f"not recorded at {outcome.host}: {outcome.failure.message}", outcome.failure.hint)
        elif outcome.noted is not None:
            unknown = f", {outcome.noted.unknown} of what it does not know" if outcome.noted.unknown else ""
            refused = f", {outcome.noted.refused} that it has no room for" if outcome.noted.refused else ""
            noted = number_of(outcome.noted.noted, "sighting")
            note(printable(f"digestry: recorded at {outcome.host}: {noted}{unknown}{refused}"))
    if keep_none:
        keep = "keeps" if len(keep_none) == 1 else "keep"
        note(printable(f"digestry: not recorded: {', '.join(keep_none)} {keep} no sightings"))
    if recording.nothing_known:
        what = number_of(recording.nothing_known, "container")
        note(f"digestry: not recorded: {what} whose image no registry confirmed")


def _lines(report: AuditReport, wanted: Wanted) -> Iterator[Text]:
    from digestry.audit.reports import fix_plan, to_table

    return (
        to_table.write(report, wanted.look) if wanted.fixes is None else fix_plan.write(report, wanted.fixes)
    )


def _pieces(report: AuditReport, wanted: Wanted, histories: Sequence[Timeline]) -> Iterable[str]:
    """Yield the report as text. Each format's module is loaded only when it is used."""
    from digestry.audit.reports import (
        table_layout,
        to_csv,
        to_html,
        to_json,
        to_junit,
        to_markdown,
        to_sarif,  # fmt: skip
    )

    every = wanted.look.every
    if wanted.format == "json":
        return to_json.write(report, fixes=wanted.fixes)
    if wanted.format == "csv":
        return to_csv.write(report)
    if wanted.format == "sarif":
        return to_sarif.write(report)
    if wanted.format == "junit":
        return to_junit.write(report, fail_on=wanted.fail_on)
    if wanted.format == "markdown":
        return to_markdown.write(report, fixes=wanted.fixes, every=every)
    if wanted.format == "html":
        return to_html.write(report, histories, fixes=wanted.fixes, every=every)
    return (f"{table_layout.plain(line)}\n" for line in _lines(report, wanted))


def _coloured(line: Text) -> str:
    if not _terminal() or os.environ.get("NO_COLOR"):
        return "".join(text for text, _ in line).rstrip()
    return "".join(click.style(text, **_COLOURS[style]) if style else text for text, style in line)


# -- again and again ----------------------------------------------------------------------------


def watch(
    audit: Callable[[Wanted], tuple[AuditReport, list[Timeline]]],
    wanted: Wanted,
    *,
    seconds: float,
    then: Callable[[], None],
) -> NoReturn:
    """Audit every so many seconds until interrupted, which raises KeyboardInterrupt.

    ``then`` is called when a round has been shown.


    A round that fails says so, and the next one comes. A terminal is drawn anew each time, what is
    longer than it cut at its end (the worst is at the top); a pipe gets a block a round.
    """
    interrupts = Interrupts()
    while True:
        begun = time.monotonic()
        try:
            report, histories = audit(wanted)
            if wanted.output is not None:
                write(report, wanted, histories)
            else:
                _draw(_lines(report, replace(wanted, look=replace(wanted.look, width=width(None)))), seconds)
            then()
        except BrokenPipeError:
            raise
        except DigestryError as error:
            complain(error.message, error.hint)
        interrupts.sleep(seconds - (time.monotonic() - begun))


def _draw(lines: Iterable[Text], seconds: float) -> None:
    now = datetime.datetime.now(datetime.UTC)
    heading = f"{now:%Y-%m-%d %H:%M:%SZ}, every {seconds:g} s"
    if not _terminal():
        say(f"== {heading}")
        for line in lines:
            say(_coloured(line))
        say()
        return
    room = shutil.get_terminal_size((WIDTH, 24)).lines - 3
    shown = [_coloured(line) for line in lines]
    if len(shown) > room:
        # The summary, which is last, stays.
        shown = [*shown[: room - 2], f"… {len(shown) - room + 1} more lines", shown[-1]]
    drawn = "".join(f"{line}{_CLEAR_LINE}\n" for line in (heading, "", *shown))
    say(_HOME + drawn + _CLEAR_BELOW, end="")
