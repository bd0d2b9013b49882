"""A node on PostgreSQL and S3 beside docker-registry on the same S3 store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests import seaweed
from tests.peers.wheels import place
from tests.postgresql import Cluster, programs
from tests.support import RegistryServer

from bench import large, servers
from bench.compare import OURS, THEIRS, Line, Options, measure
from bench.content import Repository, fill
from bench.large import Body, Growth
from bench.requests import CLIENTS, Loads

MANIFEST_GOAL = 5.0
BLOB_GOAL = 3.0
PUT_GOAL = 1.3
GET_GOAL = 1.0
MORE_MEMORY = 64.0
"""How many MB more than when it is idle a node may take for many large uploads."""

_REPOSITORY = Repository("bench/nodes", 100)
_DURABLE = {"fsync": "on", "full_page_writes": "on"}


def lacking() -> list[str]:
    """The programs that this part needs and that are not there."""
    there = {
        "PostgreSQL": programs() is not None,
        "SeaweedFS (tests/peers/wheels.py)": place("weed").exists(),
    }
    return [name for name, found in there.items() if not found]


@contextlib.contextmanager
def running(directory: Path) -> Iterator[dict[str, RegistryServer]]:
    """A node with one worker, and docker-registry with all cores, filled alike."""
    database = directory / "postgresql"
    database.mkdir()
    directory.chmod(0o711)
    cluster = Cluster(database, settings=_DURABLE)
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(seaweed.running_server())
        stack.callback(cluster.stop)
        cluster.make()
        ours = stack.enter_context(servers.node(directory, cluster.new_database(), s3))
        theirs = stack.enter_context(servers.peer(directory / "s3-peer", storage=servers.objects(s3)))
        for server in (ours, theirs):
            fill(server, _REPOSITORY)
        yield {OURS: ours, THEIRS: theirs}


def small(pair: Mapping[str, RegistryServer], options: Options) -> list[Line]:
    """Manifests and small blobs."""
    loads = Loads(_REPOSITORY, options.seconds)
    lines = []
    for what, load, goal in (
        ("GET manifest by tag", loads.by_tag(), MANIFEST_GOAL),
        ("GET manifest by digest", loads.by_digest(), MANIFEST_GOAL),
        ("GET blob of 1.6 KB", loads.blobs(), BLOB_GOAL),
        ("PUT blob of 1.6 KB", loads.put_blobs(), None),
        ("PUT manifest", loads.put_manifests(), None),
    ):
        ours, theirs = measure(pair, options.rounds, load).values()
        lines.append(Line(what, f"{CLIENTS} clients", "/s", ours, theirs, goal))
    return lines


def large_blobs(pair: Mapping[str, RegistryServer], options: Options) -> list[Line]:
    """One large blob at a time."""
    return large.large(pair, options, put_goal=PUT_GOAL, get_goal=GET_GOAL)


def memory(pair: Mapping[str, RegistryServer], options: Options) -> Iterator[tuple[str, str, Growth]]:
    """What each server takes for many large blobs at once, that come and that go."""
    count = f"{options.uploads} of {options.upload >> 20} MB"
    for name, server in pair.items():
        yield f"{count} up", name, large.at_once(server, options)
    for name, server in pair.items():
        body = Body(options.upload)
        large.push(server, body, patch=True)
        yield f"{count} down", name, large.pulls_at_once(server, body, options)
