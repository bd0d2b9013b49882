"""The alert rules and the dashboard of the fleet: as Prometheus reads them, and of metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from digestry.admission.metrics import AdmissionMetrics
from digestry.catalog.fleet.counts import NAME
from digestry.catalog.job_states import JobState
from digestry.catalog.transparency.reads import LogState
from digestry.registry.observability.fleet_metrics import fleet_metrics
from digestry.registry.observability.log_metrics import log_metrics
from tests.support import program

DEPLOY = Path(__file__).parents[2] / "deploy"
OTHERS = {"digestry_requests_total"}


def known() -> set[str]:
    """Return the names of all metrics of a fleet."""
    counts: dict[str, Any] = {"containers": {}, "images": {}, "agents": {}, "silent_containers": 0}
    counts["oldest_affected"] = 1
    return {metric.name for metric in fleet_metrics([JobState(NAME, 1, 1, counts)])} | OTHERS


def log_known() -> list[Metric]:
    return list(log_metrics(LogState("x", 1, 0, None), [], ["w"], [1]))


def named(text: str) -> set[str]:
    return set(re.findall(r"\bdigestry_[a-z_]+", text))


def test_counts_of_another_version_are_no_metrics() -> None:
    assert list(fleet_metrics([JobState(NAME, 1, 1, {"other": 1}), JobState("scrub", 1, 1, {})])) == []


def test_the_metrics_of_rules_dashboard_and_page_exist() -> None:
    rules = (DEPLOY / "prometheus" / "fleet-alerts.yml").read_text()
    board = json.loads((DEPLOY / "grafana" / "fleet.json").read_text())
    asked = "\n".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    page = (DEPLOY.parent / "docs" / "observability.md").read_text()
    assert named(asked) <= known()
    assert named(re.sub(r"#.*", "", rules)) <= known()
    assert known() - OTHERS <= named(page)
    log_rules = (DEPLOY / "prometheus" / "log-alerts.yml").read_text()
    of_log = {name for name in named(page) if name.startswith("digestry_log_")}
    assert of_log == {
        f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in log_known()
    }
    assert named(re.sub(r"#.*|description:.*", "", log_rules)) <= of_log
    # All nodes show the same numbers.
    assert not re.search(r"\bsum\b[a-z() ]*\(digestry_fleet", rules + asked)


def test_the_metrics_of_admission_are_those_of_its_page() -> None:
    rules = (DEPLOY / "prometheus" / "admission-alerts.yml").read_text()
    page = named((DEPLOY.parent / "docs" / "admission.md").read_text())
    made = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in AdmissionMetrics().registry.collect()
    }
    assert page == made
    assert {name.removesuffix("_bucket") for name in named(rules)} <= made


@pytest.mark.parametrize(
    "line",
    [
        (command, "rules", f"{name}{suffix}.yml")
        for name in ("fleet-alerts", "log-alerts", "admission-alerts")
        for command, suffix in (("check", ""), ("test", "-test"))
    ],
)
def test_prometheus_reads_the_rules(line: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program("promtool"), *line], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
