"""The reports of ``admission test``: SARIF and JUnit, well-formed and complete."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.support import RegistryServer, run_digestry

MANIFESTS = """\
apiVersion: v1
kind: Pod
metadata: {{name: "one"}}
spec:
  containers:
  - name: c
    image: {pinned}
  - name: d
    image: {tagged}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
---
apiVersion: v1
kind: Pod
metadata: {{name: two}}
spec:
  initContainers:
  - name: i
    image: {exempt}
  containers:
  - name: c
    image: {gone}
"""
FAULTY = "apiVersion: v1\nkind: Pod\nmetadata: {name: three}\nspec: {containers: [{name: c, image: 12}]}\n"
UNKNOWN = (
    "apiVersion: z.io/v1\nkind: Other\nmetadata: {name: four}\n"
    "spec: {template: {spec: {containers: [{name: c, image: r.example/a}]}}}\n"
)


@pytest.fixture
def place(registry: RegistryServer, tmp_path: Path) -> Path:
    digest = registry.push_image("reports/app", "1", b"reports")
    registry.push_image("reports/old", "1", b"reports old")
    name = f"{registry.host}/reports"
    (tmp_path / "m.yaml").write_text(
        MANIFESTS.format(
            pinned=f"{name}/app@{digest}",
            tagged=f"{name}/app:1",
            exempt=f"{name}/old:1",
            gone=f"{name}/app:gone",
        )
    )
    (tmp_path / "admission.toml").write_text(
        f'registries = ["{registry.host}"]\n[default]\nmoved = "allow"\nnot-pinned = "warn"\n'
        f'missing = "deny"\n[[exempt]]\nimages = ["{name}/old"]\nconditions = ["not-pinned"]\n'
        'reason = "is [replaced] {soon}"\nuntil = 2999-01-01\n'
    )
    return tmp_path


def outcome_of(place: Path, *words: str) -> tuple[int, str]:
    policy = ("--policy", place / "admission.toml", "--namespace", "shop")
    done = run_digestry("admission", "test", place / "m.yaml", *policy, *words)
    return done.returncode, done.stdout


def sarif(place: Path) -> tuple[int, dict[str, Any]]:
    code, text = outcome_of(place, "--format", "sarif")
    (run,) = json.loads(text)["runs"]
    return code, run


def line_of(result: dict[str, Any]) -> int:
    return int(result["locations"][0]["physicalLocation"]["region"]["startLine"])


def test_each_finding_is_a_result_at_its_line(place: Path) -> None:
    code, run = sarif(place)
    assert code == 1
    found = {(each["ruleId"], each["level"], line_of(each)) for each in run["results"]}
    assert found == {
        ("not-pinned", "warning", 9),
        ("not-pinned", "note", 21),
        ("not-pinned", "warning", 24),
        ("missing", "error", 24),
    }
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])
    assert run["invocations"][0]["executionSuccessful"] is True
    (suppressed,) = [each for each in run["results"] if "suppressions" in each]
    assert line_of(suppressed) == 21
    # Brackets make no link, and braces no placeholder.
    assert "is \\[replaced\\] {{soon}}" in suppressed["suppressions"][0]["justification"]


def test_a_result_is_the_same_one_at_another_line(place: Path) -> None:
    def prints() -> set[str]:
        _, run = sarif(place)
        return {each["partialFingerprints"]["digestryManifest/v1"] for each in run["results"]}

    before = prints()
    assert len(before) == 4
    file = place / "m.yaml"
    file.write_text(f"# a line more\n\n{file.read_text()}")
    assert prints() == before


def test_what_was_not_looked_at_or_is_invalid(place: Path) -> None:
    (place / "m.yaml").write_text(f"{FAULTY}---\n{UNKNOWN}")
    code, run = sarif(place)
    assert code == 1
    assert [(each["ruleId"], each["level"], line_of(each)) for each in run["results"]] == [
        ("invalid-object", "error", 1)
    ]
    invocation = run["invocations"][0]
    assert invocation["executionSuccessful"] is False
    assert "Other (z.io)" in invocation["toolExecutionNotifications"][0]["message"]["text"]


def test_a_test_case_for_each_image_of_each_object(place: Path) -> None:
    code, printed = outcome_of(place, "--output", str(place / "out.xml"))
    assert code == 1
    assert "DENY" in printed  # people see the text
    suite = ET.fromstring((place / "out.xml").read_text())[0]  # noqa: S314 - ours
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    outcome = {
        (case.get("name") or "").rpartition("/")[2]: [part.tag for part in case if part.tag != "system-out"]
        for case in suite
    }
    pinned = next(name for name in outcome if "@sha256" in name)
    assert outcome == {pinned: [], "app:1": ["skipped"], "old:1": [], "app:gone": ["failure"]}
    code, _ = outcome_of(place, "--output", str(place / "out.xml"), "--fail-on", "warn")
    suite = ET.fromstring((place / "out.xml").read_text())[0]  # noqa: S314 - ours
    assert (suite.get("failures"), suite.get("skipped")) == ("2", "0")


def test_what_is_not_known_passes_in_no_build_server(place: Path, registry: RegistryServer) -> None:
    name = "127.0.0.1:1/nothing/app:1"
    policy = (
        (place / "admission.toml")
        .read_text()
        .replace(f'"{registry.host}"]', f'"{registry.host}", "127.0.0.1:1"]')
    )
    (place / "admission.toml").write_text(policy)
    (place / "m.yaml").write_text(f"{UNKNOWN}---\n{FAULTY.replace('12', name)}")
    code, _ = outcome_of(place, "--output", str(place / "out.xml"), "--timeout", "5")
    assert code == 3
    suite = ET.fromstring((place / "out.xml").read_text())[0]  # noqa: S314 - ours
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("2", "2", "0")


def test_the_text_is_not_written_to_a_file(place: Path) -> None:
    done = run_digestry("admission", "test", place / "m.yaml", "--output", place / "out.txt")
    assert done.returncode == 2
    assert "choose another --format" in done.stderr
