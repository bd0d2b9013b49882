"""The engines that pages' commands use, each with a storage of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.engines import docker_engine, runtime
from tests.support import REQUIRED


class Engines:
    """The programs of this machine that pages' commands call, started when the first page needs them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._found: dict[str, dict[str, str] | None] = {}

    def environment(self, name: str) -> dict[str, str] | None:
        """Return the variables with which ``name`` works here, None if it does not."""
        if name not in self._found:
            try:
                self._found[name] = self._start(name)
            except pytest.skip.Exception:
                self._found[name] = None
        return self._found[name]

    def _start(self, name: str) -> dict[str, str] | None:
        if name == "docker":
            return {"DOCKER_HOST": self._stack.enter_context(docker_engine()).environment["DOCKER_HOST"]}
        if shutil.which(name) is None:
            if REQUIRED:
                pytest.fail(f"needs {name} (DIGESTRY_REQUIRE_PEERS=1)", pytrace=False)
            return None
        return self._podman() if name == "podman" else {}

    def _podman(self) -> dict[str, str]:
        storage = self._directory / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{self._directory}/graph"\n'
            f'runroot = "{self._directory}/run"\n'
        )
        containers = self._directory / "containers.conf"
        containers.write_text(
            f'[engine]\ncgroup_manager = "cgroupfs"\nruntime = {json.dumps(runtime())}\n'
            f'tmp_dir = "{self._directory}/tmp"\n'
        )
        return {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(containers)}

    def close(self) -> None:
        """Stop what was started."""
        self._stack.close()


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """The engines for all pages of a process."""
    found = Engines(tmp_path_factory.mktemp("engines"))
    yield found
    found.close()
