"""The tags' timelines on the HTML page: a bar to scale, and a list of the digests beside it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from digestry.audit.findings import ContainerFinding
from digestry.audit.reports.words import NOT_FROM_TAG, WORDS, container_name, severity
from digestry.audit.timelines import Era, Timeline
from digestry.model.digest import Digest
from digestry.model.text import number_of, printable
from digestry.model.timestamps import rfc3339

_WIDTH: Final = 1000
_NARROWEST: Final = 24
_TONES: Final = 6
_MOST_ERAS: Final = 20
_MOST_NAMES: Final = 8


def timeline_cards(histories: Sequence[Timeline], *, until: datetime.datetime | None) -> Iterator[str]:
    """Yield a card for each tag that moved or that something runs without; the quiet ones are one line."""
    moved = [
        history for history in histories if len(history.eras) > 1 or (history.eras and history.elsewhere)
    ]
    quiet = [history for history in histories if len(history.eras) == 1 and not history.elsewhere]
    without = [history for history in histories if not history.eras]
    if not histories:
        return
    yield "<section>\n<h2>Where the tags pointed</h2>\n"
    for history in moved:
        yield from _card(history, until)
    if quiet:
        yield _folded(f"{number_of(len(quiet), 'tag')} never moved", [str(history.tag) for history in quiet])
    if without:
        lines = [f"{history.tag}: {history.problem}" for history in without]
        yield _folded(f"{number_of(len(without), 'tag')} without a history", lines)
    yield "</section>\n"


def _folded(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f'<details class="soft"><summary>{title}</summary><ul>{items}</ul></details>\n'


def _card(line: Timeline, until: datetime.datetime | None) -> Iterator[str]:
    eras = line.eras
    end = max(eras[-1].since, until or eras[-1].since)
    fills = _fills(line)
    moves = number_of(len(eras) - 1, "move")
    name = _text(line.tag.familiar)
    yield f'<article class="card" data-holder>\n<h3>{name} <span class="soft">{moves}</span></h3>\n'
    yield _bar(eras, end, fills)
    yield (
        f'<div class="ends"><span>{rfc3339(eras[0].since)}</span><span class="key">underlined: '
        f"containers run it</span><span>{rfc3339(end)}</span></div>\n"
    )
    yield '<ul class="eras">\n'
    yield from _unplaced(line)
    for era in list(reversed(eras))[:_MOST_ERAS]:
        yield _era(era, fills, now=era is eras[-1])
    if len(eras) > _MOST_ERAS:
        yield f'<li class="soft">… and {len(eras) - _MOST_ERAS} older</li>\n'
    yield "</ul>\n</article>\n"


def _bar(eras: Sequence[Era], end: datetime.datetime, fills: dict[Digest | None, str]) -> str:
    """Return the eras side by side, as wide as they were long, none too narrow to be seen."""
    seconds = [max(0.0, ((era.until or end) - era.since).total_seconds()) for era in eras]
    least = min(_NARROWEST, _WIDTH / (2 * len(eras)))
    rest = _WIDTH - least * len(eras)
    total = sum(seconds) or 1.0
    position, parts = 0.0, []
    for era, length in zip(eras, seconds, strict=True):
        width = least + rest * length / total if sum(seconds) else _WIDTH / len(eras)
        name = "no tag" if era.digest is None else era.digest.short
        box = f'x="{position:.1f}" width="{max(width - 2, 1):.1f}"'
        title = f"<title>{name}: {rfc3339(era.since)} to {rfc3339(era.until) if era.until else 'now'}</title>"
        parts.append(f'<rect {box} y="0" height="20" class="{fills[era.digest]}">{title}</rect>')
        if era.findings:
            parts.append(f'<rect {box} y="24" height="4" class="fill-runs"/>')
        position += width
    label = f"{number_of(len(eras), 'digest')} over time"
    return (
        f'<svg class="bar" viewBox="0 0 {_WIDTH} 30" preserveAspectRatio="none" role="img"'
        f' aria-label="{label}">{"".join(parts)}</svg>\n'
    )


def _fills(line: Timeline) -> dict[Digest | None, str]:
    """Return a colour for each digest: that of its state, else one of a few tones."""
    findings = [finding for era in line.eras for finding in era.findings]
    fixed = {
        finding.fixed_image.digest
        for finding in (*findings, *line.elsewhere)
        if finding.fixed_image is not None
    }
    fills: dict[Digest | None, str] = {None: "fill-gone"}
    for era in line.eras:
        kinds = {finding.assessment.state for finding in era.findings}
        known = fills.get(era.digest)
        if "affected" in kinds:
            fills[era.digest] = "fill-affected"
        elif kinds & {"unknown", "not_assessed"}:
            fills.setdefault(era.digest, f"fill-{len(fills) % _TONES}")
        elif kinds or (era.digest is not None and era.digest in fixed):
            fills[era.digest] = "fill-good"
        elif known is None:
            fills[era.digest] = f"fill-{len(fills) % _TONES}"
    return fills


def _era(era: Era, fills: dict[Digest | None, str], *, now: bool) -> str:
    when = (
        f"since {rfc3339(era.since)}"
        if era.until is None
        else f"{rfc3339(era.since)} to {rfc3339(era.until)}"
    )
    if era.digest is None:
        words = "<b>deleted</b>"
    else:
        words = f'<code title="{era.digest}">{era.digest.short}</code>'
        if now:
            words += " <b>the tag is here now</b>"
    fill = fills[era.digest]
    if fill == "fill-affected":
        words += f' <span class="badge affected">{WORDS["affected"]}</span>'
    elif fill == "fill-good":
        states = {finding.assessment.state for finding in era.findings}
        word = WORDS["not_affected" if states == {"not_affected"} else "fixed"]
        words += f' <span class="badge good">{word}</span>'
    runs = _names(era.findings)
    names = f"<br>{number_of(len(era.findings), 'container')}: {runs}" if runs else ""
    return (
        f'<li data-row="era"><svg class="dot" viewBox="0 0 10 10" aria-hidden="true">'
        f'<circle cx="5" cy="5" r="5" class="{fill}"/></svg>'
        f'<div>{words} <span class="soft">{when}</span>{names}</div></li>\n'
    )


def _unplaced(line: Timeline) -> Iterator[str]:
    """Yield the containers that were started as this tag and run an image that it never pointed to."""
    for word, wanted in ((NOT_FROM_TAG, True), ("not known", False)):
        members = [finding for finding in line.elsewhere if (severity(finding) == "never") is wanted]
        if members:
            of = "never" if wanted else "unknown"
            what = "what this tag never pointed to" if wanted else "something that was not found here"
            runs = "runs" if len(members) == 1 else "run"
            yield (
                f'<li data-row="era"><div><span class="badge {of}">{word}</span> '
                f"{number_of(len(members), 'container')} {runs} {what}: {_names(members)}</div></li>\n"
            )


def _names(findings: Sequence[ContainerFinding]) -> str:
    names = ", ".join(_text(container_name(finding)) for finding in findings[:_MOST_NAMES])
    more = len(findings) - _MOST_NAMES
    return names + (f" and {more} more" if more > 0 else "")


def _text(value: str) -> str:
    return escape(printable(value), quote=True)
