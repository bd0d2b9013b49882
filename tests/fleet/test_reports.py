"""The report as a table that fits, lines that say why, and JSON that scripts rely on."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from digestry.fleet import publish, reports
from digestry.fleet.audit import Report, audit
from digestry.fleet.lookup import Lookup
from digestry.fleet.sighting import Problem
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.fleet.fakes import HOST, START, FakeRegistries, Listed, claim, image_id, sighted

APP = f"{HOST}/a/rather/long/path/to/golftrack"
KEYS = {
    "host", "namespace", "name", "id", "reference", "running_digest", "found_by", "tag_state", "tag_digest",
    "moved_at", "advisory_state", "advisories", "action", "reasons", "source", "platform", "image_id",
    "manifest_digest",
}  # fmt: skip


def story(*more: Any, **changes: Any) -> Report:
    registries = FakeRegistries()
    app = registries.at(APP)
    bad, good = app.image("one", "1"), app.image("two", "1")
    fixed = publish.find(registries, Reference.parse(f"{APP}:1"))
    subject = publish.find(registries, Reference.parse(f"{APP}@{bad.manifest}"))
    publish.state(registries, subject, publish.Statement("CVE-1", "affected", "me", START), [fixed])
    one = sighted(f"{APP}:1", claim(bad.manifest, APP), image_id(bad.config), name="web")
    two = sighted(f"{APP}:1", claim(good.manifest, APP), image_id(good.config), name="web-2")
    three = sighted("base:1", image_id(Digest.of(b"x")), name="local", registry_named=False)
    seen = [dataclasses.replace(one, **changes), two, three, *more]
    return audit([Listed(*seen)], Lookup(registries))


def test_json_has_the_promised_keys() -> None:
    values = reports.as_values(story(Problem("docker", "no such socket", "start it")))
    assert values["problems"] == [{"source": "docker", "message": "no such socket", "hint": "start it"}]
    for container in values["containers"]:
        assert set(container) >= KEYS
    bad = values["containers"][0]
    assert bad["advisory_state"] == "affected"
    assert bad["tag_state"] == "moved"
    assert bad["moved_at"] == "2026-11-21T10:01:00Z"
    assert datetime.datetime.fromisoformat(bad["moved_at"]).tzinfo is not None
    assert bad["advisories"][0]["id"] == "CVE-1"
    assert bad["action"].startswith(f"restart from {APP}@sha256:")
    assert values["containers"][1]["running_digest"] is None
    assert values["containers"][1]["found_by"] is None


def test_the_table_fits_and_the_worst_comes_first() -> None:
    headings, rows = reports.table(story(name="a-container-with-a-name-that-does-not-end", host="a" * 80))
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    assert sum(widths) + 3 * (len(widths) - 1) <= reports.WIDTH
    assert [row[0] for row in rows] == ["VULNERABLE", "unknown", "FIXED"]
    assert "moved 2026-11-21 10:01Z to " in rows[0][-1]
    assert rows[0][3].endswith(":1")


def test_a_host_that_all_share_is_left_to_the_summary() -> None:
    headings, _ = reports.table(story())
    assert "HOST" not in headings
    assert reports.summary(story()) == "3 containers on node: 1 vulnerable, 1 unknown, 1 fixed"


def test_nothing_is_cut_if_asked() -> None:
    headings, rows = reports.table(story(), trunc=False)
    assert headings == list(reports.HEADINGS)
    assert rows[0][3] == f"{APP}:1"
    assert rows[0][4].startswith("sha256:")
    assert len(rows[0][4]) == 71


def test_findings_say_why_and_what_to_do() -> None:
    lines = reports.findings(story())
    assert lines[0] == "VULNERABLE: web on node"
    assert lines[1].startswith("  CVE-1: affected, 2026-11-21 10:00Z by me")
    assert any(line.startswith(f"  -> restart from {APP}@sha256:") for line in lines)
    assert all(len(line) <= reports.WIDTH for line in lines if not line.startswith("  ->"))
    assert not any("web-2" in line for line in lines)


def test_names_are_cleaned_before_they_are_fitted() -> None:
    report = story(name="\x1b[2J" * 10)
    headings, rows = reports.table(report, clean=lambda text: text.replace("\x1b", "\\x1b"))
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    assert sum(widths) + 3 * (len(widths) - 1) <= reports.WIDTH
    assert "\x1b" not in str(rows)


def test_problems_are_counted() -> None:
    report = Report((), (Problem("docker", "x"),))
    assert reports.summary(report) == "0 containers; 1 problem: something could not be seen"
