"""A real containerd: what its own client prints of a container, and what is read from it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.fleet.sighting import Sighting
from digestry.fleet.sources.file import FileSource
from tests.e2e.engines import Engine, docker_archive, root_file_system
from tests.support import lacking, program

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.peer("containerd")]

_START_SECONDS = 20


@pytest.fixture(scope="module")
def ctr() -> Iterator[Engine]:
    client, daemon = program("ctr"), program("containerd")
    if os.geteuid() != 0:
        lacking("containerd", "an engine of the test's own must be started as root")
    with tempfile.TemporaryDirectory(prefix="digestry-containerd-", ignore_cleanup_errors=True) as name:
        config = Path(name, "config.toml")
        config.write_text(
            f'version = 2\nroot = "{name}/root"\nstate = "{name}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{name}/containerd.sock"\n'
        )
        with Path(name, "log").open("wb") as log:
            process = subprocess.Popen([daemon, "--config", config], stdout=log, stderr=log)
        engine = Engine((client, "--address", f"{name}/containerd.sock", "--namespace", "k8s.io"))
        try:
            end = time.monotonic() + _START_SECONDS
            while engine.attempt("version").returncode != 0:
                if process.poll() is not None or time.monotonic() > end:
                    lacking("containerd", f"it does not start here:\n{Path(name, 'log').read_text()[-2000:]}")
                time.sleep(0.1)
            yield engine
        finally:
            process.terminate()
            process.wait(timeout=20)


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
