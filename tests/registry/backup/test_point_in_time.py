"""A registry on PostgreSQL and S3 is taken back in time, by a backup of the cluster and its log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from digestry.backend import Backend
from digestry.blobs.protocols import StoreMark
from digestry.blobs.s3.store import S3Blobs
from digestry.catalog import clock
from digestry.errors import Conflict
from digestry.model.digest import Digest
from digestry.registry import server as serving
from digestry.registry.garbage_collection import collect
from digestry.registry.scratch import with_scratch
from tests import seaweed
from tests.backends import BlockingReads
from tests.postgresql import Cluster, running_cluster
from tests.registry.backup.support import ORIGIN, push_to
from tests.registry.migration.support import Place
from tests.support import run_digestry, wait_until

DAY: Final = 24 * 3600 * clock.SECOND


@pytest.fixture
def server() -> Iterator[Cluster]:
    """A server that archives its log."""
    settings = {"archive_mode": "on", "archive_command": "cp %p {directory}/%f", "full_page_writes": "on"}
    with running_cluster(**settings) as cluster:
        yield cluster


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[seaweed.S3Server]:
    with seaweed.running_server() as started:
        for variable, value in seaweed.environment(started.endpoint).items():
            monkeypatch.setenv(variable, value)
        yield started


def configured(file: Path, url: str, store: seaweed.S3Server) -> Place:
    file.write_text(f'[storage]\ndatabase = "{url}"\nblobs = "s3://{store.bucket}/pitr"\n')
    return Place(file)


def prepare(place: Place) -> None:
    """Do what a server does before it serves."""
    with with_scratch(place.stores.config) as (config, _):
        place.opened.append(config.backend())
        serving._prepare(config, place.opened[-1])


def collected_later(place: Place) -> None:
    """Collect what nobody needs, two days later; a day after that, the bucket has none of it any more."""
    with with_scratch(place.stores.config) as (config, _):
        place.opened.append(config.backend(lambda: clock.now() + 2 * DAY))
        collect(config, place.opened[-1])
        place.opened.append(config.backend(lambda: clock.now() + 3 * DAY))
        blobs = place.opened[-1].blobs
        assert isinstance(blobs, S3Blobs)
        assert blobs.session.removal.remove_due() > 0


def start_restored(server: Cluster, base: Path, point: str) -> Cluster:
    """Start another server from a backup of the first one and its log up to a point."""
    folder = server.directory / "restored"
    settings = {
        "restore_command": f"cp {server.directory}/%f %p",
        "recovery_target_name": point,
        "recovery_target_action": "promote",
    }
    again = Cluster(folder, settings=settings)
    server.run("/bin/mkdir", str(folder))
    base.rename(again.data)
    server.run("/usr/bin/touch", str(folder / "log"), str(again.data / "recovery.signal"))
    again.start()
    return again


def digests_of(backend: Backend, tags: list[tuple[str, str]]) -> dict[tuple[str, str], str | None]:
    """What tags point to."""
    reads = BlockingReads(backend)
    found = {(name, tag): reads.manifest(name, tag) for name, tag in tags}
    reads.close()
    return {key: None if one is None else one.digest for key, one in found.items()}


@pytest.mark.long
def test_the_database_is_taken_back_and_the_bucket_is_not(
    server: Cluster, store: seaweed.S3Server, tmp_path: Path
) -> None:
    """Nothing that was acknowledged before the point is lost; content that was collected since is named."""
    place = configured(tmp_path / "registry.toml", server.new_database(), store)
    prepare(place)
    acknowledged = {("app", "1"): str(push_to(place.backend, "app", "1", b"first"))}
    base = server.directory / "base"
    server.base_backup(base)
    acknowledged["app", "1"] = str(push_to(place.backend, "app", "1", b"second"))
    collected = push_to(place.backend, "old", "1", b"collected later")
    acknowledged["old", "1"] = str(collected)
    before = place.backend.catalog_store.verify_journal()
    with server.superuser() as connection:
        connection.execute("SELECT pg_create_restore_point('noon')")
        later = push_to(place.backend, "app", "2", b"third")
        catalog = place.backend.open_catalog()
        catalog.delete_manifest("old", collected, origin=ORIGIN)
        catalog.close()
        collected_later(place)
        last = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
        assert last is not None
    wait_until((server.directory / last[0]).exists, what="the archive of the server's log")
    name = place.stores.config.storage.stores.database
    assert name is not None
    place.close()
    server.stop()

    again = start_restored(server, base, "noon")
    restored = configured(tmp_path / "restored.toml", again.url(name.rpartition("/")[2]), store)
    try:
        # The bucket has been used by a later state: whoever takes the registry back says that it is meant.
        with pytest.raises(Conflict, match="older than the blobs beside it") as refused:
            prepare(restored)
        mark = re.search(r"write '(\w+) (\d+)' to s3://", refused.value.hint)
        assert mark is not None
        restored.backend.blobs.set_mark(StoreMark(mark[1], int(mark[2])))
        prepare(restored)

        after = restored.backend.catalog_store.verify_journal()
        assert (after.broken, after.entries, after.last_hash) == (None, before.entries, before.last_hash)
        tags = [*acknowledged, ("app", "2")]
        assert digests_of(restored.backend, tags) == {**acknowledged, ("app", "2"): None}

        damaged = scrubbed(restored)
        layer = Digest.of(b"collected later")
        config = json.dumps({"of": str(layer)}).encode()
        assert set(damaged) == {str(collected), str(layer), str(Digest.of(config))}
        assert set(damaged.values()) == {"old:1"}
        assert push_to(restored.backend, "old", "1", b"collected later") == collected
        assert push_to(restored.backend, "app", "2", b"third") == later
        assert scrubbed(restored) == {}
    finally:
        restored.close()
        again.stop()


def scrubbed(place: Place) -> dict[str, str]:
    """The damaged and missing content that ``digestry scrub`` names, with a tag that needs it."""
    done = run_digestry("scrub", "--config", place.file, "--from-start", "--format", "json")
    found = json.loads(done.stdout)
    assert done.returncode == (1 if found["damaged"] else 0), done.stderr
    return {
        row["digest"]: ",".join(f"{one['name']}:{tag}" for one in row["repositories"] for tag in one["tags"])
        for row in found["damaged"]
    }
