"""``index``, ``attach``, ``prune`` and ``export`` as a user calls them."""

from __future__ import annotations

import io
import json
import secrets
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.cli import exit_codes
from digestry.model import media_types
from tests.cli.conftest import Run
from tests.support import PATIENCE, RegistryServer, program


@pytest.fixture(params=["ours", "docker-registry"])
def name(request: pytest.FixtureRequest, registry: RegistryServer) -> str:
    """A repository of a registry."""
    host = registry.host if request.param == "ours" else request.getfixturevalue("docker_registry")
    return f"{host}/index/{secrets.token_hex(6)}"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    root.mkdir()
    (root / "program").write_text("#!/bin/sh\n")
    return root


def pack(run: Run, app: Path, name: str, *tags: str) -> None:
    """Packs and pushes an image for each platform that a tag names."""
    for tag in tags:
        run("pack", app, "-t", f"{name}:{tag}", "--platform", f"linux/{tag}", "--push")


def platforms(run: Run, *reference: str) -> list[str]:
    index = json.loads(run("manifest", "get", *reference).stdout)
    return [
        "/".join(filter(None, map(one["platform"].get, ("os", "architecture")))) for one in index["manifests"]
    ]


# -- index ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_an_index_of_a_registry(run: Run, app: Path, name: str) -> None:
    pack(run, app, name, "amd64", "arm64", "s390x")
    both = [f"{name}:amd64", f"{name}:arm64"]
    made = run("index", "create", f"{name}:all", *both, "--annotation", "a=b").stdout.strip()
    assert run("digest", f"{name}:all").stdout.strip() == made
    assert platforms(run, f"{name}:all") == ["linux/amd64", "linux/arm64"]
    assert json.loads(run("manifest", "get", f"{name}:all").stdout)["annotations"] == {"a": "b"}
    # The same images make the same digest, and an index stands for what it lists.
    assert (
        run("index", "create", f"{name}:again", f"{name}:all", "--annotation", "a=b").stdout.strip() == made
    )
    added = run("index", "add", f"{name}:all", f"{name}:s390x")
    assert f"pointed to {made} before" in added.stderr
    assert platforms(run, f"{name}:all") == ["linux/amd64", "linux/arm64", "linux/s390x"]
    run("index", "remove", f"{name}:all", "linux/arm64", "linux/s390x", "-t", f"{name}:one")
    assert platforms(run, f"{name}:one") == ["linux/amd64"]
    assert len(platforms(run, f"{name}:all")) == 3
    assert "is valid" in run("validate", f"{name}:all", "-q").stdout


@pytest.mark.long
def test_who_changes_an_index_at_once_loses_nothing(run: Run, app: Path, registry: RegistryServer) -> None:
    """As the jobs of a build do, one for each platform."""
    name = f"{registry.host}/index/{secrets.token_hex(6)}"
    pack(run, app, name, "amd64", "arm64", "s390x", "riscv64")
    run("index", "create", f"{name}:all", f"{name}:amd64")
    with ThreadPoolExecutor(5) as pool:
        ends = [
            *(
                pool.submit(run, "index", "add", f"{name}:all", f"{name}:{one}")
                for one in ("arm64", "s390x", "riscv64")
            ),
            *(
                pool.submit(run, "manifest", "annotate", f"{name}:all", "--annotation", f"{key}=1")
                for key in "ab"
            ),
        ]
        for end in ends:
            end.result()
    assert sorted(platforms(run, f"{name}:all")) == [
        f"linux/{one}" for one in ("amd64", "arm64", "riscv64", "s390x")
    ]
    assert json.loads(run("manifest", "get", f"{name}:all").stdout)["annotations"] == {"a": "1", "b": "1"}


@pytest.mark.long
def test_an_image_takes_the_place_of_one_for_its_platform(run: Run, app: Path, name: str) -> None:
    pack(run, app, name, "amd64", "arm64")
    run("index", "create", f"{name}:all", f"{name}:amd64", f"{name}:arm64")
    (app / "program").write_text("fixed")
    pack(run, app, name, "amd64")
    run("index", "add", f"{name}:all", f"{name}:amd64")
    index = json.loads(run("manifest", "get", f"{name}:all").stdout)
    assert [one["platform"]["architecture"] for one in index["manifests"]] == ["arm64", "amd64"]
    assert index["manifests"][1]["digest"] == run("digest", f"{name}:amd64").stdout.strip()


def test_docker_s_manifest_list(run: Run, app: Path, name: str) -> None:
    pack(run, app, name, "amd64")
    run("index", "create", f"{name}:list", f"{name}:amd64", "--docker")
    row = json.loads(run("tags", f"{name}:list", "--format", "json").stdout)[0]
    assert row["media_type"] == media_types.DOCKER_LIST


@pytest.mark.long
def test_an_index_of_the_local_store(run: Run, app: Path) -> None:
    for platform in ("amd64", "arm64"):
        run("pack", app, "-t", f"localhost:5000/app:{platform}", "--platform", f"linux/{platform}")
    run("index", "create", "--local", "all:1", "localhost:5000/app:amd64", "localhost:5000/app:arm64")
    assert platforms(run, "--local", "all:1") == ["linux/amd64", "linux/arm64"]
    run("index", "remove", "--local", "all:1", "linux/amd64")
    assert platforms(run, "--local", "all:1") == ["linux/arm64"]
    run("index", "add", "--local", "all:1", "localhost:5000/app:amd64")
    assert platforms(run, "--local", "all:1") == ["linux/arm64", "linux/amd64"]


