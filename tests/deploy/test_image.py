"""The image without a container engine, and its health check."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.deploy.test_distribution import SOURCE, build, copied
from tests.images.making import tree
from tests.support import RegistryServer, free_port, run_digestry

IMAGE = SOURCE / "deploy" / "image"
PYTHON = f"usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"


def health(address: str) -> int:
    return subprocess.run([sys.executable, str(IMAGE / "healthcheck.py"), address], check=False).returncode


def test_the_health_check_asks_a_registry(registry: RegistryServer) -> None:
    assert health(registry.host) == 0
    assert health(f"127.0.0.1:{free_port()}") == 1


@pytest.mark.long
def test_an_image_is_packed_upon_a_base(tmp_path: Path) -> None:
    """The base has no more than the name of a Python: what comes upon it is run by this one."""
    build(copied(tmp_path / "source"), tmp_path / "dist", "wheel")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    environment = {
        **os.environ,
        "PIP": f"{sys.executable} -m pip",
        "DIGESTRY": f"{sys.executable} -P -m digestry",
        "DIGESTRY_HOME": str(tmp_path / "home"),
    }
    root = tree(tmp_path / "base", **{PYTHON.replace("/", "__"): "#!/bin/sh\n"})
    (root / PYTHON).chmod(0o755)
    assert run_digestry("pack", root, "-t", "python:1", env=environment).returncode == 0
    command = [str(IMAGE / "pack.sh"), "python:1", str(wheel), "registry.example/digestry:1", "--quiet"]
    packed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert packed.returncode == 0, packed.stderr

    done = run_digestry("inspect", "registry.example/digestry:1", "--format", "json", env=environment)
    config = json.loads(done.stdout)["image"]["config"]
    assert (config["User"], config["Entrypoint"]) == ("10001:10001", ["digestry"])
    assert config["Cmd"] == ["serve", "--config", "/etc/digestry/registry.toml"]
    assert config["Healthcheck"]["Test"][-1] == "127.0.0.1:5000"
    exported = tmp_path / "root.tar"
    run_digestry("export", "registry.example/digestry:1", "-o", exported, env=environment)
    with tarfile.open(fileobj=io.BytesIO(exported.read_bytes())) as archive:
        content = archive.getmember("var/lib/digestry")
        assert (content.uid, content.gid, content.mode) == (10001, 10001, 0o700)
        assert archive.getmember("usr/local/bin/digestry").mode == 0o755
        assert {member.uid for member in archive if member is not content} == {0}
        assert {member.mtime for member in archive} == {0}
        # A note of where the wheel was would be a part of the digest.
        assert not [name for name in archive.getnames() if name.endswith("direct_url.json")]
        archive.extractall(tmp_path / "root", filter="tar")
    code = "import sys; sys.path.append(sys.argv[1]); import digestry.registry.server, digestry.version as v"
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"{code}; print(v.__version__)",
        str(tmp_path / "root/opt/digestry"),
    ]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.strip() == wheel.name.split("-")[1]
