"""The signed log under kills: every checkpoint that was ever shown is the beginning of the last one."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from digestry.translog.checkpoints import Checkpoint, parse_checkpoint
from digestry.translog.merkle import leaf_hash, root_of
from digestry.translog.notes import parse_note
from digestry.translog.tiles import bundles_of, decode_bundle
from tests.e2e.peers import built
from tests.registry.test_transparency import LOG, checkpoint, keys_of
from tests.support import PATIENCE, RegistryServer, start_registry, wait_until
from tests.translog import second_opinion


class Watcher(threading.Thread):
    """Remembers each checkpoint that one of the servers shows, until it is stopped; asks every ``pause``
    seconds."""

    def __init__(self, servers: list[RegistryServer], *, pause: float = 0.005) -> None:
        super().__init__(daemon=True)
        self.servers = servers
        self._pause = pause
        self.seen: dict[int, set[Checkpoint]] = {}
        self._stop_now = threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(self._pause):
            for server in list(self.servers):
                with contextlib.suppress(OSError, Exception):
                    answer = server.request("GET", f"{LOG}/checkpoint")
                    if answer.status == 200:
                        found = parse_checkpoint(parse_note(answer.body).text)
                        self.seen.setdefault(found.size, set()).add(found)

    def stop(self) -> None:
        self._stop_now.set()
        self.join(PATIENCE)


def check(server: RegistryServer, seen: dict[int, set[Checkpoint]]) -> None:
    """Check that the log, which is at rest, continues each checkpoint that was seen: one for each size."""
    last = checkpoint(server).checkpoint
    leaves: list[bytes] = []
    for tile in bundles_of(last.size):
        leaves += map(leaf_hash, decode_bundle(tile, server.request("GET", f"{LOG}/{tile.path}").body))
    assert root_of(leaves) == last.root
    assert seen
    for size, found in seen.items():
        (one,) = found
        assert root_of(leaves[:size]) == one.root
    origin, (key, *_) = keys_of(server)
    second_opinion.whole(lambda path: _served(server, path), last.size, last.root)
    oldest = next(iter(seen[min(seen)]))
    line = [str(built("tlogverify")), f"http://{server.host}{LOG}", str(key), origin]
    line += [str(oldest.size), base64.b64encode(oldest.root).decode()]
    # It reads entry by entry: of tens of thousands on a busy machine, for minutes.
    patience = PATIENCE + last.size / 50
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=patience)
    assert done.returncode == 0, done.stderr


def _served(server: RegistryServer, path: str) -> bytes | None:
    answer = server.request("GET", f"{LOG}/{path}")
    return answer.body if answer.status == 200 else None


def push_until(servers: list[RegistryServer], ended: threading.Event, acknowledged: list[str]) -> None:
    """Push images to whichever server answers."""
    number = 0
    while not ended.is_set():
        number += 1
        server = random.choice(servers)
        with contextlib.suppress(OSError, AssertionError, Exception):
            server.push_image("killed/app", f"t{number % 50}", os.urandom(8))
            acknowledged.append(f"t{number % 50}")


@pytest.mark.long
@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.long)])
def test_a_server_that_is_killed_signs_one_history(tmp_path: Path, kills: int) -> None:
    root = tmp_path / "root"
    server = start_registry(root)
    port = server.port
    servers = [server]
    watcher, ended, acknowledged = Watcher(servers), threading.Event(), []  # type: ignore[var-annotated]
    pushing = threading.Thread(target=push_until, args=(servers, ended, acknowledged), daemon=True)
    watcher.start()
    pushing.start()
    try:
        for _ in range(kills):
            time.sleep(random.uniform(0.3, 0.9))
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait(timeout=PATIENCE)
            server = start_registry(root, port=port)
            servers[:] = [server]
        time.sleep(0.5)
    finally:
        ended.set()
        pushing.join(PATIENCE)
    wait_until(lambda: "digestry_log_unsigned_entries 0.0" in _metrics(server), what="the end of signing")
    watcher.stop()
    try:
        assert acknowledged
        assert checkpoint(server).checkpoint.size >= len(acknowledged)
        check(server, watcher.seen)
    finally:
        server.stop()


def _metrics(server: RegistryServer) -> str:
    return server.request("GET", "/metrics").body.decode()
