"""What ``digestry pack`` makes, read by clients that take every layer for gzip and by those that look."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import pytest

from tests.e2e.engines import Engine, root_file_system
from tests.e2e.peers import built
from tests.support import RegistryServer, digestry, program


@pytest.fixture
def packed(registry: RegistryServer, tmp_path: Path) -> str:
    """The name of an image in the registry, of a layer with several stored blocks."""
    name = f"{registry.host}/packed/{secrets.token_hex(6)}:1"
    app = tmp_path / "app"
    app.mkdir()
    (app / "big").write_bytes(os.urandom(200_000))
    environment = {**os.environ, "DIGESTRY_HOME": str(tmp_path / "home")}
    subprocess.run(
        digestry("pack", app, "-t", name, "--push", "-q"), env=environment, check=True, capture_output=True
    )
    return name


@pytest.mark.peer("crane")
def test_crane_validates_it(packed: str) -> None:
    done = subprocess.run(
        [built("crane"), "validate", "--remote", packed], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, f"PASS: {packed}\n")


@pytest.mark.peer("umoci")
@pytest.mark.peer("skopeo")
def test_umoci_unpacks_it(packed: str, tmp_path: Path) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    copy = [
        program("skopeo"),
        "copy",
        "-q",
        "--src-tls-verify=false",
        f"docker://{packed}",
        f"oci:{layout}:1",
    ]
    subprocess.run(copy, check=True, capture_output=True)
    unpack = [program("umoci"), "unpack", "--rootless", "--image", f"{layout}:1", str(bundle)]
    subprocess.run(unpack, check=True, capture_output=True)
    assert (bundle / "rootfs" / "big").stat().st_size == 200_000


@pytest.fixture
def upon_a_base(registry: RegistryServer, repository: str, tmp_path: Path) -> dict[str, str]:
    """Names of images that print what they are: a gzip and a zstd layer upon a base from a tar archive."""
    environment = {**os.environ, "DIGESTRY_HOME": str(tmp_path / "home")}

    def pack(*arguments: str | Path, stdin: bytes | None = None) -> None:
        command = digestry("pack", "-q", *arguments, "--push")
        subprocess.run(command, input=stdin, env=environment, check=True, capture_output=True)

    base = f"{registry.host}/{repository}:base"
    pack("-", "-t", base, "--compress", "gzip", "--env", "PATH=/bin", stdin=root_file_system())
    names = {}
    for compression in ("gzip", "zstd"):
        app = tmp_path / compression
        app.mkdir()
        (app / "says").write_text(compression)
        names[compression] = f"{registry.host}/{repository}:{compression}"
        options = ["--base", base, "--compress", compression, "--cmd", "cat /says", "--label", "a=b"]
        pack(app, "-t", names[compression], *options)
    return names


@pytest.mark.peer("crane")
def test_crane_validates_what_has_a_base(upon_a_base: dict[str, str]) -> None:
    done = subprocess.run(
        [built("crane"), "validate", "--remote", upon_a_base["gzip"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, f"PASS: {upon_a_base['gzip']}\n")


@pytest.mark.long
@pytest.mark.peer("podman")
@pytest.mark.xdist_group("podman")
def test_podman_runs_what_has_a_base(podman: Engine, upon_a_base: dict[str, str]) -> None:
    for compression, name in upon_a_base.items():
        podman("pull", "--quiet", "--tls-verify=false", name)
        limits = ("--ulimit=nofile=256:256", "--ulimit=nproc=512:512")
        assert podman("run", "--rm", "--network=none", *limits, name) == compression
        assert podman.json("image", "inspect", name)[0]["Labels"] == {"a": "b"}


@pytest.mark.long
@pytest.mark.peer("docker")
@pytest.mark.xdist_group("docker")
def test_docker_runs_what_has_a_base(docker: Engine, upon_a_base: dict[str, str]) -> None:
    docker("pull", "--quiet", upon_a_base["gzip"])
    assert docker("run", "--rm", "--network=none", upon_a_base["gzip"]) == "gzip"
    history = docker("history", "--format", "{{.CreatedBy}}", upon_a_base["gzip"]).splitlines()
    assert history == ["digestry pack", "digestry pack"]


@pytest.mark.peer("skopeo")
def test_skopeo_copies_what_has_a_base(skopeo: Engine, upon_a_base: dict[str, str], tmp_path: Path) -> None:
    for name in upon_a_base.values():
        source = ("--src-tls-verify=false", f"docker://{name}")
        skopeo("copy", "--quiet", "--preserve-digests", *source, f"oci:{tmp_path / 'layout'}:x")
