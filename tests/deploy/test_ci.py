"""The GitHub Action and the GitLab template: their own commands, as a runner calls them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import RegistryServer, run_digestry

CI = Path(__file__).parents[2] / "deploy" / "ci"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def inventory(registry: RegistryServer, tmp_path: Path, home: Path) -> Path:
    """Two containers, of which one runs what an advisory calls affected."""
    bad, good = (registry.push_image("ci/app", tag, tag.encode()) for tag in ("bad", "good"))
    name = f"{registry.host}/ci/app@{bad}"
    stated = run_digestry(
        *("advisory", "add", name, "--status", "affected", "--id", "CVE-2026-1", "--fixed-by", str(good)),
        env={**os.environ, "DIGESTRY_HOME": str(home)},
    )
    assert stated.returncode == 0, stated.stderr
    file = tmp_path / "containers.csv"
    rows = [
        f"node,{what},{registry.host}/ci/app:{what},{digest}"
        for what, digest in (("bad", bad), ("good", good))
    ]
    file.write_text("\n".join(["host,name,reference,digest", *rows]) + "\n")
    return file


def call(script: str, directory: Path, home: Path, shell: list[str], **variables: str) -> tuple[int, str]:
    """Run a script as a runner does; return its exit code and its standard error."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables, "DIGESTRY_HOME": str(home)}
    done = subprocess.run(
        [*shell, script], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def github_step(name: str, action: str = "github") -> dict[str, Any]:
    content = yaml.safe_load((CI / action / "action.yml").read_text())
    (found,) = [step for step in content["runs"]["steps"] if step["name"] == name]
    return dict(found)


@pytest.mark.long
def test_the_action_writes_the_report_that_it_uploads(inventory: Path, tmp_path: Path, home: Path) -> None:
    step = github_step("Audit")
    inputs = {"sources": f"file:{inventory}\n", "fail-on": "affected", "sarif": "digestry.sarif"}
    variables = {
        name: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: inputs[found[1]], value)
        for name, value in step["env"].items()
    }
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
    code, errors = call(step["run"], tmp_path, home, shell, **variables)
    assert (code, "1 vulnerable, 1 fixed" in errors) == (1, True), errors
    (run,) = json.loads((tmp_path / "digestry.sarif").read_text())["runs"]
    assert [result["ruleId"] for result in run["results"]] == ["CVE-2026-1"]
    assert github_step("Show")["with"]["sarif_file"] == step["env"]["SARIF"]
    assert call(step["run"], tmp_path, home, shell, **{**variables, "FAIL_ON": "none"})[0] == 0


@pytest.mark.long
def test_an_input_of_the_action_is_no_command(tmp_path: Path, home: Path) -> None:
    step = github_step("Audit")
    assert "${{" not in step["run"]
    variables = {"SOURCES": "file:x; touch made $(touch made)", "FAIL_ON": "affected", "SARIF": "s.sarif"}
    code, _ = call(step["run"], tmp_path, home, ["bash", "-eo", "pipefail", "-c"], **variables)
    assert code == 3
    assert not (tmp_path / "made").exists()


@pytest.mark.long
def test_the_template_writes_the_report_that_it_names(inventory: Path, tmp_path: Path, home: Path) -> None:
    job = yaml.safe_load((CI / "gitlab.yml").read_text())[".digestry-audit"]
    script = "\n".join(job["script"])
    second = inventory.with_name("second.csv")
    second.write_text(inventory.read_text().replace("node,", "another,"))
    variables = {**job["variables"], "DIGESTRY_SOURCES": f"file:{inventory} file:{second}"}
    code, errors = call(script, tmp_path, home, ["sh", "-ec"], **variables)
    assert (code, "2 vulnerable, 2 fixed" in errors) == (1, True), errors
    report = ET.fromstring((tmp_path / job["artifacts"]["reports"]["junit"]).read_text())  # noqa: S314 - ours
    cases = list(report.iter("testcase"))
    assert len(cases) == 4
    assert sum(case.find("failure") is not None for case in cases) == 2
    assert job["artifacts"]["when"] == "always"


@pytest.fixture
def manifests(registry: RegistryServer, tmp_path: Path) -> Path:
    """Two deployments, of which one would be denied, and their policy."""
    digest = registry.push_image("ci/admitted", "1", b"ci admitted")
    directory = tmp_path / "deploy manifests"
    directory.mkdir()
    name = f"{registry.host}/ci/admitted"
    for file, image in (("bad.yaml", f"{name}:1"), ("good.yaml", f"{name}@{digest}")):
        (directory / file).write_text(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app}\nspec:\n  template:\n    spec:\n"
            f"      containers:\n      - name: c\n        image: {image}\n"
        )
    policy = f'registries = ["{registry.host}"]\n[default]\nmoved = "allow"\nnot-pinned = "deny"\n'
    (tmp_path / "admission.toml").write_text(policy)
    return directory


@pytest.mark.long
def test_the_action_for_manifests_reports_the_line(manifests: Path, tmp_path: Path, home: Path) -> None:
    step = github_step("Test", "github-admission")
    assert "${{" not in step["run"]
    variables = {
        "MANIFESTS": f"{manifests.name}\n",
        "POLICY": "admission.toml",
        "NAMESPACE": "default",
        "FAIL_ON": "deny",
        "SARIF": "a.sarif",
    }
    assert set(variables) == set(step["env"])
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
    code, errors = call(step["run"], tmp_path, home, shell, **variables)
    assert code == 1, errors
    (run,) = json.loads((tmp_path / "a.sarif").read_text())["runs"]
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("not-pinned", "error")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "deploy%20manifests/bad.yaml"
    assert place["region"]["startLine"] == 9
    assert github_step("Show", "github-admission")["with"]["sarif_file"] == step["env"]["SARIF"]


@pytest.mark.long
def test_the_template_for_manifests_writes_the_report_that_it_names(
    manifests: Path, tmp_path: Path, home: Path
) -> None:
    job = yaml.safe_load((CI / "gitlab.yml").read_text())[".digestry-admission-test"]
    manifests.rename(tmp_path / "deploy")
    code, errors = call("\n".join(job["script"]), tmp_path, home, ["sh", "-ec"], **job["variables"])
    assert code == 1, errors
    report = ET.fromstring((tmp_path / job["artifacts"]["reports"]["junit"]).read_text())  # noqa: S314 - ours
    failed = {case.get("classname"): case.find("failure") is not None for case in report.iter("testcase")}
    assert failed == {"deploy/bad.yaml": True, "deploy/good.yaml": False}
