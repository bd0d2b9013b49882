"""``make demo`` plays the story to its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import run_digestry


@pytest.mark.long
def test_the_demo_without_an_engine(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DIGESTRY_")}
    done = run_digestry(
        "demo",
        "--engine",
        "none",
        env=environment | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("$ digestry log golftrack:1.5", "(exit code 1)", "VULNERABLE"):
        assert line in done.stdout
    assert list(tmp_path.glob("digestry-demo-*")) == []
