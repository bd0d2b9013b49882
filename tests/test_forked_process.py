"""A forked command is the process that an interpreter of its own would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked_process import forkable
from tests.support import digestry, run_digestry, running_registry


@pytest.mark.parametrize(
    "arguments", [("version",), ("no-such-command",), ("config", "set"), ("images", "--format", "json")]
)
def test_it_says_and_returns_the_same(arguments: tuple[str, ...], tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "DIGESTRY_HOME": str(tmp_path)}
    own = subprocess.run(digestry(*arguments), env=environment, capture_output=True, text=True, check=False)
    forked = run_digestry(*arguments, env=environment)
    assert (forked.returncode, forked.stdout, forked.stderr) == (own.returncode, own.stdout, own.stderr)


def test_its_environment_directory_and_umask_are_those_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIGESTRY_HOME", "home")
    before = os.umask(0o027)
    try:
        assert run_digestry("config", "set", "registry", "here.example").returncode == 0
    finally:
        os.umask(before)
    assert run_digestry("config", "get", "registry").stdout == "here.example\n"
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o750
    elsewhere = run_digestry("config", "get", "registry", env={"DIGESTRY_HOME": str(tmp_path / "other")})
    assert "here.example" not in elsewhere.stdout


def test_it_reads_its_standard_input(tmp_path: Path) -> None:
    done = run_digestry("audit", "--source", "file:-", env={"HOME": str(tmp_path)}, given="[]")
    assert "0 containers" in done.stdout


@pytest.mark.long
def test_it_ends_by_a_signal_in_a_session_of_its_own() -> None:
    with running_registry() as server:
        assert os.getsid(server.process.pid) == server.process.pid
        assert server.process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.01)
        server.kill()
        assert server.process.wait() == server.process.poll() == -signal.SIGKILL


def test_an_interpreter_that_would_be_another_one_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    assert forkable(None)
    assert forkable({})
    for name, text in (("PYTHONIOENCODING", "latin-1"), ("LC_ALL", "de_DE@euro"), ("LD_PRELOAD", "x.so")):
        assert not forkable({name: text})
    assert forkable({"PYTHONPATH": os.pathsep.join(sys.path)})
