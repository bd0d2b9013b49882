"""Backups of registries whose content is in an S3 store, or whose catalog is in a database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.registry.backup import description
from tests import seaweed
from tests.support import RegistryServer, run_digestry, start_registry


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[seaweed.S3Server]:
    with seaweed.running_server() as server:
        for variable, value in seaweed.environment(server.endpoint).items():
            monkeypatch.setenv(variable, value)
        yield server


@contextlib.contextmanager
def started(root: Path, *options: str) -> Iterator[RegistryServer]:
    server = start_registry(root, *options)
    try:
        yield server
    finally:
        server.stop()


def with_stores(**stores: str) -> dict[str, str]:
    return {**os.environ, **stores}


@pytest.mark.long
@pytest.mark.parametrize("archive", [False, True])
def test_content_in_a_bucket_is_in_the_backup(store: seaweed.S3Server, tmp_path: Path, archive: bool) -> None:
    root, backup = tmp_path / "root", tmp_path / ("backup.tar" if archive else "backup")
    config = tmp_path / "registry.toml"
    config.write_text(f'root = "{root}"\n[storage]\nblobs = "s3://{store.bucket}/backed-up"\n')
    layer = os.urandom(3 << 20)
    with started(root, "--config", str(config)) as server:
        pushed = server.push_image("app", "1", layer)
        taken = run_digestry("backup", "--config", config, backup)
        assert (taken.returncode, taken.stderr) == (0, ""), taken.stderr
    assert "3 blobs" in taken.stdout
    if not archive:  # the environment says the same as the file, and nothing is copied twice
        again = run_digestry(
            "backup", "--root", root, backup, env=with_stores(DIGESTRY_BLOBS=f"s3://{store.bucket}/backed-up")
        )
        assert again.returncode == 0, again.stderr
        assert "there already: 3" in again.stdout
        assert not description.read(backup).missing

    restored = tmp_path / "restored"
    to_a_bucket = run_digestry(
        "restore-backup",
        backup,
        "--root",
        restored,
        env=with_stores(DIGESTRY_BLOBS=f"s3://{store.bucket}/new"),
    )
    assert to_a_bucket.returncode == 2, to_a_bucket.stderr
    assert "digestry migrate-storage" in to_a_bucket.stderr
    assert not restored.exists()

    assert run_digestry("restore-backup", backup, "--root", restored).returncode == 0
    with started(restored) as server:
        assert server.request("GET", "/v2/app/manifests/1").headers["docker-content-digest"] == str(pushed)

    # And from the directory to a bucket.
    for name, where, blobs in (("disk", restored, ""), ("bucket", tmp_path / "moved", "new")):
        stores = f'[storage]\nblobs = "s3://{store.bucket}/{blobs}"\n' if blobs else ""
        (tmp_path / f"{name}.toml").write_text(f'root = "{where}"\n{stores}')
    moved = run_digestry(
        "migrate-storage", "--from", tmp_path / "disk.toml", "--to", tmp_path / "bucket.toml"
    )
    assert moved.returncode == 0, moved.stderr
    with started(tmp_path / "moved", "--config", str(tmp_path / "bucket.toml")) as server:
        assert server.request("GET", "/v2/app/manifests/1").headers["docker-content-digest"] == str(pushed)
        manifest = server.request("GET", "/v2/app/manifests/1").json()
        blob = server.request("GET", f"/v2/app/blobs/{manifest['layers'][0]['digest']}")
        assert blob.body == layer


@pytest.mark.parametrize("command", ["backup", "restore-backup"])
def test_a_catalog_in_a_database_is_left_to_the_databases_tools(tmp_path: Path, command: str) -> None:
    result = run_digestry(
        command,
        "--root",
        tmp_path / "root",
        tmp_path / "backup",
        env=with_stores(DIGESTRY_DATABASE="postgresql://db.test/registry"),
    )
    assert result.returncode == 2
    assert "is no file that digestry copies or restores" in result.stderr
    assert "pg_dump" in result.stderr
    assert not any(path.exists() for path in (tmp_path / "root", tmp_path / "backup"))
