"""The soak: clients, collection and scrub at once; then the question whether anything is left."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from digestry.backend import open_backend
from digestry.blobs.registry_id_file import NAME as MARK_FILE
from digestry.catalog.job_states import COLLECTION
from digestry.registry.removal_limit import OPTION
from tests.soak.clients import Client, totals
from tests.support import RegistryServer, run_digestry, start_registry

_CONFIGURATION = """
[collection]
every = "0s"
lease = "{lease}s"
untagged = "1s"
sighted = "1s"

[scrub]
every = "1s"
rate = "100 MiB"

[limits]
upload-idle-seconds = 2

[log]
audit = "off"
"""
_PATIENCE = 120.0


@dataclass
class Outcome:
    """``wrong``: promises that were broken; ``left``: what nothing holds and is there all the same."""

    wrong: list[str]
    left: list[str]
    did: Counter[str]
    collected: dict[str, float]
    seconds: float
    logged: list[str] = field(default_factory=list)


def soak(root: Path, *, seconds: float, clients: int, seed: int, lease: int = 6, workers: int = 2) -> Outcome:
    """Runs it in ``root``, an empty directory's name."""
    config = root.with_name(f"{root.name}.toml")
    config.write_text(_CONFIGURATION.format(lease=lease))
    server = start_registry(root, "--config", str(config), "--workers", str(workers))
    began = time.monotonic()
    try:
        crew = [Client(server.port, number, seed, began + seconds, lease) for number in range(clients)]
        for client in crew:
            client.start()
        for client in crew:
            client.join(seconds + 10 * _PATIENCE)
        wrong = [text for client in crew for text in client.wrong]
        if not wrong:
            for client in crew:
                client.drop_all()
            _wait_until_empty(server, config)
        took = time.monotonic() - began
    finally:
        if server.process.poll() is None:
            server.stop()
    logged = [
        line
        for line in server.log.read_text().splitlines()
        # Where all is dropped, the server's own collection asks for a word more.
        if (" ERROR " in line or "Traceback" in line) and "that is most of the store" not in line
    ]
    return Outcome(wrong, [] if wrong else _left(root), totals(crew), _collected(root), took, logged)


def _wait_until_empty(server: RegistryServer, config: Path) -> None:
    """Grants the grace times, and collections after them that may remove everything."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and _left(server.root):
        time.sleep(0.5)
        run_digestry(
            "gc", "--root", server.root, "--config", config, OPTION
        )  # the server's own may be under way


def _left(root: Path) -> list[str]:
    files = [
        str(path.relative_to(root))
        for folder in ("blobs", "ingest", "quarantine")
        for path in (root / folder).rglob("*")
        if path.is_file() and path.name != MARK_FILE
    ]
    asked = {
        "links": "SELECT digest FROM links",
        "manifests": "SELECT digest FROM manifests WHERE deleted_at IS NULL",
        "tags": "SELECT name FROM tags",
        "uploads": "SELECT id FROM uploads",
        "leases": "SELECT digest FROM leases",
        "damaged": "SELECT digest || ' ' || problem FROM damaged",
    }
    with closing(sqlite3.connect(f"file:{root / 'catalog.db'}?mode=ro", uri=True, timeout=30)) as connection:
        rows = [
            f"{name}: {row[0]}"
            for name, query in asked.items()
            for row in connection.execute(query).fetchall()
        ]
    broken = open_backend(root).catalog_store.verify_journal().broken
    return files + rows + ([] if broken is None else [f"the journal: {broken}"])


def _collected(root: Path) -> dict[str, float]:
    with closing(sqlite3.connect(f"file:{root / 'catalog.db'}?mode=ro", uri=True, timeout=30)) as connection:
        row = connection.execute("SELECT state FROM jobs WHERE name = ?", (COLLECTION,)).fetchone()
    return {} if row is None else dict(json.loads(row[0]))
