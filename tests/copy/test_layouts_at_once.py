"""Two copies into one layout at the same time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from digestry.copy.layout import LayoutTarget
from digestry.file_locks import locked
from tests.support import run_digestry, start_digestry

IMAGE = "localhost:5000/app:1"
NAME = "org.opencontainers.image.ref.name"


def test_the_end_of_a_copy_leaves_the_lock_to_another_one(tmp_path: Path) -> None:
    target = LayoutTarget(tmp_path / "layout", "oci:layout")
    lock = tmp_path / "layout/.index.lock"
    with locked(lock):
        target.finish()
        assert lock.exists()
    target.finish()
    assert not lock.exists()


@pytest.mark.long
def test_copies_of_one_image_at_once_all_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGESTRY_HOME", str(tmp_path / "home"))
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a").write_bytes(b"content")
    packed = run_digestry("pack", tmp_path / "files", "--tag", IMAGE)
    assert packed.returncode == 0, packed.stderr
    for number in range(5):
        layout = tmp_path / f"layout{number}"
        copies = [start_digestry("copy", "-q", f"local:{IMAGE}", f"oci:{layout}:{tag}") for tag in "abcd"]
        assert [copy.wait(60) for copy in copies] == [0] * 4
        entries = json.loads((layout / "index.json").read_bytes())["manifests"]
        assert sorted(one["annotations"][NAME] for one in entries) == list("abcd")
