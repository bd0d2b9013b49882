"""Questions before something is removed, asked on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support import PATIENCE, digestry, run_digestry


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("y", 0)])
def test_prune_asks_on_a_terminal(tmp_path: Path, answer: str, left: int) -> None:
    environment = {**os.environ, "DIGESTRY_HOME": str(tmp_path / "home")}
    (tmp_path / "app").mkdir()
    for content in ("one", "two"):
        (tmp_path / "app" / "file").write_text(content)
        run_digestry("pack", tmp_path / "app", "-t", "app:1", env=environment)
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            digestry("prune"),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        os.write(ours, f"{answer}\n".encode())
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0, said
    assert ("nothing was removed" in said) == (answer == "n")
    untagged = run_digestry("images", "--filter", "tag=", "--quiet", env=environment).stdout.split()
    assert len(untagged) == left
