"""The report as one self-contained HTML page: without network access, readable without scripts, light and
dark.

Untrusted text is escaped; besides, the page's content security policy only allows the one script whose hash
it names.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from typing import Final

from digestry.audit import remediation
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.remediation import Origins
from digestry.audit.reports.explanations import equal_findings
from digestry.audit.reports.grouping import Group, grouped
from digestry.audit.reports.html_timeline import timeline_cards
from digestry.audit.reports.words import (
    SEVERITIES,
    Severity,
    container_name,
    good_statements,
    severity,
    short_reference,
    state_word,
    statement_words,
    tag_words,
)
from digestry.audit.timelines import Timeline
from digestry.inventory.observation import Note, Unseen
from digestry.model.text import number_of, printable
from digestry.model.timestamps import rfc3339
from digestry.version import __version__

MOST_ROWS: Final = 5000
"""Good containers that are listed; further ones are counted, unless all are requested."""
MOST_IN_CARD: Final = 200

_QUIET: Final = {"not_assessed", "moved", "good"}

_LABELS: Final[dict[Severity, str]] = {
    "affected": "vulnerable",
    "never": "not from their tag",
    "unknown": "unknown",
    "not_assessed": "not assessed",
    "moved": "moved",
    "good": "fixed or not affected",
}


def write(
    report: AuditReport,
    histories: Sequence[Timeline] = (),
    *,
    fixes: Origins | None = None,
    every: bool = False,
) -> Iterator[str]:
    """Yield the page, in pieces. ``histories`` are the tags' timelines, ``fixes`` adds the remediation of
    each finding, ``every`` lists every container, of any number."""
    css, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(_headline(report))}</title>\n<style>{css}</style>\n</head>\n<body>\n"
    )
    yield from _header(report)
    yield "<main>\n"
    yield (
        '<label class="filter" hidden><input type="search" aria-label="Filter"'
        ' placeholder="Filter: container, host, image, digest, CVE, state…"><output></output></label>\n'
    )
    yield from _findings(report, fixes=fixes, every=every)
    yield from _sayings(report, every=every)
    yield from _problems(report)
    yield from timeline_cards(
        histories, until=max((f.container.seen_at for f in report.findings), default=None)
    )
    yield from _images(report, every=every)
    yield f"</main>\n<footer>Made by digestry {text(__version__)}. {_SIGNATURES}</footer>\n"
    yield f"<script>{script}</script>\n</body>\n</html>\n"


_SIGNATURES: Final = (
    "Whoever may push to a repository may state something there, unless only signed advisories count."
)


def text(value: str) -> str:
    """Return a stranger's text for HTML, in an element or a quoted attribute."""
    return escape(printable(value), quote=True)


def _asset(name: str) -> str:
    return resources.files("digestry.audit.reports").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def badge(of: Severity, word: str) -> str:
    """Return a word in the colour of a severity."""
    return f'<span class="badge {of}">{text(word)}</span>'


def digest_words(finding: ContainerFinding) -> str:
    """Return the digest that a container runs, short, with the whole digest to hover and search."""
    if finding.identity is None:
        return f'<span class="soft">{"not known" if finding.container.runs else "does not run"}</span>'
    running = finding.identity.running
    return f'<code title="{text(str(running))}">{running.short}</code>'


# -- summary ------------------------------------------------------------------------------------


def _headline(report: AuditReport) -> str:
    total = len(report.findings)
    bad = sum(finding.assessment.state == "affected" for finding in report.findings)
    if bad:
        return f"{bad} of {number_of(total, 'container')} {'is' if bad == 1 else 'are'} vulnerable"
    if not total:
        return "No container was seen"
    unsure = sum(severity(finding) in {"never", "unknown"} for finding in report.findings)
    if unsure or report.problems:
        return f"Nothing vulnerable was found in {number_of(total, 'container')}, but not everything is known"
    unassessed = sum(finding.assessment.state == "not_assessed" for finding in report.findings)
    if unassessed:
        of = f"{unassessed} of {number_of(total, 'container')} {'is' if unassessed == 1 else 'are'}"
        return f"Nothing vulnerable was found, but {of} not assessed"
    return f"Nothing vulnerable runs in {number_of(total, 'container')}"


