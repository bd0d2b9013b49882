"""The systemd unit and its user and directories, as systemd's own programs read them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from digestry.registry.config import load
from tests.support import program

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
MOST_EXPOSED = "20"
"""Tenths of what ``systemd-analyze security`` counts, from 0 to 100; a service without protection has 96."""


@pytest.fixture(
    params=["digestry.service serve", "digestry-agent.service agent", "digestry-follow.service follow"]
)
def unit(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a unit whose program is here."""
    name, command = str(request.param).split(" ")
    text = (UNITS / name).read_text()
    assert f"ExecStart=/opt/digestry/bin/digestry {command}" in text
    copy = tmp_path / name
    copy.write_text(text.replace("/opt/digestry/bin/digestry", sys.executable))
    return copy


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    command = [program("systemd-analyze"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_hardened(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_system_calls_of_its_jobs_are_allowed(unit: Path) -> None:
    """The maintenance process lowers its priority, and a server raises its limit of open files."""
    filters = [line for line in unit.read_text().splitlines() if line.startswith("SystemCallFilter=")]
    shown = analyze("syscall-filter", "@system-service", "@resources")
    assert shown.returncode == 0, shown.stderr
    assert "@resources" in shown.stdout
    assert not any("@resources" in line for line in filters)


def test_the_user_and_the_directories_can_be_made(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for tool, file in (("systemd-sysusers", "digestry.sysusers"), ("systemd-tmpfiles", "digestry.tmpfiles")):
        words = ["--create"] if tool == "systemd-tmpfiles" else []
        command = [program(tool), f"--root={root}", *words, str(UNITS / file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    users = (root / "etc/passwd").read_text()
    assert "digestry:x:" in users
    assert ":/var/lib/digestry:" in users
    assert (root / "var/lib/digestry").stat().st_mode & 0o777 == 0o700
    assert (root / "etc/digestry").stat().st_mode & 0o777 == 0o750


def test_the_example_configuration_is_read(tmp_path: Path) -> None:
    shutil.copy(UNITS.parent / "registry.toml", tmp_path)
    config = load(tmp_path / "registry.toml", {}, environment={})
    assert config.access.htpasswd == tmp_path / "users" / "htpasswd"
