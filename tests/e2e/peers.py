"""The peers that are built from their modules (``tests/peers/build.py``)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.peers import build
from tests.support import lacking


def built(name: str) -> Path:
    """The path of a peer that was built before, or the end of the test: building takes minutes."""
    path = build.place(name)
    if not path.exists():
        if shutil.which("go") is None:
            pytest.skip(f"needs {name}: it was not built, and there is no Go to build it with")
        lacking(name, f"it was not built: run tests/peers/build.py {name}")
    return path