@pytest.mark.long
def test_what_no_index_can_be_made_of(run: Run, app: Path, registry: RegistryServer) -> None:
    name = f"{registry.host}/index/{secrets.token_hex(6)}"
    pack(run, app, name, "amd64")
    other = run("index", "create", f"{name}-other:1", f"{name}:amd64", status=exit_codes.USAGE)
    assert "images of its own repository" in other.stderr
    run("index", "add", f"{name}:amd64", f"{name}:amd64", status=exit_codes.USAGE)
    run("index", "create", f"{name}:1", f"{name}:none", status=exit_codes.NOT_FOUND)
    run("index", "create", f"{name}@sha256:{'0' * 64}", f"{name}:amd64", status=exit_codes.USAGE)
    run("index", "create", f"{name}:1", f"{name}:amd64")
    run("index", "remove", f"{name}:1", "linux/arm64", status=exit_codes.NOT_FOUND)
    run("index", "remove", f"{name}:1", "0000000", status=exit_codes.NOT_FOUND)


# -- attach ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_an_artifact_is_attached(run: Run, app: Path, name: str, tmp_path: Path) -> None:
    pack(run, app, name, "amd64")
    digest = run("digest", f"{name}:amd64").stdout.strip()
    (tmp_path / "sbom.json").write_text("{}")
    (tmp_path / "note:1").write_text("a note")
    line = [
        *("attach", f"{name}:amd64", f"{tmp_path}/sbom.json:application/spdx+json", tmp_path / "note:1"),
        *("--artifact-type", "application/spdx+json", "--annotation", "by=me"),
    ]
    made = run(*line).stdout.strip()
    assert run(*line).stdout.strip() == made
    assert run("digest", f"{name}:amd64").stdout.strip() == digest
    (row,) = json.loads(run("referrers", f"{name}:amd64", "--format", "json").stdout)
    assert (row["digest"], row["artifact_type"], row["subject"]) == (made, "application/spdx+json", digest)
    manifest = json.loads(run("manifest", "get", f"{name}@{made}").stdout)
    assert manifest["config"]["mediaType"] == media_types.OCI_EMPTY
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        "application/spdx+json",
        "application/octet-stream",
    ]
    assert run("blob", "get", f"{name}@{manifest['layers'][1]['digest']}").stdout == "a note"
    assert "is valid" in run("validate", f"{name}@{made}", "-q").stdout
    said = json.loads(run(*line, "--format", "json").stdout)
    assert [one["name"] for one in said["files"]] == ["sbom.json", "note:1"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["none.txt", "--artifact-type", "a/b"],
        ["--artifact-type", "a/b"],
        [__file__, "--artifact-type", "no type"],
        [f"{__file__}:a/b\n", "--artifact-type", "a/b"],
        [__file__],
    ],
)
def test_what_cannot_be_attached(run: Run, registry: RegistryServer, arguments: list[str]) -> None:
    run("attach", f"{registry.host}/index/any:1", *arguments, status=exit_codes.USAGE)


# -- prune ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_pruning_asks_first(run: Run, app: Path) -> None:
    assert "nothing to remove" in run("prune").stderr
    run("pack", app, "-t", "app:1")
    old = run("digest", "--local", "app:1").stdout.strip()
    (app / "program").write_text("new")
    run("pack", app, "-t", "app:1")
    assert "--yes" in run("prune", status=exit_codes.USAGE).stderr
    dry = json.loads(run("prune", "--dry-run", "--format", "json").stdout)
    assert old in dry["digests"]
    assert dry["removed"] is False
    assert f"Would remove: {old}" in run("prune", "--dry-run").stdout
    assert f"Removed: {old}" in run("prune", "--yes").stdout
    assert len(run("images").stdout.splitlines()) == 2
    run("validate", "--local", "app:1")


# -- export ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_root_file_system_is_exported(run: Run, app: Path, name: str, tmp_path: Path) -> None:
    pack(run, app, name, "amd64")
    run("export", f"{name}:amd64", "-o", tmp_path / "local.tar")
    run("export", "--remote", f"{name}:amd64", "-o", tmp_path / "remote.tar")
    assert (tmp_path / "local.tar").read_bytes() == (tmp_path / "remote.tar").read_bytes()
    with tarfile.open(tmp_path / "local.tar") as file:
        assert file.getnames() == ["program"]
    run("index", "create", f"{name}:all", f"{name}:amd64")
    raw = run("export", "--remote", f"{name}:all", "--platform", "linux/amd64").stdout
    assert raw.encode() == (tmp_path / "local.tar").read_bytes()


def test_tar_reads_what_was_exported(run: Run, app: Path, tmp_path: Path) -> None:
    run("pack", app, "-t", "app:1")
    run("export", "app:1", "-o", tmp_path / "root.tar")
    done = subprocess.run(
        [program("tar"), "-tf", tmp_path / "root.tar"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.split() == ["program"]
    assert io.BytesIO((tmp_path / "root.tar").read_bytes()).getbuffer().nbytes % 512 == 0
