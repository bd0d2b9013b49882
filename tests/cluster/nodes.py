"""A registry of several nodes: one database, one S3 store, and a network between that can be cut."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import seaweed
from tests.cluster.balancer import TcpProxy, tcp_proxy
from tests.postgresql import Cluster, running_cluster
from tests.support import PATIENCE, RegistryServer, digestry


def campaign(usual: int, all_of_them: int) -> int:
    """How often a long test does something: more often with ``DIGESTRY_CLUSTER=all``, which takes an hour."""
    return all_of_them if os.environ.get("DIGESTRY_CLUSTER") == "all" else usual


@dataclass
class Nodes:
    """What the nodes of one registry are on, and the nodes that were started."""

    directory: Path
    database: str
    endpoint: str
    blobs: str
    to_database: TcpProxy
    to_store: TcpProxy
    running: list[RegistryServer] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a node, which names the stores as the nodes reach them."""
        return {
            **os.environ,
            **seaweed.environment(f"http://{self.to_store.host}"),
            "DIGESTRY_DATABASE": self.database,
            "DIGESTRY_BLOBS": self.blobs,
        }

    def start(self, *arguments: str, port: int = 0) -> RegistryServer:
        """Start a node without a root, and wait until it answers."""
        log = self.directory / f"node-{len(self.running)}.log"
        line = digestry("serve", "--listen", f"127.0.0.1:{port}", *arguments)
        with log.open("ab") as errors:
            process = subprocess.Popen(
                line, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, env=self.environment
            )
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        process.stdout.close()
        if not url.startswith("http://"):
            process.wait(timeout=PATIENCE)
            pytest.fail(f"the node did not start: {log.read_text()}")
        node = RegistryServer(url.partition("://")[2], process, self.directory, log)
        self.running.append(node)
        return node

    def stop(self) -> None:
        """Stop the nodes that still run."""
        for node in self.running:
            if node.process.poll() is None:
                node.stop()


@contextlib.contextmanager
def balanced_nodes(directory: Path, *, redirect: bool) -> Iterator[RegistryServer]:
    """Two nodes behind a balancer, each request at another one, as one registry."""
    settings = directory / "registry.toml"
    settings.write_text(f"[storage]\nredirect = {str(redirect).lower()}\n")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(running_cluster())
        s3 = stack.enter_context(seaweed.running_server())
        nodes = stack.enter_context(registry_nodes(directory, cluster, s3))
        running = [nodes.start("--config", str(settings)) for _ in range(2)]
        targets = [("127.0.0.1", node.port) for node in running]
        balancer = stack.enter_context(tcp_proxy(*targets, one_request=True))
        yield RegistryServer(balancer.host, running[0].process, directory, running[0].log)


@contextlib.contextmanager
def registry_nodes(directory: Path, cluster: Cluster, s3: seaweed.S3Server) -> Iterator[Nodes]:
    """A registry without nodes yet, in a database and a prefix of its own."""
    url = cluster.new_database()
    store = urlsplit(s3.endpoint)
    to_database = TcpProxy(("127.0.0.1", cluster.port))
    to_store = TcpProxy((str(store.hostname), int(store.port or 80)))
    nodes = Nodes(
        directory,
        cluster.url(url.rpartition("/")[2], port=to_database.port),
        s3.endpoint,
        f"s3://{s3.bucket}/cluster/{os.urandom(8).hex()}",
        to_database,
        to_store,
    )
    try:
        yield nodes
    finally:
        to_database.mend()
        to_store.mend()
        nodes.stop()
        to_database.close()
        to_store.close()
        if cluster.runs:
            cluster.drop_database(url)
