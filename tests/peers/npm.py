"""Installs the real programs that come as npm packages, each once: ``python3 tests/peers/npm.py``.

A folder beside this file with a ``package-lock.json`` pins one by its hash. What was installed is kept where
``build.py`` keeps what it builds.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __package__ in {None, ""}:
    sys.path.insert(0, str(HERE.parent.parent))

from tests.peers.build import cache  # noqa: E402


def names() -> list[str]:
    """The programs that come as npm packages."""
    return sorted(path.parent.name for path in HERE.glob("*/package-lock.json"))


def place(name: str) -> Path:
    """Where the packages of ``name`` are, once what the lock file pins now was installed."""
    pinned = hashlib.sha256((HERE / name / "package-lock.json").read_bytes()).hexdigest()
    return cache() / f"{name}-{pinned[:16]}" / "node_modules"


def install(name: str) -> Path:
    """Installs the packages of ``name`` unless that was done, without running any of their scripts; where
    they are.

    Raises :class:`subprocess.CalledProcessError` if they cannot be had.
    """
    packages = place(name)
    if not packages.exists():
        packages.parent.mkdir(parents=True, exist_ok=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name / file, packages.parent / file)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=packages.parent, check=True, stdout=sys.stderr)
    return packages


def main() -> int:
    if shutil.which("npm") is None:
        print(
            "there is no npm on the PATH; the tests that need its packages will be skipped", file=sys.stderr
        )
        return 0
    for name in names():
        print(f"{name}: {install(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
