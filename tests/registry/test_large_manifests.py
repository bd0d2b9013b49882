"""Many large manifests at once: what they take is measured."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from digestry.model.digest import Digest
from tests.registry.connections.support import memory
from tests.registry.support import put_manifest
from tests.support import descriptor, start_registry

MiB = 1 << 20


def test_one_is_read_at_a_time(tmp_path: Path) -> None:
    entry = descriptor("a/b", Digest.of(b"never"), 1)
    document = {"SchemaVersion": 2, "config": entry, "layers": [entry] * 34_000}
    raw = json.dumps(document, separators=(",", ":")).encode()
    server = start_registry(tmp_path / "root")
    try:
        assert put_manifest(server, "x", "t", raw).status == 400  # what one takes is there from now on
        before, most, ended = memory(server), 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(0.02):
                most = max(most, memory(server))

        with ThreadPoolExecutor(13) as pool:
            watching = pool.submit(watch)
            answers = list(pool.map(lambda _: put_manifest(server, "x", "t", raw).status, range(12)))
            ended.set()
            watching.result()
    finally:
        server.stop()
    assert answers == [400] * 12
    assert most - before < 200 * MiB
