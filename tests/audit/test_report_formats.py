"""CSV, SARIF, JUnit, Markdown and HTML: well-formed, complete, and inert whatever a name says."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin

import pytest

from digestry.audit.findings import AuditReport
from digestry.audit.reports import (
    fix_plan,
    table_layout,
    to_csv,
    to_html,
    to_json,
    to_junit,
    to_markdown,
    to_sarif,
    to_table,
)
from digestry.audit.reports.table_layout import TableOptions
from digestry.audit.reports.words import FailState
from tests.audit import fleets
from tests.audit.fakes import FakeRegistries
from tests.audit.fleets import NASTY, Fleet

FORMATS: dict[str, Callable[[Fleet], Iterator[str]]] = {
    "table": lambda fleet: (table_layout.plain(line) + "\n" for line in to_table.write(fleet.report)),
    "whole table": lambda fleet: (
        table_layout.plain(line) + "\n"
        for line in to_table.write(fleet.report, TableOptions(whole=True, every=True))
    ),
    "plan": lambda fleet: (table_layout.plain(line) + "\n" for line in fix_plan.write(fleet.report)),
    "json": lambda fleet: to_json.write(fleet.report, fixes={}),
    "csv": lambda fleet: to_csv.write(fleet.report),
    "sarif": lambda fleet: to_sarif.write(fleet.report),
    "junit": lambda fleet: to_junit.write(fleet.report),
    "markdown": lambda fleet: to_markdown.write(fleet.report, fixes={}, every=True),
    "html": lambda fleet: to_html.write(fleet.report, fleet.histories, fixes={}),
}


@pytest.fixture(scope="module")
def nasty() -> Fleet:
    return fleets.nasty()


@pytest.fixture(scope="module")
def large() -> Fleet:
    return fleets.large()


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_that_a_terminal_obeys_is_in_any_format(name: str, nasty: Fleet) -> None:
    text = "".join(FORMATS[name](nasty))
    if name == "csv":
        text = text.replace("\r\n", "\n")
    odd = {one for one in text if one != "\n" and not one.isprintable()}
    assert not odd
    assert not any(unicodedata.category(one) == "Cf" for one in text)


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_report_can_be_written(name: str) -> None:
    assert "".join(FORMATS[name](Fleet(AuditReport((), ()), [])))


# -- CSV ----------------------------------------------------------------------------------------


def table(report: AuditReport) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(to_csv.write(report)), newline=""), strict=True))


def test_csv_has_a_row_for_all_that_was_seen_and_was_not(large: Fleet) -> None:
    found = table(large.report)
    assert len(found) == len(large.report.findings) + 1
    assert found[0]["name"] == "golftrack-web-243"
    assert found[0]["advisories"] == "CVE-2026-1505 affected by security@example (unsigned)"
    assert found[0]["advisory_state"] == "affected"
    assert found[-1]["row"] == "problem"
    assert found[-1]["reasons"] == "node-41:2375 does not answer"


def test_csv_cells_are_no_formulas(nasty: Fleet) -> None:
    found = table(nasty.report)
    assert len(found) == 5 * len(NASTY)
    for row in found:
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "+", "-", "@"))
            assert not cell.startswith(("\\t", "\\r"))
    assert {'\'=HYPERLINK("http://evil")', "'+1", "'-1", "'@SUM(A1)", "'\\t=1"} <= {
        row["name"] for row in found
    }


# -- SARIF --------------------------------------------------------------------------------------


def log(report: AuditReport) -> Any:
    document = json.loads("".join(to_sarif.write(report)))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    return run


def test_sarif_has_rules_results_and_what_was_not_seen(large: Fleet) -> None:
    run = log(large.report)
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["CVE-2026-1505", "tag-never-pointed-here", "not-known", "not-assessed", "tag-moved"]
    kinds = [(result["ruleId"], result["level"]) for result in run["results"]]
    assert kinds.count(("CVE-2026-1505", "error")) == 2
    assert kinds.count(("tag-never-pointed-here", "error")) == 1
    assert kinds.count(("not-known", "warning")) == 1
    assert kinds.count(("tag-moved", "note")) == 3
    assert kinds.count(("not-assessed", "note")) == 77
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
    (place,) = run["results"][0]["locations"]
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "node-03/golftrack-web-243"
    assert run["invocations"][0]["executionSuccessful"] is False
    assert "node-41" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


def test_sarif_fingerprints_tell_containers_apart_and_stay(large: Fleet) -> None:
    prints = [one["partialFingerprints"][to_sarif.FINGERPRINT] for one in log(large.report)["results"]]
    assert len(set(prints)) == len(prints)
    again = [
        one["partialFingerprints"][to_sarif.FINGERPRINT] for one in log(fleets.large().report)["results"]
    ]
    assert prints == again


def test_sarif_locations_are_relative_references(nasty: Fleet) -> None:
    for result in log(nasty.report)["results"]:
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2}|/)+", uri)
        base = "https://base.example/a/b/"
        assert urljoin(base, uri) == base + uri, "it leads nowhere else"


def test_sarif_messages_have_no_links_and_no_placeholders(nasty: Fleet) -> None:
    run = log(nasty.report)
    messages = [result["message"]["text"] for result in run["results"]]
    messages += [one["message"]["text"] for one in run["invocations"][0]["toolExecutionNotifications"]]
    for rule in run["tool"]["driver"]["rules"]:
        messages += [rule["shortDescription"]["text"], rule.get("fullDescription", {}).get("text", "")]
    assert any("evil.example" in message for message in messages)
    for message in messages:
        # What is left without what is escaped (SARIF 2.1.0, 3.11.5 and 3.11.6).
        bare = re.sub(r"\\[\\\[\]]|\{\{|\}\}", "", message)
        assert not set(bare) & set("[]{}"), message


@pytest.mark.parametrize("name", FORMATS)
def test_no_line_is_a_command_of_a_build_server(name: str, nasty: Fleet) -> None:
    for line in "".join(FORMATS[name](nasty)).splitlines():
        assert not re.search(r"##(?:vso)?\[", line, re.IGNORECASE)
        assert not re.match(r"\s*::[a-z-]+.*::", line)


# -- JUnit --------------------------------------------------------------------------------------


def parsed(pieces: Iterator[str]) -> ET.Element:
    return ET.fromstring("".join(pieces))  # noqa: S314 - it was written here


def test_junit_has_a_case_for_each_and_fails_those_that_fail(large: Fleet) -> None:
    cases: list[tuple[set[FailState], int]] = [
        ({"affected"}, 2),
        ({"affected", "never", "moved", "unknown"}, 7),
        (set(), 0),
        ({"not_assessed"}, 77),
    ]
    for fail_on, failures in cases:
        suites = parsed(to_junit.write(large.report, fail_on=frozenset(fail_on)))
        (suite,) = suites
        assert len(suite) == len(large.report.findings) + 1
        assert len(suite.findall("testcase/failure")) == int(suite.get("failures", "")) == failures
        assert len(suite.findall("testcase/error")) == int(suite.get("errors", "")) == 1
        skipped = suite.findall("testcase/skipped")
        assert len(skipped) == int(suite.get("skipped", ""))
        # What passes is what somebody called fixed.
        assert len(suite) - len(skipped) - failures - 1 == 221


def test_junit_is_xml_whatever_a_name_says(nasty: Fleet) -> None:
    suites = parsed(to_junit.write(nasty.report))
    names = {case.get("name") for case in suites.iter("testcase")}
    assert {"</td><script>alert(1)</script>", "]]>&bogus;", "\\ufffe\\x00\\x0b", "<!--"} <= names
    assert {element.tag for element in suites.iter()} <= {
        "testsuites", "testsuite", "testcase", "failure", "error", "skipped", "system-out",
    }  # fmt: skip


# -- Markdown -----------------------------------------------------------------------------------

_SPAN = re.compile(r"`[^`\n]*`|<code>(?:[^<>&|`\\\n]|&#\d+;)*</code>")


def outside(text: str) -> list[str]:
    """The lines without code: what Markdown itself reads."""
    found, fence = [], ""
    for line in text.splitlines():
        opened = re.match("`{3,}", line)
        if fence:
            if line == fence:
                fence = ""
        elif opened:
            fence = opened[0]
        else:
            found.append(_SPAN.sub("", line))
    assert not fence
    return found


def test_markdown_leaves_a_stranger_nothing_but_code(nasty: Fleet) -> None:
    read = outside("".join(to_markdown.write(nasty.report, fixes={}, every=True)))
    own = re.compile(
        r"</?details>|<details><summary>[\w ,()]+</summary>|</details>|[-| ]+|### 🔴 digestry audit"
        r"|\*\*\d+ things could not be seen:\*\*"
        r"|[-|*🔴🟣🟡⚪🔵🟢 ]*(?:VULNERABLE|unknown|FIXED|not assessed|not affected|NOT FROM TAG)?[*| ]*"
        r"|[| A-Za-z]+|"
    )
    for line in read:
        assert own.fullmatch(line), line
    columns = {line.count("|") for line in read if line.startswith(("| 🔴", "| |"))}
    assert columns == {7, 9}


def test_markdown_is_short_enough_for_a_comment(large: Fleet) -> None:
    assert len("".join(to_markdown.write(large.report, fixes={}))) < 20_000
    many = AuditReport(fleets.four().report.findings * 2000, ())
    assert len("".join(to_markdown.write(many, fixes={}))) < 65_536


# -- HTML ---------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """What a browser would find: elements, attributes, text."""

    VOID = frozenset({"meta", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.contents: dict[str, list[str]] = {"script": [], "style": []}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.contents:
            self.contents[self._open[-1]].append(data)
        else:
            self.words.append(data)


def page(fleet: Fleet, **options: Any) -> Page:
    return Page("".join(to_html.write(fleet.report, fleet.histories, **options)))


def test_the_page_needs_nothing_and_allows_nothing(nasty: Fleet) -> None:
    read = page(nasty, fixes={})
    tags = {tag for tag, _ in read.elements}
    assert not tags & {"img", "link", "iframe", "object", "embed", "a", "form", "base"}
    for tag, attributes in read.elements:
        assert not {"style", "src", "href", "action", "srcset"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes)
    policy = next(a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for kind in ("script", "style"):
        (content,) = ["".join(read.contents[kind])]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert [tag for tag, _ in read.elements].count("script") == 1
    assert [tag for tag, _ in read.elements].count("style") == 1
    assert "unsafe" not in policy


def test_the_page_shows_every_name_as_it_is(nasty: Fleet) -> None:
    words = "\n".join(page(nasty).words)
    for text in (
        "</td><script>alert(1)</script>",
        "\" onload=alert(1) x='",
        "a|b`c``<img src=x>",
        "\\u202egnp.exe",
    ):
        assert text in words


def test_the_page_says_the_worst_first(large: Fleet) -> None:
    words = [word.strip() for word in page(large).words if word.strip()]
    assert words[0] == "2 of 301 containers are vulnerable"
    assert words.index("golftrack-web-117") < words.index("What could not be seen")
    assert words.index("What could not be seen") < words.index("Where the tags pointed")
    rows = [a for tag, a in page(large).elements if tag == "tr" and a.get("data-row") == "container"]
    assert len(rows) == 301


def test_the_timeline_has_the_eras_and_who_runs_them(large: Fleet) -> None:
    read = page(large)
    bars = [a for tag, a in read.elements if tag == "svg" and a.get("class") == "bar"]
    assert len(bars) == 1
    assert len([1 for tag, a in read.elements if tag == "rect" and a.get("height") == "20"]) == 5
    fills = [a.get("class") for tag, a in read.elements if tag == "rect" and a.get("height") == "20"]
    assert fills[0] == "fill-affected"
    assert fills[2] == fills[4] == "fill-good"
    text = " ".join(read.words)
    assert "1 container runs what this tag never pointed to: golftrack-web-200" in text
    assert "3 tags never moved" in text
    widths = [float(a["width"] or 0) for tag, a in read.elements if tag == "rect" and a.get("height") == "20"]
    assert min(widths) > 10
    assert sum(widths) <= 1000


def test_a_registry_without_history_is_said() -> None:
    registries = FakeRegistries(remembers=False)
    app = registries.at(fleets.APP)
    image = app.image("one", "1.5")
    fleet = fleets.made(registries, fleets.row(fleets.APP, image, ":1.5", "web"))
    assert "keeps no tag history" in " ".join(page(fleet).words)


def test_containers_beyond_the_first_thousands_are_counted() -> None:
    report = fleets.four().report
    many = AuditReport(report.findings[3:] * (to_html.MOST_ROWS + 7), ())
    assert "… and 7 more containers (--all-rows lists each)" in page(Fleet(many, [])).words
