"""The image without a container engine, and its health check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_distribution import SOURCE, build, copied
from tests.support import RegistryServer, free_port, run_digestry

IMAGE = SOURCE / "deploy" / "image"


def health(address: str) -> int:
    return subprocess.run([sys.executable, str(IMAGE / "healthcheck.py"), address], check=False).returncode


def test_the_health_check_asks_a_registry(registry: RegistryServer) -> None:
    assert health(registry.host) == 0
    assert health(f"127.0.0.1:{free_port()}") == 1


@pytest.mark.long
def test_an_image_is_packed_from_wheels(tmp_path: Path) -> None:
    """The root file system has no more than the name of a Python; what is installed is run by this one."""
    dist = tmp_path / "dist"
    build(copied(tmp_path / "source"), dist, "wheel")
    (wheel,) = dist.glob("*.whl")
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (root / "usr/bin/python3").symlink_to(f"python{version}")
    environment = {
        **os.environ,
        "PIP": f"{sys.executable} -m pip",
        "DIGESTRY": f"{sys.executable} -P -m digestry",
        "DIGESTRY_HOME": str(tmp_path / "home"),
    }
    command = [str(IMAGE / "pack.sh"), str(root), str(wheel), "registry.example/digestry:1"]
    packed = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert packed[0] == packed[1] != ""

    done = run_digestry("inspect", "registry.example/digestry:1", "--format", "json", env=environment)
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["image"]["config"]
    assert (config["User"], config["Entrypoint"]) == ("10001:10001", ["digestry"])
    assert config["Cmd"] == ["serve", "--config", "/etc/digestry/registry.toml"]
    assert (root / "var/lib/digestry").stat().st_mode & 0o7777 == 0o1777
    code = "import sys; sys.path.append(sys.argv[1]); import digestry.registry.server, digestry.version as v"
    command = [sys.executable, "-I", "-S", "-c", f"{code}; print(v.__version__)", str(root / "opt/digestry")]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.strip() == wheel.name.split("-")[1]
