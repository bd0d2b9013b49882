"""The signed log of several nodes: one history, whichever node signs, through kills and a cut database."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import seaweed
from tests.cluster.nodes import Nodes, registry_nodes
from tests.crash.test_log import Watcher, check, push_until
from tests.postgresql import Cluster
from tests.registry.test_transparency import checkpoint
from tests.support import PATIENCE, RegistryServer, wait_until

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.long]


@pytest.fixture
def registry(tmp_path: Path, postgresql: Cluster, s3: seaweed.S3Server) -> Iterator[Nodes]:
    """A registry of its own for each test, without nodes yet."""
    with registry_nodes(tmp_path, postgresql, s3) as found:
        yield found


def test_nodes_that_are_killed_sign_one_history(registry: Nodes) -> None:
    nodes = [registry.start() for _ in range(2)]
    watcher, ended, acknowledged = Watcher(nodes), threading.Event(), []  # type: ignore[var-annotated]
    pushing = threading.Thread(target=push_until, args=(nodes, ended, acknowledged), daemon=True)
    watcher.start()
    pushing.start()
    try:
        for _ in range(4):
            time.sleep(random.uniform(1.0, 2.0))
            place = random.randrange(len(nodes))
            node = nodes[place]
            os.killpg(node.process.pid, signal.SIGKILL)
            node.process.wait(timeout=PATIENCE)
            nodes[place] = registry.start()
        registry.to_database.cut()
        time.sleep(2.0)
        registry.to_database.mend()
        time.sleep(2.0)
    finally:
        ended.set()
        pushing.join(PATIENCE)
    wait_until(lambda: _signed(nodes), what="the end of signing")
    watcher.stop()
    assert acknowledged
    sizes = {checkpoint(node).checkpoint.size for node in nodes}
    assert len(sizes) == 1
    assert sizes.pop() >= len(acknowledged)
    for node in nodes:
        check(node, watcher.seen)


def _signed(nodes: list[RegistryServer]) -> bool:
    return all(b"digestry_log_unsigned_entries 0.0" in node.request("GET", "/metrics").body for node in nodes)
