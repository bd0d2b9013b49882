"""A real containerd: what its own client prints, and what the sources containerd and cri see."""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.inventory.source_selection import parse_source
from digestry.inventory.sources.file import FileSource
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.e2e.engines import Engine, containerd_engine, docker_archive, root_file_system
from tests.e2e.peers import built
from tests.support import PATIENCE, RegistryServer, descriptor, lacking, program

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.peer("containerd")]

NATIVE = "--snapshotter=native"


@pytest.fixture(scope="module")
def ctr() -> Iterator[Engine]:
    with containerd_engine() as engine:
        yield engine


def test_what_ctr_prints(ctr: Engine, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive("reg.example/app:1", [root_file_system()], "busybox", "sleep", "9"))
    ctr("images", "import", NATIVE, archive)
    for name in ("one", "two"):
        ctr("containers", "create", NATIVE, "reg.example/app:1", name)
    table, info = tmp_path / "table", tmp_path / "info.json"
    table.write_text(ctr("containers", "ls"))
    info.write_text("\n".join(ctr("containers", "info", name) for name in ("one", "two")))
    for path in (table, info):
        seen = [one for one in FileSource("f", str(path)).observe() if isinstance(one, ContainerObservation)]
        assert [one.id for one in seen] == ["one", "two"]
        assert {one.image.reference for one in seen} == {"reg.example/app:1"}
        assert not any(one.image.claims for one in seen)
        assert all("may have moved" in one.remarks[0] for one in seen)
    for name in ("one", "two"):
        ctr("containers", "rm", name)


# -- the sources --------------------------------------------------------------------------------


def pushed(
    registry: RegistryServer, name: str, tag: str, says: str, *, label: str = "", architecture: str = "amd64"
) -> dict[str, Any]:
    """Pushes an image that says something in a file or in a label; returns its descriptor."""
    layer = root_file_system(said=says.encode())
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["busybox", "sleep", "1000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
    }
    if label:
        config["config"]["Labels"] = {"says": label}
    raw, packed = json.dumps(config).encode(), gzip.compress(layer, 1, mtime=0)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor(media_types.OCI_CONFIG, registry.push_blob(name, raw), len(raw)),
            "layers": [descriptor(media_types.OCI_LAYER_GZIP, registry.push_blob(name, packed), len(packed))],
        }
    ).encode()
    digest = registry.push_manifest(name, tag or str(Digest.of(manifest)), manifest)
    platform = {"os": "linux", "architecture": architecture}
    return descriptor(media_types.OCI_MANIFEST, digest, len(manifest), platform=platform)


def indexed(registry: RegistryServer, name: str, tag: str, says: str) -> Digest:
    entries = [pushed(registry, name, "", says + one, architecture=one) for one in ("amd64", "arm64")]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    return registry.push_manifest(name, tag, index)


def observed(text: str, *, stopped: bool = False) -> dict[str, ContainerObservation]:
    seen = list(parse_source(text, include_stopped=stopped).observe())
    assert not [one for one in seen if isinstance(one, Unseen)]
    return {one.name: one for one in seen if isinstance(one, ContainerObservation)}


def digests(seen: dict[str, ContainerObservation]) -> dict[str, str]:
    """The first digest that is claimed for each container, "" where there is none."""
    return {name: str(one.image.claims[0].digest) if one.image.claims else "" for name, one in seen.items()}


@pytest.mark.long
def test_the_source_containerd(ctr: Engine, registry: RegistryServer, tmp_path: Path) -> None:
    name = "fleet/containerd/app"
    app = f"{registry.host}/{name}"
    address = ctr.command[ctr.command.index("--address") + 1]
    started: list[str] = []

    def pull(image: str) -> None:
        ctr("images", "pull", "--plain-http", NATIVE, image)

    def create(image: str, container: str) -> None:
        ctr("containers", "create", NATIVE, image, container)
        started.append(container)

    first = pushed(registry, name, "1", "first")
    pull(f"{app}:1")
    create(f"{app}:1", "moved")
    second = pushed(registry, name, "1", "second")
    pull(f"{app}:1")
    create(f"{app}:1", "current")
    create(f"{app}:1", "behind")
    pushed(registry, name, "1", "third")  # the tag moves in the registry alone
    pushed(registry, name, "label", "same", label="one")
    pull(f"{app}:label")
    create(f"{app}:label", "same-layers")
    labelled = pushed(registry, name, "label", "same", label="two")
    pull(f"{app}:label")
    create(f"{app}:label", "labelled")
    pull(f"{app}@{first['digest']}")
    create(f"{app}@{first['digest']}", "pinned")
    index = indexed(registry, name, "multi", "multi")
    pull(f"{app}:multi")
    create(f"{app}:multi", "multi")
    ctr("images", "tag", f"{app}:1", "reg.example/other:9")
    create("reg.example/other:9", "retagged")
    pushed(registry, name, "gone", "gone")
    pull(f"{app}:gone")
    create(f"{app}:gone", "removed")
    ctr("images", "rm", "--sync", f"{app}:gone")
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive("reg.example/loaded:1", [root_file_system(l=b"")], "busybox", "sleep"))
    ctr("images", "import", NATIVE, archive)
    create("reg.example/loaded:1", "loaded")
    seen = observed(f"containerd:{address}", stopped=True)
    assert set(seen) == set(started)
    told = digests(seen)
    loaded = told.pop("loaded")
    assert loaded != ""
    assert not seen["loaded"].image.claims[0].obtained
    assert told == {
        "moved": "",
        "current": second["digest"],
        "behind": second["digest"],
        "same-layers": "",
        "labelled": labelled["digest"],
        "pinned": first["digest"],
        "multi": str(index),
        "retagged": second["digest"],
        "removed": "",
    }
    assert seen["multi"].image.claims[0].kind == "index"
    assert all(one.remarks for one in seen.values() if not one.image.claims)
    assert observed(f"containerd:{address}") == {}  # none of them runs
    for container in started:
        ctr("containers", "rm", container)


