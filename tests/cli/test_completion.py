"""Help, man pages, and what shells complete: made of the commands themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from digestry.cli import exit_codes, main
from tests.cli.conftest import Run
from tests.support import PATIENCE, RegistryServer, digestry, program

MACROS = {".TH", ".SH", ".PP", ".TP", ".nf", ".fi"}


def test_help_of_a_command(run: Run) -> None:
    assert run("help").stdout == run("--help").stdout
    assert run("help", "index", "create").stdout == run("index", "create", "--help").stdout
    assert "Did you mean images" in run("help", "imags", status=exit_codes.USAGE).stderr
    assert "Did you mean create" in run("help", "index", "creat", status=exit_codes.USAGE).stderr
    assert "no commands of its own" in run("help", "images", "x", status=exit_codes.USAGE).stderr


def test_the_module_and_the_version(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "digestry", "-v"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == run("--version").stdout == run("version").stdout


def test_man_pages(run: Run, tmp_path: Path) -> None:
    run("completion", "install", "--prefix", tmp_path / "usr")
    pages = {path.name: path.read_text() for path in (tmp_path / "usr/share/man/man1").iterdir()}
    assert {f"digestry-{name}.1" for name in main._COMMANDS} <= set(pages)
    assert {"digestry.1", "digestry-index-create.1", "digestry-completion-install.1"} <= set(pages)
    for name, text in pages.items():
        for line in text.splitlines():
            assert not line.startswith(("'", ".")) or line.split()[0] in MACROS, (name, line)
            assert not re.search(r"\\[^-&efF]", line), (name, line)
            assert "\b" not in line
    assert "\\fBdigestry index create\\fR" in pages["digestry-index-create.1"]
    assert "\\-\\-annotation" in pages["digestry-index-create.1"]
    assert run("help", "--man", "ls").stdout == pages["digestry-ls.1"]


def test_what_is_installed(run: Run, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    done = run("completion", "install", "--no-man", **home)
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert [path.relative_to(tmp_path) for path in paths] == [
        Path(".local/share/bash-completion/completions/digestry"),
        Path(".local/share/zsh/site-functions/_digestry"),
        Path(".config/fish/completions/digestry.fish"),
    ]
    for path, shell in zip(paths, ("bash", "zsh", "fish"), strict=True):
        assert path.read_text() == run("completion", "show", shell).stdout
    assert not (tmp_path / ".local/share/man").exists()


# -- what bash completes --------------------------------------------------------------------------

_ASK = """
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
source {script}
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
COMPREPLY=()
_digestry_completion {program} 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


class Bash:
    """A shell that is asked what a line may go on with."""

    def __init__(self, run: Run, directory: Path) -> None:
        self._script = directory / "script"
        self._script.write_text(run("completion", "show", "bash").stdout)
        self._environment = {
            **os.environ,
            "DIGESTRY_HOME": str(directory / "home"),
            "DOCKER_CONFIG": str(directory / "docker"),
        }

    def __call__(self, line: str) -> list[str]:
        text = _ASK.format(script=self._script, line=f"digestry {line}", program=digestry()[0])
        done = subprocess.run(
            [program("bash"), "-c", text],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout.split()


@pytest.fixture
def bash(run: Run, tmp_path: Path) -> Bash:
    return Bash(run, tmp_path)


def test_commands_and_options(bash: Bash) -> None:
    assert bash("im") == ["images"]
    assert bash("index ") == ["add", "create", "remove"]
    assert bash("images --no") == ["--no-trunc"]
    assert bash("completion show z") == ["zsh"]
    assert {"login", "logout", "ls"} <= set(bash("l"))
    assert bash("nothing-like-that ") == []


def test_names_of_the_local_store(bash: Bash, run: Run, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    for tag in ("1.5", "1.6", "2.0"):
        run("pack", tmp_path / "app", "-t", f"localhost:1/team/app:{tag}")
    # Bash adds what follows the last colon of the line.
    assert bash("push localhost:1/team/app:1") == ["1.5", "1.6"]
    assert bash("rmi localhost:1/te") == ["1/team/app:1.5", "1/team/app:1.6", "1/team/app:2.0"]
    assert bash("tag localhost:1/team/app:2") == ["2.0"]
    run("config", "set", "registry", "localhost:1")
    assert bash("images team/app:2") == ["2.0"]


def test_names_of_a_registry(bash: Bash, run: Run, registry: RegistryServer) -> None:
    for tag in ("a1", "a2", "b"):
        registry.push_image("completion/app", tag)
    port = registry.host.rpartition(":")[2]
    assert bash(f"pull {registry.host}/completion/app:a") == ["a1", "a2"]
    assert bash(f"tags {registry.host}/completion/") == [f"{port}/completion/app"]
    run("config", "set", "registry", registry.host)
    assert bash("pull completion/app:b") == ["b"]
    assert bash("inspect completion/a") == ["completion/app"]


def test_a_registry_that_is_away_completes_nothing(bash: Bash) -> None:
    assert bash("pull 127.0.0.1:1/team/app:") == []
    assert bash("pull UPPER/team:") == []
