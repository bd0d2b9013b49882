"""The report as a table that fits, groups that show the bad ones, lines that say why, and JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from digestry.advisories import publish
from digestry.audit import reports
from digestry.audit.audit import audit
from digestry.audit.findings import AuditReport
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.reports import explanations, table_layout, to_json, to_table, values, words
from digestry.audit.reports.grouping import WAYS, By
from digestry.audit.reports.table_layout import TableOptions, plain
from digestry.inventory.observation import Unseen
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.model.text import columns
from tests.audit import fleets
from tests.audit.fakes import HOST, FakeRegistries
from tests.inventory.fakes import START, Listed, claim, image_id, sighted
from tests.json_schema import conforms

APP = f"{HOST}/a/rather/long/path/to/golftrack"
KEYS = {
    "host", "namespace", "name", "id", "reference", "running_digest", "found_by", "tag_state", "tag_digest",
    "moved_at", "advisory_state", "advisories", "action", "reasons", "source", "platform", "image_id",
    "manifest_digest",
}  # fmt: skip
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "audit.json"


def story(*more: Any, **changes: Any) -> AuditReport:
    registries = FakeRegistries()
    app = registries.at(APP)
    bad, good = app.image("one", "1"), app.image("two", "1")
    fixed = publish.find_image(registries, Reference.parse(f"{APP}:1"))
    subject = publish.find_image(registries, Reference.parse(f"{APP}@{bad.manifest}"))
    publish.attach_statement(
        registries,
        subject,
        publish.NewStatement("CVE-1", "affected", "me", START),
        [fixed],
        new_queries=lambda: RegistryQueries(registries),
    )
    one = sighted(f"{APP}:1", claim(bad.manifest, APP), image_id(bad.config), name="web")
    two = sighted(f"{APP}:1", claim(good.manifest, APP), image_id(good.config), name="web-2")
    three = sighted("base:1", image_id(Digest.of(b"x")), name="local", registry_named=False)
    seen = [dataclasses.replace(one, **changes), two, three, *more]
    return audit([Listed(*seen)], RegistryQueries(registries))


def lines(report: AuditReport, **look: Any) -> list[str]:
    return [plain(line) for line in to_table.write(report, TableOptions(**look))]


def rows(report: AuditReport, **look: Any) -> list[str]:
    return [plain(line) for line in to_table.table(report, TableOptions(**look))]


# -- JSON and its schema ------------------------------------------------------------------------


def test_json_has_the_promised_keys() -> None:
    found: Any = reports.as_values(story(Unseen("docker", "no such socket", "start it")))
    assert found["problems"] == [{"source": "docker", "message": "no such socket", "hint": "start it"}]
    for container in found["containers"]:
        assert set(container) >= KEYS
    bad = found["containers"][0]
    assert bad["advisory_state"] == "affected"
    assert bad["tag_state"] == "moved"
    assert bad["moved_at"] == "2026-11-21T10:01:00.000000Z"
    assert datetime.datetime.fromisoformat(bad["moved_at"]).tzinfo is not None
    assert bad["advisories"][0]["id"] == "CVE-1"
    assert bad["action"].startswith(f"restart from {APP}@sha256:")
    assert found["containers"][1]["running_digest"] is None
    assert found["containers"][1]["found_by"] is None
    assert found["summary"] == {
        "containers": 3, "affected": 1, "unknown": 1, "fixed": 1, "not_affected": 0, "not_assessed": 0,
        "moved": 1, "never": 0, "problems": 1,
    }  # fmt: skip


def test_the_published_schema_is_the_one_in_force() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(values.schema()))


@pytest.mark.parametrize("fleet", [fleets.four, fleets.large, fleets.nasty])
def test_real_output_is_as_the_schema_says(fleet: Any) -> None:
    schema = values.schema()
    report = fleet().report
    choices: tuple[dict[str, str] | None, ...] = (None, {})
    for fixes in choices:
        text = "".join(to_json.write(report, fixes=fixes))
        document = json.loads(text)
        assert conforms(document, schema, schema)
        assert document == reports.as_values(report, fixes=fixes)
    document["containers"][0]["running_digest"] = "sha256:1"
    assert not conforms(document, schema, schema)
    del document["problems"]
    assert not conforms(document, schema, schema)


def test_an_empty_report_is_json_too() -> None:
    document = json.loads("".join(to_json.write(AuditReport((), ()))))
    assert (document["containers"], document["problems"]) == ([], [])


def test_json_is_written_a_container_at_a_time() -> None:
    report = fleets.four().report
    many = dataclasses.replace(report, findings=report.findings * 5000)
    size = 0
    tracemalloc.start()
    try:
        for piece in to_json.write(many):
            size += len(piece)
            assert len(piece) < 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 20_000_000
    assert peak < 1_000_000


# -- the table ----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("fleet", [fleets.four, fleets.large])
def test_the_table_fits(width: int, fleet: Any) -> None:
    for by in (None, *WAYS):
        assert max(columns(row) for row in rows(fleet().report, width=width, by=by)) <= width


def test_the_worst_comes_first() -> None:
    found = rows(story(name="a-container-with-a-name-that-does-not-end", host="a" * 80))
    assert max(map(len, found)) <= table_layout.WIDTH
    assert [row.split()[0] for row in found[1:]] == ["VULNERABLE", "unknown", "FIXED"]
    assert found[1].endswith(" moved")


def test_few_containers_have_a_row_each() -> None:
    found = rows(fleets.four().report, width=130)
    assert found[0].split() == ["STATE", "CONTAINER", "REFERENCE", "RUNS", "TAG"]
    assert [row.split()[0] for row in found[1:]] == ["VULNERABLE"] * 3 + ["FIXED"]
    assert re.search(
        r"golftrack-api +reg\.example:5000/golftrack@[0-9a-f]{12} +[0-9a-f]{12} +pinned", found[1]
    )
    assert "moved 2026-11-21T10:01:00.000000Z to " in found[2]
    assert "golftrack:1.5" in found[2]


def test_a_pinned_reference_keeps_its_name_where_there_is_little_room() -> None:
    assert re.search(r" golftrack@[0-9a-f]{12} ", rows(fleets.four().report, width=100)[1])


def test_names_that_differ_by_their_registry_keep_it() -> None:
    registries = FakeRegistries()
    seen = []
    for host in ("one.example", "two.example"):
        image = registries.at(f"{host}/golftrack").image(host, "1")
        seen.append(fleets.row(f"{host}/golftrack", image, ":1", f"a-long-name-{host}"))
    found = rows(audit([Listed(*seen)], RegistryQueries(registries)), width=90)
    assert {"one.example", "two.example"} <= {row.split()[3].partition("/")[0] for row in found[1:]}


def test_two_bad_ones_are_found_among_three_hundred() -> None:
    found = rows(fleets.large().report)
    assert len(found) < 20
    assert [row.split()[1] for row in found if row.startswith("VULNERABLE")] == [
        "golftrack-web-243", "golftrack-web-117",
    ]  # fmt: skip
    assert found[1] == (
        f"{fleets.APP}: 227 containers: 2 vulnerable, 1 not from tag, 3 not assessed, 221 fixed"
    )
    assert found[2].startswith("VULNERABLE")
    assert any(
        re.match(r"FIXED +221 containers +30 hosts +golftrack:1.5 +[0-9a-f]{7} +current", r) for r in found
    )
    assert any(re.match(r"NOT FROM TAG +golftrack-web-200 .* not from this tag$", row) for row in found)
    assert any(
        re.match(r"not assessed +3 containers +3 hosts .* moved \d{4}-\d\d-\d\d", row) for row in found
    )


def test_every_container_has_a_row_if_asked() -> None:
    report = fleets.large().report
    assert len(rows(report, every=True)) == 1 + len(report.findings)
    by_host = rows(report, every=True, by="host")
    assert sum("golftrack-web" in row or "-web" not in row for row in by_host) >= len(report.findings)


@pytest.mark.parametrize("by", WAYS)
def test_every_grouping_shows_the_bad_ones_in_full(by: By) -> None:
    found = rows(fleets.large().report, by=by)
    assert sum(row.startswith("VULNERABLE") for row in found) == 2
    assert sum(row.startswith("NOT FROM TAG") for row in found) == 1
    assert found[2].startswith("VULNERABLE")


def test_grouping_by_advisory_tells_who_has_it_and_who_was_mended() -> None:
    found = rows(fleets.large().report, by="advisory")
    assert found[1] == "CVE-2026-1505: 223 containers: 2 vulnerable, 221 fixed"


def test_many_unknown_ones_share_a_line() -> None:
    registries = FakeRegistries()
    lost = [
        sighted("gone:1", image_id(Digest.of(b"x")), name=f"lost-{n}", registry_named=False)
        for n in range(300)
    ]
    report = audit([Listed(*lost)], RegistryQueries(registries))
    found = lines(report)
    assert any(re.match(r"unknown +300 containers +gone:1", line) for line in found)
    assert len(found) < 15
    assert any("lost-0, lost-1, lost-10, lost-100, lost-101 and 295 more on node" in line for line in found)


def test_a_host_that_all_share_is_left_to_the_summary() -> None:
    assert "HOST" not in rows(story())[0]
    assert reports.summary(story()) == "3 containers on node: 1 vulnerable, 1 unknown, 1 fixed"


def test_nothing_is_cut_if_asked() -> None:
    found = rows(story(), whole=True)
    assert found[0].split() == list(table_layout.HEADINGS)
    assert f" {APP}:1 " in found[1]
    assert re.search(r" sha256:[0-9a-f]{64} ", found[1])


def test_findings_say_why_and_what_to_do() -> None:
    below = [plain(line) for line in explanations.explanations(story(), TableOptions())]
    assert below[0] == "VULNERABLE: web on node"
    assert below[1].startswith("  CVE-1: affected, 2026-11-21T10:00:00.000000Z by me")
    assert any(line.startswith(f"  -> restart from {APP}@sha256:") for line in below)
    assert all(len(line) <= table_layout.WIDTH for line in below if not line.startswith("  ->"))
    assert not any("web-2" in line for line in below)


def test_what_to_do_fits_too_unless_it_names_an_image() -> None:
    below = [plain(line) for line in explanations.explanations(fleets.large().report, TableOptions(width=60))]
    (start,) = (place for place, line in enumerate(below) if line.startswith("  -> push its image"))
    assert all(len(line) <= 60 for line in below[start : start + 2])
    assert below[start + 1].endswith("so that it can be judged")


def test_what_is_true_of_many_is_said_once() -> None:
    below = [plain(line) for line in explanations.explanations(fleets.large().report, TableOptions())]
    assert below[0] == "VULNERABLE: golftrack-web-243 on node-03, golftrack-web-117 on node-37"
    assert any(line.startswith("NOT FROM TAG: golftrack-web-200") for line in below)
    assert sum("CVE-2026-1505: affected" in line for line in below) == 1


def test_a_tag_that_never_pointed_there_is_an_alarm() -> None:
    report = fleets.large().report
    stranger = next(one for one in report.findings if one.tag.state == "never")
    assert words.severity(stranger) == "never"
    assert words.states(stranger) == {"never", "not_assessed"}
    assert "nothing to do" not in stranger.action
    assert "1 not from tag" in reports.summary(report)
    words_of_it = {words.UNTAGGED_WORD, words.NOT_FROM_TAG}
    painted = [
        part for line in to_table.table(report, TableOptions()) for part in line if part[0] in words_of_it
    ]
    assert {style for _, style in painted} == {"alarm"}


def test_what_nobody_assessed_is_never_with_what_is_known_to_be_good() -> None:
    report = fleets.large().report
    rows_of = [finding for finding in report.findings if finding.assessment.state == "not_assessed"]
    assert {words.severity(finding) for finding in rows_of} == {"not_assessed", "never"}
    assert all("not_assessed" in words.states(finding) for finding in rows_of)
    assert "76 not assessed, 221 fixed" in reports.summary(report)
    for every in (False, True):
        for by in (None, *WAYS):
            look = TableOptions(by=by, every=every)
            for line in to_table.table(report, look):
                text = plain(line)
                if "not assessed" in text and "FIXED" in text:
                    raise AssertionError(text)
                assert all(style != "good" for part, style in line if part == "not assessed")
            assert {
                style for line in to_table.table(report, look) for part, style in line if part == "FIXED"
            } == {"good"}
    assert any("nobody has assessed what runs" in row for row in rows(report))
    assert not any("nothing is known against" in row for row in rows(report))


def test_who_said_that_it_is_good_is_named() -> None:
    report = fleets.four().report
    (good,) = (one for one in report.findings if one.assessment.state == "fixed")
    assert {one.author for one in good.assessment.advisories} == {"security@example"}
    shown = [plain(line) for line in to_table.write(report, TableOptions(whole=True))]
    at = shown.index("SAID TO BE FIXED, OR NOT AFFECTED")
    assert shown[at + 1].startswith(
        "  1 container: CVE-2026-1505: fixed, 2026-11-21T10:00:00.000000Z by security@example (unsigned)"
    )


def test_names_are_cleaned_before_they_are_fitted() -> None:
    found = rows(story(name="\x1b[2J" * 10))
    assert max(map(len, found)) <= table_layout.WIDTH
    assert "\x1b" not in "".join(found)


def test_wide_characters_take_two_columns() -> None:
    found = rows(story(name="東京" * 3))
    assert len({columns(row[: row.index("golftrack:1")]) for row in found if "golftrack:1" in row}) == 1


def test_problems_are_counted() -> None:
    report = AuditReport((), (Unseen("docker", "x"),))
    assert reports.summary(report) == "0 containers; 1 problem: something could not be seen"
    assert lines(report)[:2] == ["PROBLEMS", "  docker: x"]


def test_an_empty_report_names_what_was_asked() -> None:
    report = AuditReport((), (), sources=("podman", "file:a.json"))
    assert lines(report) == ["0 containers in podman, file:a.json"]


def test_a_template_is_no_container_that_runs() -> None:
    waiting = sighted(f"{APP}:1", name="cronjob/backup/main", runs=False)
    report = story(waiting)
    assert any("(does not run)" in row for row in rows(report))
    document: Any = reports.as_values(report)
    assert [one["runs"] for one in document["containers"] if one["name"] == waiting.name] == [False]


def test_of_thousands_of_statements_the_worst_are_shown() -> None:
    registries = FakeRegistries()
    image = registries.at(APP).image("one", "1")
    publish.attach_statements(
        registries,
        publish.find_image(registries, Reference.parse(f"{APP}:1")),
        [publish.NewStatement(f"CVE-{number:04}", "affected", "me", START) for number in range(2000)],
        new_queries=lambda: RegistryQueries(registries),
    )
    seen = sighted(f"{APP}:1", claim(image.manifest, APP), image_id(image.config), name="web")
    report = audit([Listed(seen)], RegistryQueries(registries))
    text = lines(report)
    assert sum("affected" in line for line in text) == 10
    assert "  and 1990 statements more; --no-trunc shows all" in text
    named = "CVE-0000, CVE-0001, CVE-0002, CVE-0003, CVE-0004 and 1995 more"
    advice = " ".join(" ".join(text).split())
    assert f"-> stop it or shield it: no fixed image is named for {named}" in advice
    assert sum("CVE-1999" in line for line in lines(report, whole=True)) == 1
