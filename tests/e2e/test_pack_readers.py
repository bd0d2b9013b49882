"""What ``digestry pack`` makes, read by clients that take every layer for gzip and by those that look."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import pytest

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
