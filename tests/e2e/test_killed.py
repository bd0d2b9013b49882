"""SIGKILL, again and again, to the registry that a real docker pushes to while it collects."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.crash.checks import check_files, check_journal, check_usage
from tests.e2e.engines import Engine
from tests.e2e.test_docker import build, digests_of, forget
from tests.support import RegistryServer, free_port, start_registry

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("docker")]

SECONDS = float(os.environ.get("DIGESTRY_KILL_SECONDS", "8"))
"""How long it goes on: an hour by hand is ``DIGESTRY_KILL_SECONDS=3600``."""

_CONFIGURATION = """
[collection]
every = "0s"
lease = "30s"
untagged = "0s"
"""


class _Mortal:
    """A registry that is killed after some random time, and started again at once."""

    def __init__(self, root: Path, config: Path) -> None:
        self._arguments = (root, "--config", str(config))
        self._port = free_port()
        self._random = random.Random(3)
        self.server = self._start()
        self.deaths = 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._haunt, daemon=True)
        self._thread.start()

    def _start(self) -> RegistryServer:
        root, *rest = self._arguments
        return start_registry(Path(root), *map(str, rest), port=self._port)

    def _haunt(self) -> None:
        while not self._enough.wait(self._random.uniform(0.2, 3.0)):
            self.server.kill()
            self.deaths += 1
            self.server = self._start()

    def rest(self) -> RegistryServer:
        """No more of it; the registry that runs."""
        self._enough.set()
        self._thread.join(60)
        return self.server


def test_what_docker_was_told_is_there(docker: Engine, tmp_path: Path) -> None:
    config = tmp_path / "registry.toml"
    config.write_text(_CONFIGURATION)
    mortal = _Mortal(tmp_path / "root", config)
    name = f"{mortal.server.host}/golftrack"
    acknowledged: dict[str, str] = {}
    refused = number = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or not acknowledged:
        number += 1
        tag = f"{name}:{number % 7}"
        # Some layers are new, some are those of an image before; each tag moves again and again.
        more = [f"ENV N={number}", f"RUN head -c {300_000 + number} /dev/urandom > /r{number % 5}"]
        build(docker, tag, f"image {number}", *more)
        done = docker.attempt("push", tag)
        if done.returncode == 0:
            acknowledged[tag] = done.stdout.rpartition("digest: ")[2].split()[0]
        else:
            refused += 1
            acknowledged.pop(tag, None)  # it may be the one before, or this one
        assert time.monotonic() < end + 120, "no push got through"
    server = mortal.rest()
    print(f"{number} pushes, {refused} of them refused, {mortal.deaths} kills")
    assert mortal.deaths >= 2
    try:
        for tag, digest in acknowledged.items():
            forget(docker, tag)
            docker("pull", "--quiet", f"{name}@{digest}")
            docker("pull", "--quiet", tag)
            assert digests_of(docker, tag) == [digest], (tag, mortal.deaths, refused)
        assert server.request("GET", f"/v2/golftrack/manifests/{Digest.of(b'x')}").status == 404
    finally:
        server.stop()
    check_files(server.root)
    check_journal(server.root)
    check_usage(server.root)
