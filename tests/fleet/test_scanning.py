"""The scanning of what runs: by a scanner that a test wrote, in a process of its own."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry.config import load
from tests.advisories.test_scanner_reports import openssl, trivy
from tests.cli.test_layer_advisories import push
from tests.cli.test_scan import SCANNER
from tests.fleet.support import SimulatedAgent, judged, runs
from tests.support import start_registry, wait_for_line, wait_until


def configured(tmp_path: Path, scanner: str, **more: object) -> Path:
    values = {"scanner": scanner, "every": "1h", **more}
    lines = "".join(f"{key.replace('_', '-')} = {json.dumps(value)}\n" for key, value in values.items())
    path = tmp_path / "registry.toml"
    path.write_text(f"[scan]\n{lines}")
    return path


@pytest.mark.long
def test_what_runs_is_scanned_once(tmp_path: Path) -> None:
    (tmp_path / "scanner.py").write_text(SCANNER)
    (tmp_path / "report.json").write_text(json.dumps(trivy(openssl(), openssl("CVE-2", Severity="LOW"))))
    counted = tmp_path / "counted"
    scan = f"{shlex.quote(sys.executable)} {tmp_path}/scanner.py $0 {tmp_path}/report.json"
    counting = f"echo x >>{counted}; exec {scan}"
    scanner = f"sh -c {shlex.quote(counting)} {{layout}}"
    server = start_registry(
        tmp_path / "root", "--config", str(configured(tmp_path, scanner, severity="high"))
    )
    try:
        runs_ = push(server, "team/app", "1", b"runs")
        push(server, "team/app", "2", b"does not run")
        SimulatedAgent(server, "h1").start({"a": f"team/app:1@{runs_}", "b": f"team/app:1@{runs_}"})
        judged(server, {"affected": 2})
        assert runs(server)[0]["verdict"]["vulnerabilities"] == ["CVE-1"]
        assert counted.read_text() == "x\n"
    finally:
        server.stop()


@pytest.mark.long
def test_no_scanner_is_a_sentence_in_the_log(tmp_path: Path) -> None:
    server = start_registry(tmp_path / "root", "--config", str(configured(tmp_path, "grype")))
    try:
        wait_for_line(server.log, "what runs is not scanned: grype is not on the PATH")
    finally:
        assert server.stop() == 0


@pytest.mark.long
def test_a_scan_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    hangs = f"echo $$ >{started}; sleep 1000 & wait"
    scanner = f"sh -c {shlex.quote(hangs)} {{layout}}"
    path = configured(tmp_path, scanner, timeout_seconds=5)
    server = start_registry(tmp_path / "root", "--config", str(path))
    try:
        digest = push(server, "team/app", "1", b"runs")
        SimulatedAgent(server, "h1").start({"a": f"team/app:1@{digest}"})
        wait_for_line(server.log, "did not end within 5 s")
        process = Path("/proc") / started.read_text().strip()
        wait_until(lambda: not process.exists(), what="the end of the scanner")
    finally:
        server.stop()


@pytest.mark.parametrize("line", ['every = "1"', "memory = 0", 'severity = "bad"', "when = 3"])
def test_what_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(f"[scan]\n{line}\n")
    with pytest.raises(InvalidConfiguration):
        load(path, {"root": tmp_path})
    path.write_text('[scan]\nevery = "off"\n')
    assert load(path, {"root": tmp_path}).scan.every is None
