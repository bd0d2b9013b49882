"""A registry in which every table that moves with it has rows, and the rows of all these tables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Table, insert, select

from digestry.backend import Backend, open_backend
from digestry.catalog import fleet_schema, observation_schema, schema
from digestry.catalog.clock import now
from digestry.model import media_types
from tests.cli.test_layer_advisories import push
from tests.fleet.support import SimulatedAgent, moment
from tests.observer.support import HOST, Observing
from tests.registry.backup.support import ORIGIN, make_root
from tests.registry.pull_through.support import Upstream, upstream
from tests.support import RegistryServer, run_digestry, start_registry, wait_until

OWN: Final = "registry.example"
_STAY: Final = frozenset(
    {
        # An upload under way, and the objects of a store, which are others elsewhere.
        "uploads", "blob_objects", "quarantined_objects", "object_removals",
        "blob_ingests", "blob_ingest_parts", "blob_ingest_fragments",
        # Who holds what now, and what nodes leave each other; keys are copied by themselves.
        "locks", "shared_guards", "transaction_locks", "login_failures", "upstream_limits", "notes",
        "signing_keys",
        # Who is logged in on pages.
        "web_sessions",
        # Of the catalog itself.
        "identity", "schema_support",
    }
)  # fmt: skip
"""The tables that do not move; whoever adds a table decides."""
_CHANGED: Final = frozenset({"jobs", "locks", "leases"})
"""What a server changes that only starts and stops."""
MOVING: Final = [table for name, table in schema.metadata.tables.items() if name not in _STAY]
_SETTINGS: Final = """hosts = ["{own}"]
workers = 1
root = "{root}"
[observe-registry."{host}"]
url = "{url}"
[observe."{host}/own/app"]
every = "1s"
keep = true
[[webhook]]
name = "away"
url = "http://127.0.0.1:1/"
secret = "0123456789abcdef0123"
events = ["created", "moved", "upstream-moved", "affected-started"]
"""


def all_rows(backend: Backend, *, without: Iterable[str] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of each table that moves, sorted."""
    left_out = frozenset(without)
    database = backend.catalog_store.open()
    try:
        with database.read() as connection:
            return {
                table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
                for table in MOVING
                if table.name not in left_out
            }
    finally:
        database.close()


def make_full(directory: Path) -> None:
    """Make a registry in ``directory/root`` by serving it for a while."""
    root = directory / "root"
    make_root(root)
    with upstream() as up:
        file = directory / "full.toml"
        file.write_text(_SETTINGS.format(own=OWN, root=root, host=HOST, url=up.url))
        server = start_registry(root, "--config", str(file))
        try:
            _use(server, up)
        finally:
            server.stop()
    _add_rows(root)


def _use(server: RegistryServer, up: Upstream) -> None:
    observing = Observing(server)
    first = up.image("own/app", "1.5", layer=b"a")
    observing.wait_for("1.5", first)
    observing.wait_for("1.5", first, up.image("own/app", "1.5", layer=b"b"))
    affected = push(server, "team/app", "1", b"affected")
    agent = SimulatedAgent(server, "h1")
    name = f"{OWN}/team/app:1@{affected}"
    agent.start({"a": name, "b": name})
    agent.stop("a", moment(-0.01))
    agent.report(
        {"type": "stopped", "source": "docker", "container": "early", "instance": "1", "at": moment(-0.01)}
    )
    _run(
        "advisory",
        "add",
        f"{server.host}/team/app:1",
        "--id",
        "CVE-1",
        "--status",
        "affected",
        "--author",
        "me",
    )
    _run("age", "allow", "--root", server.root, "golftrack:1.5", "--reason", "urgent")
    _run("observe", "add", "--root", server.root, f"{HOST}/own/other", "--every", "1h")
    _run("token", "create", "--root", server.root, "robot")
    moves = [server.image("golftrack") | {"annotations": {"number": str(number)}} for number in range(2)]
    for number in range(260):  # more than one tile of the log
        server.push_manifest("golftrack", "often", moves[number % 2], media_types.OCI_MANIFEST)
    signed = b"digestry_log_unsigned_entries 0.0"
    wait_until(lambda: signed in server.request("GET", "/metrics").body, what="signing", log=server.log)
    statements = schema.advisory_statements
    wait_until(lambda: all_rows(open_backend(server.root))[statements.name], what="the advisory's statement")


def _run(*arguments: str | Path) -> None:
    done = run_digestry(*arguments, timeout=120)
    assert done.returncode == 0, done.stderr


def _add_rows(root: Path) -> None:
    """Fill what takes a day, another registry or damage to get rows."""
    database = open_backend(root).catalog_store.open()
    try:
        with database.write() as connection:
            source = connection.execute(select(fleet_schema.fleet_sources.c.number)).scalars().first()
            image = connection.execute(select(fleet_schema.fleet_images.c.number)).scalars().first()
            digest = connection.execute(select(schema.manifests.c.digest)).scalars().first()
            made: dict[Table, dict[str, Any]] = {
                fleet_schema.fleet_gaps: {"source": source, "from_at": 1, "until_at": 2, "reason": "away"},
                fleet_schema.fleet_snapshot_runs: {
                    "source": source, "snapshot": "s", "run": 1, "received_at": now(),
                },
                fleet_schema.fleet_run_counts: {
                    "length": 1, "from_at": 0, "image": image, "started": 1, "ended": 1,
                },
                fleet_schema.fleet_run_changes: {"from_at": 0, "image": image, "started": 1, "ended": 0},
                observation_schema.witnessed_logs: {
                    "origin": "other.example/log", "size": 1, "root": os.urandom(32), "checkpoint": "c",
                    "seen_at": now(),
                },
                schema.sightings: {
                    "digest": digest, "repository": "golftrack", "place": "h2", "containers": 1,
                    "first_at": now(), "last_at": now(), "actor": ORIGIN.actor,
                },
                schema.damaged: {"digest": "sha256:" + 64 * "0", "problem": "gone", "found_at": now()},
            }  # fmt: skip
            for table, row in made.items():
                if connection.execute(select(table).limit(1)).first() is None:
                    connection.execute(insert(table), row)
    finally:
        database.close()
    empty = [name for name, found in all_rows(open_backend(root)).items() if not found]
    assert not empty, empty