# -- the CRI ------------------------------------------------------------------------------------


@contextlib.contextmanager
def cri_engine(pause: str) -> Iterator[tuple[str, Engine]]:
    """A private containerd with its CRI: its socket's path, and crictl for it."""
    daemon, client, crictl = program("containerd"), program("ctr"), built("crictl")
    with tempfile.TemporaryDirectory(prefix="digestry-cri-", ignore_cleanup_errors=True) as name:
        path = f"{name}/containerd.sock"
        config = Path(name, "config.toml")
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        config.write_text(
            f'version = 2\nroot = "{name}/root"\nstate = "{name}/state"\n[grpc]\naddress = "{path}"\n'
            f'[{cri}]\ndisable_tcp_service = true\nstream_server_address = "127.0.0.1"\n'
            f'stream_server_port = "0"\nrestrict_oom_score_adj = true\nsandbox_image = "{pause}"\n'
            f'[{cri}.containerd]\nsnapshotter = "native"\n'
            f'[{cri}.cni]\nconf_dir = "{name}/cni"\nbin_dir = "{name}/cni"\n'
        )
        with Path(name, "log").open("wb") as log:
            process = subprocess.Popen([daemon, "--config", config], stdout=log, stderr=log)
        options = (f"--runtime-endpoint=unix://{path}", f"--image-endpoint=unix://{path}", "--timeout=60s")
        engine = Engine((str(crictl), *options))
        try:
            end = time.monotonic() + PATIENCE
            while engine.attempt("version").returncode != 0:
                if process.poll() is not None or time.monotonic() > end:
                    lacking(
                        "containerd's CRI", f"it does not start:\n{Path(name, 'log').read_text()[-2000:]}"
                    )
                time.sleep(0.1)
            Engine((client, "--address", path, "--namespace", "k8s.io"))(
                "images", "pull", "--plain-http", NATIVE, pause
            )
            yield path, engine
        finally:
            engine.attempt("rmp", "--all", "--force")
            process.terminate()
            process.wait(timeout=PATIENCE)


@pytest.mark.long
def test_the_sources_cri_and_containerd_of_a_kubelet_s_containers(
    registry: RegistryServer, tmp_path: Path
) -> None:
    name = "fleet/cri/app"
    app = f"{registry.host}/{name}"
    pushed(registry, "fleet/cri/pause", "1", "pause")
    labels = {"io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.namespace": "shop"}
    pod = tmp_path / "pod.json"
    pod.write_text(
        json.dumps(
            {
                "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1"},
                "labels": labels,
                "log_directory": str(tmp_path),
                "linux": {
                    "cgroup_parent": f"/digestry-{tmp_path.name}",
                    "security_context": {"namespace_options": {"network": 2}},
                },
            }
        )
    )
    with cri_engine(f"{registry.host}/fleet/cri/pause:1") as (path, crictl):
        made = crictl.attempt("runp", pod)
        if made.returncode != 0:
            lacking("containers by containerd's CRI", made.stderr[-1000:])

        def start(container: str, image: str) -> None:
            crictl("pull", image)
            config = tmp_path / f"{container}.json"
            own = {**labels, "io.kubernetes.container.name": container}
            config.write_text(
                json.dumps(
                    {
                        "metadata": {"name": container},
                        "image": {"image": image},
                        "labels": own,
                        "log_path": f"{container}.log",
                        "linux": {},
                    }
                )
            )
            crictl("start", crictl("create", made.stdout.strip(), config, pod))

        first = pushed(registry, name, "1", "first")
        start("moved", f"{app}:1")
        second = pushed(registry, name, "1", "second")
        start("current", f"{app}:1")
        index = indexed(registry, name, "multi", "multi")
        start("multi", f"{app}:multi")
        pushed(registry, name, "gone", "gone")
        start("removed", f"{app}:gone")
        crictl("rmi", f"{app}:gone")
        expected = {
            "web-1/moved": first["digest"],
            "web-1/current": second["digest"],
            "web-1/multi": str(index),
        }
        for kind in ("cri", "containerd"):
            seen = observed(f"{kind}:unix://{path}")
            told = digests(seen)
            removed = seen["web-1/removed"]
            assert told.pop("web-1/removed") == str(removed.image.image_id)
            assert removed.image.claims[0].found_by == "image-id"
            told.pop("web-1/(sandbox)", None)
            assert told == expected, kind
            assert {one.namespace for one in seen.values()} == {"shop"}
        crictl("stop", "--timeout=0", observed(f"cri:{path}")["web-1/moved"].id)
        for kind in ("cri", "containerd"):
            assert "web-1/moved" not in observed(f"{kind}:{path}")
            assert "web-1/moved" in observed(f"{kind}:{path}", stopped=True)
