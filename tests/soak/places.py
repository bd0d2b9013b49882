"""Where the soak's registry is: on a disk, or on nodes that share a database and an S3 store."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg

from digestry.backend import Backend, StoreLocations, open_backend
from digestry.blobs.registry_id_file import NAME as MARK_FILE
from digestry.registry.removal_limit import OPTION
from tests import seaweed
from tests.cluster.balancer import tcp_proxy
from tests.cluster.nodes import Nodes, registry_nodes
from tests.cluster.remains import Remains
from tests.postgresql import running_cluster
from tests.support import RegistryServer, run_digestry, start_registry, wait_until

_COLLECTION_SECONDS: Final = 600.0
"""One collection may remove all that a busy machine's clients have dropped."""
_KEPT: Final = {
    "links": "SELECT digest FROM links",
    "manifests": "SELECT digest FROM manifests WHERE deleted_at IS NULL",
    "tags": "SELECT name FROM tags",
    "uploads": "SELECT id FROM uploads",
    "leases": "SELECT digest FROM leases",
    "damaged": "SELECT digest || ' ' || problem FROM damaged",
}
_COLLECTION: Final = "SELECT state FROM jobs WHERE name = 'collection'"


class Place(Protocol):
    """A registry that serves, and what is behind its server."""

    front: RegistryServer

    def collect(self) -> None:
        """Run a collection that may remove everything, unless another is under way."""
        ...

    def left(self) -> list[str]:
        """Return what the stores hold, and what is wrong with the journal."""
        ...

    def collected(self) -> dict[str, float]:
        """Return what all collections together did."""
        ...

    def logs(self) -> list[str]:
        """Return the lines of the servers' logs."""
        ...


@dataclass
class OnDisk:
    """A registry in a directory."""

    front: RegistryServer
    config: Path

    def collect(self) -> None:
        run_digestry("gc", "--root", self.front.root, "--config", self.config, OPTION)

    def left(self) -> list[str]:
        root = self.front.root
        files = [
            str(path.relative_to(root))
            for folder in ("blobs", "ingest", "quarantine")
            for path in (root / folder).rglob("*")
            if path.is_file() and path.name != MARK_FILE
        ]
        rows = [f"{name}: {row[0]}" for name, query in _KEPT.items() for row in self._rows(query)]
        return files + rows + _broken(open_backend(root))

    def collected(self) -> dict[str, float]:
        return _state(self._rows(_COLLECTION))

    def logs(self) -> list[str]:
        return self.front.log.read_text().splitlines()

    def _rows(self, query: str) -> list[Any]:
        catalog = f"file:{self.front.root / 'catalog.db'}?mode=ro"
        with closing(sqlite3.connect(catalog, uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()


@dataclass
class OnNodes:
    """A registry of several nodes behind a balancer, which sends each request to another."""

    front: RegistryServer
    config: Path
    nodes: Nodes

    def collect(self) -> None:
        # As if ten minutes were over, for which the store keeps what somebody may be about to name.
        with psycopg.connect(self.nodes.database) as connection:
            connection.execute("UPDATE blob_objects SET stored_at = 0")
        run_digestry(
            "gc", "--config", self.config, OPTION, env=self.nodes.environment, timeout=_COLLECTION_SECONDS
        )

    def left(self) -> list[str]:
        kept = {**_KEPT, "objects": "SELECT digest FROM blob_objects"}
        rows = [f"{name}: {row[0]}" for name, query in kept.items() for row in self._rows(query)]
        with closing(Remains(self.nodes)) as remains:
            rows += remains.uploads() + [f"nothing names {key}" for key in remains.unnamed_objects()]
        backend = open_backend(None, stores=StoreLocations(self.nodes.database, self.nodes.blobs))
        return rows + _broken(backend)

    def collected(self) -> dict[str, float]:
        return _state(self._rows(_COLLECTION))

    def logs(self) -> list[str]:
        return [line for node in self.nodes.running for line in node.log.read_text().splitlines()]

    def _rows(self, query: str) -> list[Any]:
        with psycopg.connect(self.nodes.database) as connection:
            return connection.execute(query.encode()).fetchall()


@contextlib.contextmanager
def on_disk(directory: Path, config: Path, *, workers: int) -> Iterator[OnDisk]:
    """Serve a registry in a directory of ``directory``."""
    server = start_registry(directory / "root", "--config", str(config), "--workers", str(workers))
    try:
        yield OnDisk(server, config)
    finally:
        if server.process.poll() is None:
            server.stop()


@contextlib.contextmanager
def on_nodes(directory: Path, config: Path, *, count: int) -> Iterator[OnNodes]:
    """Serve a registry by ``count`` nodes, with servers of their own."""
    with (
        running_cluster() as cluster,
        seaweed.running_server() as s3,
        registry_nodes(directory, cluster, s3) as nodes,
    ):
        running = [nodes.start("--config", str(config)) for _ in range(count)]
        _hurry(running)
        with tcp_proxy(*(("127.0.0.1", node.port) for node in running), one_request=True) as balancer:
            yield OnNodes(RegistryServer(balancer.host, running[0].process, directory), config, nodes)


def _hurry(nodes: list[RegistryServer]) -> None:
    """Let collection have as much of a busy machine as clients have, where the test may say so."""
    if os.geteuid() == 0:
        for node in nodes:
            group = node.process.pid
            wait_until(lambda group=group: _has_nice_process(group), what="the process for collection")
            os.setpriority(os.PRIO_PGRP, group, os.getpriority(os.PRIO_PROCESS, 0))


def _has_nice_process(group: int) -> bool:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            process = int(entry.name)
            if os.getpgid(process) == group and os.getpriority(os.PRIO_PROCESS, process) >= 15:
                return True
    return False


def _state(rows: list[Any]) -> dict[str, float]:
    return dict(json.loads(rows[0][0])) if rows else {}


def _broken(backend: Backend) -> list[str]:
    broken = backend.catalog_store.verify_journal().broken
    return [] if broken is None else [f"the journal: {broken}"]
