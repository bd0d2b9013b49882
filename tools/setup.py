"""Makes the virtual environment that the Makefile uses, from the hash-checked lock.

Needs nothing but Python itself: ``python3 tools/setup.py .venv``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
HERE = Path(__file__).resolve().parent.parent


def run(*command: str | Path, check: bool = True, quiet: bool = False) -> bool:
    """Runs a command in the project's folder; whether it succeeded."""
    words = [str(part) for part in command]
    return subprocess.run(words, check=check, cwd=HERE, capture_output=quiet).returncode == 0


def make_environment(directory: Path) -> Path:
    """Creates the environment with pip in it; returns its interpreter."""
    python = directory / "bin" / "python"
    venv = (sys.executable, "-m", "venv", "--clear")
    if run(*venv, directory, check=False, quiet=True):
        return python
    # Debian ships Python without ensurepip: use the pip that is there, if any, to put one in.
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "pip")
    if run(*venv, "--without-pip", directory, check=False) and run(*pip, check=False):
        return python
    sys.exit(
        "digestry: this Python can make no virtual environment with pip.\n"
        "  hint: on Debian and Ubuntu, `apt-get install python3-venv`, then try again"
    )


def main() -> None:
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"digestry: Python {'.'.join(map(str, OLDEST))} or later is needed, this is {found}.\n"
            "  hint: make PYTHON=python3.12 …"
        )
    directory = (HERE / sys.argv[1]) if len(sys.argv) > 1 else HERE / ".venv"
    print("setting up .venv from requirements/dev.txt (hash-checked) …", flush=True)
    python = make_environment(directory)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--require-hashes", "--requirement", "requirements/dev.txt")
    run(*pip, "--no-deps", "--no-build-isolation", "--editable", ".")
    # pip compiles what it installs, but not a work tree: without this, where bytecode is not written
    # (PYTHONDONTWRITEBYTECODE), every start would compile anew.
    run(python, "-m", "compileall", "-q", "src", check=False)
    (directory / ".ready").touch()


if __name__ == "__main__":
    main()
