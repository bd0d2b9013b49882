"""Real engines with storage of their own, in a temporary directory, and the images they run."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.support import PATIENCE, descriptor, free_port, lacking, program, wait_until

_STOP_SECONDS = 60
_COMMAND_SECONDS = 300


@dataclass(frozen=True)
class Engine:
    """A real program. Calling it runs one command and gives what that wrote to its standard output."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def attempt(self, *arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Runs one command, which may fail."""
        done = subprocess.run(
            [*self.command, *map(str, arguments)],
            input=stdin or b"",
            capture_output=True,
            env={**os.environ, **self.environment},
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def __call__(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        """Runs one command; fails the test, with what the program said, if the command fails."""
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode != 0:
            pytest.fail(f"{' '.join(done.args)} exited {done.returncode}:\n{done.stderr}{done.stdout}")
        return done.stdout.strip()

    def json(self, *arguments: str | Path) -> Any:
        """Runs one command and reads its output as JSON."""
        return json.loads(self(*arguments))


# -- engines ------------------------------------------------------------------------------------


def _root(peer: str) -> None:
    if os.geteuid() != 0:
        lacking(peer, "an engine of the test's own must be started as root")


@contextlib.contextmanager
def docker_engine(*options: str) -> Iterator[Engine]:
    """A private dockerd, with further ``options``, and docker's client for it. Containers have no network."""
    client, daemon = program("docker"), program("dockerd")
    _root("dockerd")
    with tempfile.TemporaryDirectory(prefix="digestry-dockerd-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        socket = f"unix://{directory}/docker.sock"
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    daemon,
                    f"--data-root={directory}/data",
                    f"--exec-root={directory}/exec",
                    f"--host={socket}",
                    f"--pidfile={directory}/pid",
                    # Neither a bridge nor packet filters: what other engines share stays as it is.
                    "--bridge=none",
                    "--iptables=false",
                    "--ip6tables=false",
                    # What fails once is not hidden by another try.
                    "--max-download-attempts=1",
                    *options,
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        docker = Engine(
            (client,),
            {"DOCKER_HOST": socket, "DOCKER_CONFIG": f"{directory}/config", "DOCKER_BUILDKIT": "0"},
        )
        try:
            end = time.monotonic() + PATIENCE
            while docker.attempt("version").returncode != 0:
                if process.poll() is not None or time.monotonic() > end:
                    said = (directory / "log").read_text(errors="replace")[-2000:]
                    lacking("dockerd", f"it does not start here; its log ends so:\n{said}")
                time.sleep(0.1)
            yield docker
        finally:
            for container in docker.attempt("ps", "-aq").stdout.split():
                docker.attempt("rm", "-f", container)
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def containerd_engine() -> Iterator[Engine]:
    """A private containerd, without its CRI, and its own client for it."""
    client, daemon = program("ctr"), program("containerd")
    _root("containerd")
    with tempfile.TemporaryDirectory(prefix="digestry-containerd-", ignore_cleanup_errors=True) as name:
        config = Path(name, "config.toml")
        config.write_text(
            f'version = 2\nroot = "{name}/root"\nstate = "{name}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{name}/containerd.sock"\n'
        )
        with Path(name, "log").open("wb") as log:
            process = subprocess.Popen([daemon, "--config", config], stdout=log, stderr=log)
        engine = Engine((client, "--address", f"{name}/containerd.sock", "--namespace", "k8s.io"))
        try:
            end = time.monotonic() + PATIENCE
            while engine.attempt("version").returncode != 0:
                if process.poll() is not None or time.monotonic() > end:
                    lacking("containerd", f"it does not start here:\n{Path(name, 'log').read_text()[-2000:]}")
                time.sleep(0.1)
            yield engine
        finally:
            process.terminate()
            process.wait(timeout=_STOP_SECONDS)


@contextlib.contextmanager
def podman_storage() -> Iterator[tuple[str, ...]]:
    """The options that give podman and buildah one storage, of their own."""
    podman = program("podman")
    _root("podman")
    with tempfile.TemporaryDirectory(prefix="digestry-podman-", ignore_cleanup_errors=True) as name:
        options = (
            f"--root={name}/root",
            f"--runroot={name}/run",
            "--storage-driver=vfs",
        )
        try:
            yield options
        finally:
            Engine((podman, *options, *podman_only(Path(name))))("rm", "--all", "--force", "--time=0")


@contextlib.contextmanager
def podman_service(podman: Engine) -> Iterator[str]:
    """Podman's API for the storage of ``podman``: the address of its socket."""
    with tempfile.TemporaryDirectory(prefix="digestry-podman-api-") as name:
        url = f"unix://{name}/podman.sock"
        with Path(name, "log").open("wb") as log:
            process = subprocess.Popen(
                [*podman.command, "system", "service", "--time=0", url],
                stdout=log,
                stderr=log,
                env={**os.environ, **podman.environment},
            )
        try:
            wait_until(Path(name, "podman.sock").exists, what="podman's socket")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def podman_only(directory: Path) -> tuple[str, ...]:
    """Options of podman's that buildah does not have."""
    return (f"--tmpdir={directory}/tmp", "--cgroup-manager=cgroupfs", f"--runtime={runtime()}")


def runtime() -> str:
    """The OCI runtime to run containers with, or the end of the test.

    runc first: crun does not start where both versions of cgroups are mounted.
    """
    return shutil.which("runc") or program("crun")


@contextlib.contextmanager
def docker_registry() -> Iterator[str]:
    """The address of a running docker-registry (the distribution project's, 2.8)."""
    server = program("docker-registry")
    with tempfile.TemporaryDirectory(prefix="digestry-peer-") as name:
        directory = Path(name)
        host = f"127.0.0.1:{free_port()}"
        config = {
            "version": 0.1,
            "storage": {
                "filesystem": {"rootdirectory": f"{name}/data"},
                "delete": {"enabled": True},
            },
            "http": {"addr": host},
            "log": {"accesslog": {"disabled": True}, "level": "error"},
        }
        (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [server, "serve", f"{name}/config.yml"], stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until(lambda: _answers(host), what="docker-registry's first answer")
            yield host
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


def _answers(host: str) -> bool:
    with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        except OSError:
            return False


# -- images -------------------------------------------------------------------------------------


def busybox() -> bytes:
    """A statically linked busybox, or the end of the test."""
    path = Path(program("busybox"))
    return path.read_bytes()


def tar(files: Mapping[str, bytes | str]) -> bytes:
    """A tar of ``files``, always the same bytes; a ``str`` is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def root_file_system(**extra: bytes) -> bytes:
    """A tar that is enough to run ``sh``, ``cat`` and ``echo`` in."""
    links = {f"bin/{name}": "busybox" for name in ("sh", "cat", "echo", "ls")}
    return tar({"bin/busybox": busybox(), **links, **extra})


def docker_archive(name: str, layers: Sequence[bytes], *command: str, architecture: str = "amd64") -> bytes:
    """What ``docker load`` reads: an image of these (uncompressed) layers."""
    config = _config(layers, command, architecture)
    manifest = [
        {
            "Config": "config.json",
            "RepoTags": [name],
            "Layers": [f"{number}/layer.tar" for number in range(len(layers))],
        }
    ]
    files: dict[str, bytes | str] = {"config.json": config, "manifest.json": json.dumps(manifest).encode()}
    files.update({f"{number}/layer.tar": layer for number, layer in enumerate(layers)})
    return tar(files)


def _config(layers: Sequence[bytes], command: Sequence[str], architecture: str) -> bytes:
    return json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
        }
    ).encode()


@dataclass(frozen=True)
class Layout:
    """An OCI image layout that is made by hand, so that the tests know each of its bytes."""

    path: Path

    def __post_init__(self) -> None:
        (self.path / "blobs" / "sha256").mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._write_index([])

    def _write_index(self, manifests: list[dict[str, Any]]) -> None:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))

    def add(self, media_type: str, content: bytes, **extra: Any) -> dict[str, Any]:
        """Stores a blob; returns its descriptor."""
        digest = Digest.of(content)
        (self.path / "blobs" / "sha256" / digest.encoded).write_bytes(content)
        return descriptor(media_type, digest, len(content), **extra)

    def name(self, entry: dict[str, Any], name: str) -> Digest:
        """Gives a manifest a name in the layout's index; returns its digest."""
        index = json.loads((self.path / "index.json").read_text())
        annotations = {"org.opencontainers.image.ref.name": name}
        self._write_index([*index["manifests"], {**entry, "annotations": annotations}])
        return Digest.parse(entry["digest"])

    def image(
        self, layers: Sequence[bytes], *command: str, architecture: str = "amd64", compress: bool = True
    ) -> dict[str, Any]:
        """Adds an image; returns its descriptor, with its platform."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": self.add(media_types.OCI_CONFIG, _config(layers, command, architecture)),
            "layers": [
                self.add(media_types.OCI_LAYER_GZIP, gzip.compress(layer, 1, mtime=0))
                if compress
                else self.add(media_types.OCI_LAYER, layer)
                for layer in layers
            ],
            # Clients must carry what they do not know: it is under the digest.
            "annotations": {"org.example.kept": "ü  "},
        }
        raw = json.dumps(manifest, indent=3, ensure_ascii=False).encode()
        platform = {"architecture": architecture, "os": "linux"}
        return self.add(media_types.OCI_MANIFEST, raw, platform=platform)

    def index(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Adds an index of images; returns its descriptor."""
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": list(entries)}
        return self.add(media_types.OCI_INDEX, json.dumps(index, indent=1).encode())
