"""A real containerd: what its own client prints of a container, and what is read from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.fleet.sighting import Sighting
from digestry.fleet.sources.file import FileSource
from tests.e2e.engines import Engine, containerd_engine, docker_archive, root_file_system

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.peer("containerd")]


@pytest.fixture(scope="module")
def ctr() -> Iterator[Engine]:
    with containerd_engine() as engine:
        yield engine


def test_what_ctr_prints(ctr: Engine, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive("reg.example/app:1", [root_file_system()], "busybox", "sleep", "9"))
    ctr("images", "import", "--snapshotter=native", archive)
    for name in ("one", "two"):
        ctr("containers", "create", "--snapshotter=native", "reg.example/app:1", name)
    table, info = tmp_path / "table", tmp_path / "info.json"
    table.write_text(ctr("containers", "ls"))
    info.write_text("\n".join(ctr("containers", "info", name) for name in ("one", "two")))
    for path in (table, info):
        seen = [one for one in FileSource("f", str(path)).observe() if isinstance(one, Sighting)]
        assert [one.id for one in seen] == ["one", "two"]
        assert {one.reference for one in seen} == {"reg.example/app:1"}
        assert not any(one.claims for one in seen)
        assert all("may have moved" in one.remarks[0] for one in seen)
