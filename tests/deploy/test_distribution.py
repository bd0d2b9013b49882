"""The wheel and the sdist: the same bytes from the same source, with all that they need."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
PARTS = (
    "src",
    "docs",
    "deploy",
    "tools",
    "requirements",
    "pyproject.toml",
    "Makefile",
    "README.md",
    "LICENSE",
)
"""A part of the source tree that is enough to build from."""


def copied(directory: Path) -> Path:
    """Return a copy of the source."""
    directory.mkdir()
    for name in PARTS:
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(SOURCE / name, directory / name)
    return directory


def build(source: Path, destination: Path, *kinds: str) -> dict[str, str]:
    """Build as ``make dist`` does; return the name and the hash of each file."""
    chosen = [word for kind in kinds for word in ("-t", kind)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(destination), *chosen]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in destination.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    directory = tmp_path_factory.mktemp("dist")
    return directory / "dist", build(copied(directory / "source"), directory / "dist", "sdist", "wheel")


@pytest.mark.long
def test_a_second_build_has_the_same_bytes(built: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    again = copied(tmp_path / "elsewhere")
    for path in again.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)  # as with another umask
        os.utime(path, (1, 1))
    hashes = build(again, tmp_path / "dist", "sdist", "wheel")
    assert len(hashes) == 2
    assert hashes == built[1]


def test_the_sdist_makes_the_same_wheel(built: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    (sdist,) = built[0].glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    hashes = build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "dist", "wheel")
    assert hashes.items() <= built[1].items()


def test_the_wheel_has_the_whole_package_and_nothing_else(built: tuple[Path, dict[str, str]]) -> None:
    (wheel,) = built[0].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {str(path.relative_to(SOURCE / "src")) for path in (SOURCE / "src").rglob("*") if path.is_file()}
    assert names == {name for name in there if "__pycache__" not in name}
    assert {"digestry/py.typed", "digestry/__main__.py"} <= names


def test_the_wheel_runs_from_one_file(built: tuple[Path, dict[str, str]]) -> None:
    """The package is pure Python, and reads no file of its own by path."""
    (wheel,) = built[0].glob("*.whl")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "digestry", "version"],
        env={**os.environ, "PYTHONPATH": str(wheel)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"digestry {wheel.name.split('-')[1]}"