def _header(report: AuditReport) -> Iterator[str]:
    counts = dict.fromkeys(SEVERITIES, 0)
    hosts, images = set(), set()
    latest = None
    for finding in report.findings:
        counts[severity(finding)] += 1
        hosts.add(finding.container.host)
        if finding.identity is not None:
            images.add(finding.identity.running)
        seen_at = finding.container.seen_at
        latest = seen_at if latest is None else max(latest, seen_at)
    yield f"<header>\n<h1>{text(_headline(report))}</h1>\n"
    about = (
        [number_of(len(hosts), "host"), number_of(len(images), "different digest")] if report.findings else []
    )
    if latest is not None:
        about.insert(0, rfc3339(latest))
    yield f'<p class="soft">{" · ".join(about)}</p>\n<ul class="tiles">\n'
    for level in SEVERITIES:
        zero = "" if counts[level] else " zero"
        yield f'<li class="{level}{zero}"><b>{counts[level]}</b>{_LABELS[level]}</li>\n'
    if report.problems:
        yield f'<li class="unknown"><b>{len(report.problems)}</b>not seen</li>\n'
    yield "</ul>\n</header>\n"


def _problems(report: AuditReport) -> Iterator[str]:
    yield from _section("What could not be seen", "card unknown", report.problems)
    yield from _section("Notes", "card", report.notes)


def _section(title: str, style: str, lines: Sequence[Unseen | Note]) -> Iterator[str]:
    if not lines:
        return
    yield f'<section>\n<h2>{title}</h2>\n<div class="{style}"><ul>\n'
    for line in lines:
        hint = f'<br><span class="soft">{text(line.hint)}</span>' if line.hint else ""
        yield f"<li><b>{text(line.source)}</b>: {text(line.message)}{hint}</li>\n"
    yield "</ul></div>\n</section>\n"


# -- findings -----------------------------------------------------------------------------------


def _findings(report: AuditReport, *, fixes: Origins | None, every: bool) -> Iterator[str]:
    groups = equal_findings(report)
    if not groups:
        return
    yield "<section>\n<h2>Findings</h2>\n"
    for members in groups:
        finding = members[0]
        worst = severity(finding)
        word = state_word(finding)
        many = number_of(len(members), "container")
        yield f'<article class="card {worst}" data-holder>\n<h3>{badge(worst, word)} {many}</h3>\n'
        yield f'<p class="do">→ {text(finding.action)}</p>\n'
        if finding.assessment.advisories:
            yield "<ul>\n"
            for advisory in finding.assessment.advisories:
                yield f"<li>{text(statement_words(advisory))}</li>\n"
            yield "</ul>\n"
        yield from _rows(members if every else members[:MOST_IN_CARD], "finding")
        if not every and len(members) > MOST_IN_CARD:
            yield f'<p class="soft">… and {len(members) - MOST_IN_CARD} more</p>\n'
        if finding.reasons:
            yield "<details><summary>Why</summary><ul>\n"
            yield from (f"<li>{text(reason)}</li>\n" for reason in finding.reasons)
            yield "</ul></details>\n"
        if fixes is not None:
            yield from _fixes(members if every else members[:MOST_IN_CARD], fixes)
        yield "</article>\n"
    yield "</section>\n"


def _sayings(report: AuditReport, *, every: bool) -> Iterator[str]:
    statements = good_statements(report.findings)
    if not statements:
        return
    yield "<section>\n<h2>Said to be fixed, or not affected</h2>\n<ul>\n"
    yield from (f"<li>{text(line)}</li>\n" for line in (statements if every else statements[:MOST_IN_CARD]))
    yield "</ul>\n</section>\n"


