"""digestry's own verbs beside the real tools: each reads what the other wrote."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.e2e import asking
from tests.e2e.engines import Engine, Layout, busybox, docker_archive, root_file_system, runtime, tar
from tests.support import RegistryServer, program

_TO = "--dest-tls-verify=false"
_FROM = "--src-tls-verify=false"


@pytest.fixture
def store(tool: Engine) -> Path:
    """Where the tool's local store is."""
    return Path(tool.environment["DIGESTRY_HOME"]) / "images"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory that is a root file system."""
    directory = tmp_path / "files"
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/busybox").write_bytes(busybox())
    (directory / "bin/busybox").chmod(0o755)
    (directory / "bin/cat").symlink_to("busybox")
    (directory / "says").write_text("packed")
    return directory


def test_digest_prints_what_a_head_answers(
    skopeo: Engine, tool: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    digest = layout.name(layout.image([tar({"a": b"b"})], "sh"), "1")
    name = f"{registry.host}/{repository}:1"
    skopeo("copy", _TO, f"oci:{layout.path}:1", f"docker://{name}")
    assert tool("digest", name) == str(digest) == str(asking.head(registry, repository, "1"))


def test_skopeo_reads_what_digestry_pulled(
    *, skopeo: Engine, tool: Engine, store: Path, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    entries = [
        layout.image([tar({"a": name.encode()})], "sh", architecture=name) for name in ("amd64", "arm64")
    ]
    digest = layout.name(layout.index(entries), "all")
    single = layout.name(entries[0], "single")
    remote = f"{registry.host}/{repository}"
    for tag in ("all", "single"):
        skopeo("copy", "--all", _TO, f"oci:{layout.path}:{tag}", f"docker://{remote}:{tag}")
    tool("pull", "--all-platforms", f"{remote}:all")
    tool("pull", f"{remote}:single")
    raw = skopeo("inspect", "--raw", f"oci:{store}:{remote}:all")
    assert Digest.of(raw.encode()) == digest
    for name in (f"{remote}:single", f"{remote}@{single}"):
        assert skopeo.json("inspect", f"oci:{store}:{name}")["Digest"] == str(single)
    skopeo("copy", "--all", f"oci:{store}:{remote}:all", f"dir:{tmp_path}/copied")
    assert Digest.of((tmp_path / "copied/manifest.json").read_bytes()) == digest


def test_skopeo_reads_what_digestry_pushed(
    tool: Engine, registry: RegistryServer, repository: str, files: Path, skopeo: Engine
) -> None:
    name = f"{registry.host}/{repository}:1"
    digest = tool("pack", "--quiet", "--tag", name, "--push", "--cmd=/bin/cat /says", files).split()[-1]
    assert str(asking.head(registry, repository, "1")) == digest
    assert skopeo.json("inspect", "--tls-verify=false", f"docker://{name}")["Digest"] == digest


def test_a_packed_image_is_unpacked_and_run(tool: Engine, store: Path, files: Path, tmp_path: Path) -> None:
    umoci = Engine((program("umoci"),))
    tool("pack", "--quiet", "--tag=packed:1", "--cmd=/bin/cat /says", files)
    bundle = tmp_path / "bundle"
    umoci("unpack", "--image", f"{store}:docker.io/library/packed:1", bundle)
    assert (bundle / "rootfs/says").read_text() == "packed"
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["terminal"] = False
    (bundle / "config.json").write_text(json.dumps(config))
    run = Engine((runtime(),))
    assert run("run", f"--bundle={bundle}", f"digestry-{secrets.token_hex(6)}") == "packed"


@pytest.mark.long
@pytest.mark.xdist_group("docker")
def test_an_engine_runs_by_the_digest_that_digestry_shows(
    docker: Engine, tool: Engine, registry: RegistryServer, repository: str
) -> None:
    name = f"{registry.host}/{repository}:1"
    docker("load", stdin=docker_archive(name, [root_file_system(says=b"by digest")], "cat", "/says"))
    docker("push", name)
    digest = tool("digest", name)
    docker("rmi", "--force", name)
    by_digest = f"{registry.host}/{repository}@{digest}"
    docker("pull", by_digest)
    assert docker("run", "--rm", "--network=none", by_digest) == "by digest"
    docker("rmi", "--force", by_digest)
    # And the other way: digestry pulls what docker pushed, and shows the same digest and image ID.
    tool("pull", name)
    (row,) = json.loads(tool("images", "--format=json"))
    docker("pull", name)
    assert row["digest"] == digest
    assert row["image_id"] == docker("inspect", "--format={{.Id}}", name)
    docker("rmi", "--force", name)
