"""Builds the real programs that come as Go modules, each once: ``python3 tests/peers/build.py [NAME …]``.

Each folder beside this file is a module whose ``go.mod`` pins one program (its ``tool`` line), or has a
small program of its own; ``go.sum`` pins every byte that is downloaded, and a file ``env`` has lines of
the environment that Go needs for it. What was built is kept in the folder ``DIGESTRY_PEERS_CACHE``, else
``~/.cache/digestry/peers``, by a hash of all that decides it.

Needs nothing but Python itself and Go.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
_OPTIONS = ("-p=2", "-trimpath", "-mod=readonly", "-ldflags=-s -w")


class NoGo(Exception):
    """There is no Go on this machine."""


def names() -> list[str]:
    """The programs that can be built."""
    return sorted(path.parent.name for path in HERE.glob("*/go.mod"))


def cache() -> Path:
    """Where what was built is kept; outside of the checkout."""
    named = os.environ.get("DIGESTRY_PEERS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(named) if named else Path(home) / "digestry" / "peers"


def place(name: str) -> Path:
    """Where the program ``name`` is, once it was built from what the module pins now."""
    decides = hashlib.sha256(repr(_OPTIONS).encode())
    for path in sorted((HERE / name).iterdir()):
        decides.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return cache() / f"{name}-{decides.hexdigest()[:16]}" / name


def version(name: str) -> str:
    """The version of the program ``name`` that its module pins."""
    lines = (HERE / name / "go.mod").read_text().splitlines()
    package = _package(name)
    pinned = [line.replace("require ", "").split() for line in lines if " v" in line and "=>" not in line]
    fitting = [words for words in pinned if package == words[0] or package.startswith(f"{words[0]}/")]
    return max(fitting, key=lambda words: len(words[0]))[1] if fitting else ""


def build(name: str) -> Path:
    """Builds the program ``name`` unless that was done; where it is.

    Raises :class:`NoGo`, and :class:`subprocess.CalledProcessError` for a build that fails.
    """
    target = place(name)
    if target.exists():
        return target
    go = shutil.which("go")
    if go is None:
        raise NoGo("there is no Go on the PATH")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent / "lock"):
        if not target.exists():
            made = target.with_name(f"{name}.new")
            command = [go, "build", *_OPTIONS, f"-o={made}", _package(name)]
            environment = {**os.environ, **_environment(name)}
            subprocess.run(command, cwd=HERE / name, env=environment, check=True, stdout=sys.stderr)
            made.replace(target)
    return target


def _package(name: str) -> str:
    for line in (HERE / name / "go.mod").read_text().splitlines():
        if line.startswith("tool "):
            return line.split()[1]
    return "."


def _environment(name: str) -> dict[str, str]:
    file = HERE / name / "env"
    lines = file.read_text().split() if file.exists() else []
    return dict(line.split("=", 1) for line in lines)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(wanted: list[str]) -> int:
    """Builds the programs ``wanted``, all if there are none; says how long each took."""
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        print(f"no such program: {', '.join(unknown)}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    for name in wanted or names():
        begun = time.monotonic()
        try:
            path = build(name)
        except NoGo as error:
            print(f"{name}: not built: {error}; the tests that need it will be skipped", file=sys.stderr)
            continue
        except subprocess.CalledProcessError as error:
            print(f"{name}: not built: go ended with {error.returncode}", file=sys.stderr)
            return 1
        print(f"{name} {version(name) or '(own)'}: {path} ({time.monotonic() - begun:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
