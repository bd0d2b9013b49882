"""Installs the real programs that come as wheels, each once: ``python3 tests/peers/wheels.py``.

A folder beside this file with a ``requirements.txt`` pins one program by its hash. What was installed is kept
where ``build.py`` keeps what it builds.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __package__ in {None, ""}:
    sys.path.insert(0, str(HERE.parent.parent))

from tests.peers.build import cache  # noqa: E402


def names() -> list[str]:
    """The programs that come as wheels."""
    return sorted(path.parent.name for path in HERE.glob("*/requirements.txt"))


def place(name: str) -> Path:
    """Where the program ``name`` is, once what the requirements pin now was installed."""
    pinned = hashlib.sha256((HERE / name / "requirements.txt").read_bytes()).hexdigest()
    return cache() / f"{name}-{pinned[:16]}" / "bin" / name


def install(name: str) -> Path:
    """Installs the program ``name`` unless that was done; where it is.

    Raises :class:`subprocess.CalledProcessError` if it cannot be had.
    """
    program = place(name)
    if not program.exists():
        made = program.parent.parent
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        command += [
            "--no-deps",
            "--require-hashes",
            f"--target={made}",
            "-r",
            str(HERE / name / "requirements.txt"),
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return program


def main() -> None:
    for name in names():
        print(f"{name}: {install(name)}")


if __name__ == "__main__":
    main()
