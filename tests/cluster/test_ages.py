"""Ages and the observer on two nodes: one of them observes, and both answer a tag alike, at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.cluster.nodes import registry_nodes
from tests.postgresql import Cluster
from tests.registry.pull_through.support import Upstream, upstream
from tests.seaweed import S3Server
from tests.support import PATIENCE, RegistryServer

_CONFIG = """
workers = 1
[mirror."up.test"]
url = "{url}"
min-age = "12s"
tag-ttl = 1
[observe."up.test/own/app"]
tags = "1.5"
every = "1s"
"""
_CACHED = 1.0
"""So many seconds a node may give the same answer again; and some more where the machine is busy."""
_BUSY = 5.0


def answer(node: RegistryServer) -> str:
    """What a node answers a pull of the tag with: a digest, or a status."""
    found = node.request("GET", "/v2/up.test/own/app/manifests/1.5")
    return found.headers["docker-content-digest"] if found.status == 200 else str(found.status)


def changes(nodes: list[RegistryServer], wanted: str) -> list[list[tuple[float, str]]]:
    """Ask all nodes at the same time, again and again, until each answers ``wanted``; when the answers of
    each changed, and to what."""
    seen: list[list[tuple[float, str]]] = [[] for _ in nodes]
    end = time.monotonic() + PATIENCE
    with ThreadPoolExecutor(len(nodes)) as threads:
        while not all(one and one[-1][1] == wanted for one in seen):
            assert time.monotonic() < end, seen
            at = time.monotonic()
            for known, found in zip(seen, threads.map(answer, nodes), strict=True):
                if not known or known[-1][1] != found:
                    known.append((at, found))
            time.sleep(0.1)
    return seen


def alike(seen: list[list[tuple[float, str]]], *answers: str) -> None:
    """Check that the nodes gave these answers in this order, each at the same time."""
    for known in seen:
        assert [found for _, found in known] == list(answers)
    for moments in zip(*seen, strict=True):
        times = [at for at, _ in moments]
        assert max(times) - min(times) < _CACHED + _BUSY, seen


def observations(up: Upstream, seconds: float) -> float:
    """How often the tag is observed in a second, while nobody pulls."""

    def count() -> int:
        return sum(one == "HEAD manifests/1.5" for one in up.asked("own/app"))

    before, began = count(), time.monotonic()
    time.sleep(seconds)
    return (count() - before) / (time.monotonic() - began)


@pytest.mark.long
def test_both_serve_the_same_digest_and_one_observes(
    tmp_path: Path, postgresql: Cluster, s3: S3Server
) -> None:
    with upstream() as up, registry_nodes(tmp_path, postgresql, s3) as nodes:
        config = tmp_path / "registry.toml"
        config.write_text(_CONFIG.format(url=up.url))
        first = up.image("own/app", "1.5", layer=b"one")
        both = [nodes.start("--config", str(config)) for _ in range(2)]
        alike(changes(both, str(first)), "403", str(first))
        second = up.image("own/app", "1.5", layer=b"two")
        alike(changes(both, str(second)), str(first), str(second))
        assert observations(up, 6) < 1.6  # two observers would ask twice a second
        _survives(up, both, second, changes)


def _survives(
    up: Upstream,
    both: list[RegistryServer],
    second: Digest,
    ask: Callable[[list[RegistryServer], str], list[list[tuple[float, str]]]],
) -> None:
    """Whichever node observed is killed: the other one goes on, and no age is lost."""
    third = up.image("own/app", "1.5", layer=b"three")
    for node in both:
        other = [one for one in both if one is not node]
        if node.process.poll() is None and all(one.process.poll() is None for one in other):
            node.kill()
            alike(ask(other, str(third)), str(second), str(third))
