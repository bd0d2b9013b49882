"""To remove most of what there is asks for a word more, of whoever does it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from digestry.catalog.job_states import COLLECTION
from digestry.registry import removal_limit
from digestry.registry.config import RegistryConfig, load
from digestry.registry.removal_limit import LITTLE, RemovalRefused, RemovalShare
from digestry.registry.server import prepare
from tests.backends import collect, collection_job, open_blobs, open_catalog
from tests.registry.backup.support import ORIGIN, push
from tests.registry.garbage_collection.support import AT_ONCE, gathered, later
from tests.support import run_digestry


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegistryConfig:
    """A root with three images of three blobs each, where more than four is not few."""
    monkeypatch.setattr(removal_limit, "FEW", 4)
    settings = tmp_path / "registry.toml"
    settings.write_text(AT_ONCE)
    loaded = load(settings, {"root": tmp_path / "root"})
    prepare(loaded)
    for number in range(3):
        push(loaded.scratch, "x", f"t{number}", b"%d" % number)
    return loaded


def blobs(config: RegistryConfig) -> int:
    return len(list(open_blobs(config.scratch).digests()))


def test_a_share() -> None:
    assert not RemovalShare("blob", total=100, dead=100).most  # few
    assert not RemovalShare("blob", total=1000, dead=500).most
    assert RemovalShare("blob", total=1000, dead=501).most
    assert not RemovalShare("blob", total=10, dead=1, dead_bytes=LITTLE, live_bytes=0).most
    assert RemovalShare("blob", total=10, dead=1, dead_bytes=LITTLE + 1, live_bytes=LITTLE).most
    assert not RemovalShare("blob", total=10, dead=1, dead_bytes=2 * LITTLE, live_bytes=2 * LITTLE).most


def test_blobs_that_are_most_of_the_store_stay(config: RegistryConfig) -> None:
    store = open_blobs(config.scratch)
    strays = [store.put(os.urandom(10)) for _ in range(10)]
    items: list[object] = []
    with pytest.raises(RemovalRefused, match="10 of 19 blobs, of 100 bytes, would be removed"):
        collect(config, tell=items.append, now=later())
    assert not items
    assert all(store.stat(stray) for stray in strays)
    gathered(collect, config, really=True)
    assert blobs(config) == 9


def test_fewer_than_half_go(config: RegistryConfig) -> None:
    store = open_blobs(config.scratch)
    for _ in range(9):
        store.put(os.urandom(10))
    gathered(collect, config)
    assert blobs(config) == 9


def test_manifests_are_looked_at_before_any_is_deleted(
    config: RegistryConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal_limit, "FEW", 1)
    catalog = open_catalog(config.scratch)
    for tag in ("t0", "t1"):
        catalog.delete_tag("x", tag, origin=ORIGIN)
    with pytest.raises(RemovalRefused, match="2 of 3 manifests"):
        collect(config, now=later(100_000))
    assert catalog.has_repository("x")
    assert len(catalog.damage.content(after="", limit=100)) == 9
    catalog.close()
    collect(config, now=later(100_000), really=True)
    assert blobs(config) == 3


@pytest.mark.long
def test_the_servers_own_run_refuses_and_says_so(config: RegistryConfig) -> None:
    store = open_blobs(config.scratch)
    for _ in range(10):
        store.put(os.urandom(10))
    job = collection_job(config, now=later())
    catalog = open_catalog(config.scratch)
    with pytest.raises(RemovalRefused):
        job._collect(threading.Event(), 0.0)
    with pytest.raises(RemovalRefused):
        job._collect(threading.Event(), 0.0)
    state = catalog.jobs.state(COLLECTION)
    assert state is not None
    assert (state.state["refused"], state.state["refuses"], state.state.get("failures", 0)) == (2, 1, 0)
    assert blobs(config) == 19
    gathered(collect, config, really=True)
    state = catalog.jobs.state(COLLECTION)
    assert state is not None
    assert (state.state["refused"], state.state["refuses"]) == (2, 0)
    catalog.close()


@pytest.mark.long
def test_the_command_asks_and_says_it_in_a_dry_run(tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepare(RegistryConfig(root))
    store = open_blobs(root)
    for number in range(removal_limit.FEW + 1):
        store.put(b"%d" % number)

    def gc(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_digestry("gc", "--root", root, "--format", "json", "-q", *arguments)

    refused = gc()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "101 of 101 blobs" in refused.stderr
    assert removal_limit.OPTION in refused.stderr
    dry = gc("--dry-run")
    assert dry.returncode == 0
    assert json.loads(dry.stdout)["totals"]["blobs"] == removal_limit.FEW + 1
    assert removal_limit.OPTION in dry.stderr
    done = gc(removal_limit.OPTION)
    assert done.returncode == 0
    assert json.loads(done.stdout)["totals"]["blobs"] == removal_limit.FEW + 1
