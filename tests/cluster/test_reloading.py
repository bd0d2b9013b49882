"""Nodes that are told to read their configuration again, and to stop, while clients push."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.cluster.balancer import tcp_proxy
from tests.cluster.nodes import Nodes
from tests.support import PATIENCE, RegistryServer, wait_until

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.long]

_RULE = '[[immutability]]\nrepository = "kept"\ntag = "*"\nmode = "immutable"\n'
_RELOADED = "the configuration was reloaded by all workers"


def _reload(node: RegistryServer) -> None:
    before = node.log.read_text().count(_RELOADED)
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: node.log.read_text().count(_RELOADED) > before, what="the reload", log=node.log)


class _Pushing:
    """A client that pushes one image after the other; ``errors`` is what it was refused."""

    def __init__(self, front: RegistryServer) -> None:
        self._front = front
        self._stop = threading.Event()
        self.errors: list[str] = []
        self.pushed = 0
        self._thread = threading.Thread(target=self._push, daemon=True)

    def __enter__(self) -> _Pushing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def _push(self) -> None:
        while not self._stop.is_set():
            try:
                self._front.push_image("pushed", "t", os.urandom(10))
                self.pushed += 1
            except (AssertionError, OSError) as error:
                self.errors.append(repr(error))

    def wait_for_more(self) -> None:
        """Wait until some more were pushed."""
        wanted = self.pushed + 2
        wait_until(lambda: self.pushed >= wanted or self.errors, what="more pushes")


def test_nodes_reload_and_drain_while_clients_push(nodes: Nodes, tmp_path: Path) -> None:
    config = tmp_path / "registry.toml"
    config.write_text("drain-seconds = 30\n")
    staying, leaving = (nodes.start("--config", str(config)) for _ in range(2))
    targets = [("127.0.0.1", node.port) for node in (staying, leaving)]
    for text in ("first", "second"):
        staying.push_image("kept", "t", text.encode())
    with tcp_proxy(*targets, one_request=True) as balancer:
        with _Pushing(RegistryServer(balancer.host, staying.process, tmp_path)) as client:
            client.wait_for_more()
            config.write_text("drain-seconds = 30\n" + _RULE)
            for node in (staying, leaving):
                _reload(node)
                with pytest.raises(AssertionError):
                    node.push_image("kept", "t", b"third")
            client.wait_for_more()
            leaving.process.send_signal(signal.SIGTERM)
            wait_until(lambda: leaving.request("GET", "/readyz").status == 503, what="the drain")
            client.wait_for_more()  # through both: nobody has noticed yet
            balancer.retarget(targets[0])
            client.wait_for_more()
            leaving.process.send_signal(signal.SIGTERM)
            assert leaving.process.wait(PATIENCE) == 0
            client.wait_for_more()
        assert client.errors == []
    assert staying.request("GET", "/readyz").status == 200
    staying.process.send_signal(signal.SIGINT)
    assert staying.process.wait(PATIENCE) == 0