def _fixes(members: Iterable[ContainerFinding], origins: Origins) -> Iterator[str]:
    lines = []
    for finding in members:
        fix = remediation.plan(finding, origins)
        if fix is not None and fix.commands:
            found = remediation.lines(finding, origins)
            lines += [f"# {container_name(finding)}", *found, ""]
    if lines:
        shown = "\n".join(text(line) for line in lines).rstrip()
        yield "<details><summary>What would fix it (nothing of it was run)</summary>"
        yield f"<pre>{shown}</pre></details>\n"


_COLUMNS: Final = ("State", "Container", "Host", "Started as", "Runs", "Tag")


def _rows(findings: Iterable[ContainerFinding], kind: str) -> Iterator[str]:
    yield f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in _COLUMNS)}</tr></thead><tbody>\n"
    for finding in findings:
        worst = severity(finding)
        state: Severity = "good" if worst == "moved" else worst
        tag = text(tag_words(finding))
        if finding.tag.state in {"never", "moved"}:
            tag = badge("moved" if finding.tag.state == "moved" else "never", tag_words(finding))
        reference = finding.container.image.reference or ""
        cells = (
            ("State", badge(state, state_word(finding)), ' class="tight"'),
            (
                "Container",
                f'<span title="{text(finding.container.id)}">{text(container_name(finding))}</span>',
                "",
            ),
            ("Host", text(finding.container.host or "-"), ""),
            ("Started as", f'<span title="{text(reference)}">{text(short_reference(reference))}</span>', ""),
            ("Runs", digest_words(finding), ""),
            ("Tag", tag, ""),
        )
        shown = "".join(f'<td data-label="{label}"{more}>{value}</td>' for label, value, more in cells)
        known = " ".join(advisory.statement.vulnerability for advisory in finding.assessment.advisories)
        yield f'<tr data-row="{kind}" data-more="{text(known)}">{shown}</tr>\n'
    yield "</tbody></table>\n"


# -- every container ----------------------------------------------------------------------------


def _images(report: AuditReport, *, every: bool) -> Iterator[str]:
    groups = grouped(report.findings, "image", every=True)
    if not groups:
        return
    yield '<section class="images">\n<h2>Every container, by image</h2>\n'
    left = MOST_ROWS
    for group in groups:
        yield from _image(group, len(group.findings) if every else left)
        left = max(0, left - sum(severity(finding) in _QUIET for finding in group.findings))
    yield "</section>\n"


def _image(group: Group, most: int) -> Iterator[str]:
    """Yield one image: bad containers are shown, good ones folded."""
    yield f"<details data-holder{'' if group.good else ' open'}><summary><b>{text(group.key)}</b> "
    yield f"{_badges(group.findings)}</summary>\n"
    bad = [finding for finding in group.findings if severity(finding) not in _QUIET]
    # Containers without an assessment are never listed as good.
    unassessed = [finding for finding in group.findings if severity(finding) == "not_assessed"]
    good = [finding for finding in group.findings if severity(finding) in _QUIET - {"not_assessed"}]
    if bad:
        yield from _rows(bad, "container")
    alone = len([part for part in (bad, unassessed, good) if part]) == 1
    for quiet in (unassessed, good):
        if not quiet:
            continue
        if not alone:
            yield f"<details data-holder><summary>{_badges(quiet)}</summary>\n"
        if quiet[:most]:
            yield from _rows(quiet[:most], "container")
        if len(quiet) > most:
            more = number_of(len(quiet) - most, "more container")
            yield f'<p class="soft">… and {more} (--all-rows lists each)</p>\n'
        if not alone:
            yield "</details>\n"
        most = max(0, most - len(quiet))
    yield "</details>\n"


def _badges(findings: Iterable[ContainerFinding]) -> str:
    counts = Counter(severity(finding) for finding in findings)
    return " ".join(
        badge(level, f"{counts[level]} {_LABELS[level]}") for level in SEVERITIES if counts[level]
    )
