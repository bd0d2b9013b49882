"""Real runtimes behind the few verbs that the table of situations needs."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from digestry.cli.demo_program import executable
from tests.client.docker_registry import running_docker_registry
from tests.e2e.engines import Engine, tar
from tests.e2e.reality import images
from tests.e2e.reality.roots import Root, entered
from tests.peers import build
from tests.support import program, wait_until

Family: TypeAlias = Literal["docker-classic", "docker-containerd", "podman", "ctr", "cri"]

_PLAIN: Final = "--tls-verify=false"


@dataclass(frozen=True)
class Kind:
    """One runtime of the table: its ``name``, whose programs it is, and how it is asked."""

    name: str
    release: str
    family: Family


KINDS: Final = (
    Kind("docker-20.10", "bookworm", "docker-classic"),
    Kind("docker-26.1", "trixie", "docker-classic"),
    Kind("docker-26.1-containerd-store", "trixie", "docker-containerd"),
    Kind("docker-28.5", "forky", "docker-classic"),
    Kind("docker-28.5-containerd-store", "forky", "docker-containerd"),
    Kind("podman-4.3", "bookworm", "podman"),
    Kind("podman-5.4", "trixie", "podman"),
    Kind("podman-5.8", "forky", "podman"),
    Kind("containerd-1.6", "bookworm", "ctr"),
    Kind("containerd-1.7", "trixie", "ctr"),
    Kind("containerd-2.1", "forky", "ctr"),
    Kind("containerd-1.6-cri", "bookworm", "cri"),
    Kind("containerd-1.7-cri", "trixie", "cri"),
    Kind("containerd-2.1-cri", "forky", "cri"),
)


class Runtime(ABC):
    """A runtime that was started for the tests. Names of images are whole references."""

    def __init__(self, kind: Kind, root: Root) -> None:
        self.kind = kind
        self.root = root

    @property
    @abstractmethod
    def source(self) -> str:
        """What ``digestry audit --source`` is given."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def pull(self, image: str) -> None: ...

    @abstractmethod
    def run(self, image: str, name: str) -> None:
        """Starts a container from an image that is there."""

    @abstractmethod
    def image_id(self, image: str) -> str: ...

    @abstractmethod
    def tag(self, image: str, name: str) -> None: ...

    @abstractmethod
    def forget(self, image: str) -> None:
        """Takes an image's name away, though containers run it."""

    @abstractmethod
    def load(self, archive: Path) -> None: ...

    @abstractmethod
    def push(self, image: str) -> None: ...

    @abstractmethod
    def restart(self, containers: list[str]) -> None:
        """Restarts the engine; what ran before runs afterwards."""

    @abstractmethod
    def clear(self) -> None:
        """Removes every container."""

    @abstractmethod
    def start(self) -> None: ...

    def build(self, image: str, says: str) -> None:
        """Makes an image that no registry has. A runtime that cannot build imports one."""
        path = self.root.scratch / "built.tar"
        path.write_bytes(images.archive(image, images.made(says)))
        self.load(path)


class Docker(Runtime):
    def start(self) -> None:
        scratch = self.root.scratch
        containerd = self.kind.family == "docker-containerd"
        (scratch / "daemon.json").write_text(
            json.dumps({"features": {"containerd-snapshotter": True}} if containerd else {})
        )
        self._start()

    def _start(self) -> None:
        scratch = self.root.scratch
        self.docker = Engine(
            (program("docker"),),
            {
                "DOCKER_HOST": f"unix://{scratch}/docker.sock",
                "DOCKER_CONFIG": f"{scratch}/config",
                "DOCKER_BUILDKIT": "0",
            },
        )
        self.root.start(
            "dockerd",
            ["dockerd", f"--config-file={scratch}/daemon.json", f"--data-root={scratch}/data",
             f"--exec-root={scratch}/exec", f"--host=unix://{scratch}/docker.sock",
             f"--pidfile={scratch}/pid",
             "--bridge=none", "--iptables=false", "--ip6tables=false"],
        )  # fmt: skip
        self.root.wait_for("dockerd", self.docker, "version")

    @property
    def source(self) -> str:
        return f"docker:unix://{self.root.scratch}/docker.sock"

    def version(self) -> str:
        return self.docker("version", "--format={{.Server.Version}}")

    def pull(self, image: str) -> None:
        self.docker("pull", "--quiet", image)

    def run(self, image: str, name: str) -> None:
        # The program heeds no signal: an engine that stops would wait for it.
        options = ("--detach", "--network=none", "--restart=always", "--stop-signal=KILL")
        self.docker("run", *options, f"--name={name}", image)

    def image_id(self, image: str) -> str:
        return self.docker("image", "inspect", "--format={{.Id}}", image)

    def tag(self, image: str, name: str) -> None:
        self.docker("tag", image, name)

    def forget(self, image: str) -> None:
        self.docker("rmi", "--force", image)

    def load(self, archive: Path) -> None:
        self.docker("load", f"--input={archive}")

    def build(self, image: str, says: str) -> None:
        lines = b'FROM scratch\nCOPY app /app\nCMD ["/app"]\n'
        context = tar({"Dockerfile": lines, "app": executable(says, images.ARCHITECTURE)})
        self.docker("build", "--quiet", "--network=none", f"--tag={image}", "-", stdin=context)

    def push(self, image: str) -> None:
        self.docker("push", image)

    def restart(self, containers: list[str]) -> None:
        self.root.stop("dockerd")
        self._start()
        for name in containers:
            wait_until(
                lambda name=name: self.docker("inspect", "--format={{.State.Running}}", name) == "true",
                what=f"{name}'s restart",
            )

    def clear(self) -> None:
        names = self.docker("ps", "--all", "--quiet").split()
        if names:
            self.docker("rm", "--force", *names)


class Podman(Runtime):
    def start(self) -> None:
        scratch = self.root.scratch
        self.podman = self.root.engine(
            "podman", f"--root={scratch}/root", f"--runroot={scratch}/run", f"--tmpdir={scratch}/tmp",
            "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=/usr/sbin/runc",
            HOME=str(scratch),
        )  # fmt: skip
        policy = scratch / ".config" / "containers" / "policy.json"
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._start()

    def _start(self) -> None:
        scratch = self.root.scratch
        (scratch / "podman.sock").unlink(missing_ok=True)
        inside = self.podman.command[self.podman.command.index("--") + 1 :]
        self.root.start(
            "podman",
            [*inside, "system", "service", "--time=0", f"unix://{scratch}/podman.sock"],
            HOME=str(scratch),
        )
        self.root.wait_for("podman", Engine(("test", "-S", f"{scratch}/podman.sock")))

    @property
    def source(self) -> str:
        return f"podman:unix://{self.root.scratch}/podman.sock"

    def version(self) -> str:
        return self.podman("version", "--format={{.Client.Version}}")

    def pull(self, image: str) -> None:
        self.podman("pull", "--quiet", _PLAIN, image)

    def run(self, image: str, name: str) -> None:
        # The limits of the machine's defaults may be above what this process may set.
        limits = ("--ulimit=nofile=256:256", "--ulimit=nproc=512:512")
        self.podman(
            "run",
            "--detach",
            "--pull=never",
            "--network=none",
            "--log-driver=k8s-file",
            *limits,
            f"--name={name}",
            image,
        )

    def image_id(self, image: str) -> str:
        return self.podman("image", "inspect", "--format={{.Id}}", image)

    def tag(self, image: str, name: str) -> None:
        self.podman("tag", image, name)

    def forget(self, image: str) -> None:
        # "rmi --force" would remove the containers too.
        self.podman("untag", self.image_id(image))

    def load(self, archive: Path) -> None:
        self.podman("load", f"--input={archive}")

    def build(self, image: str, says: str) -> None:
        context = self.root.scratch / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text('FROM scratch\nCOPY app /app\nCMD ["/app"]\n')
        (context / "app").write_bytes(executable(says, images.ARCHITECTURE))
        (context / "app").chmod(0o755)
        self.podman("build", "--quiet", "--network=none", f"--tag={image}", context)

    def push(self, image: str) -> None:
        self.podman("push", "--quiet", _PLAIN, image)

    def restart(self, containers: list[str]) -> None:
        self.podman("stop", "--time=0", *containers)
        self.root.stop("podman")
        self._start()
        self.podman("start", *containers)

    def clear(self) -> None:
        self.podman("rm", "--all", "--force", "--time=0")


class Containerd(Runtime):
    """containerd by its own client, ``ctr``: its containers keep the name of their image."""

    namespace = "default"

    def start(self) -> None:
        scratch = self.root.scratch
        (scratch / "config.toml").write_text(
            f'version = 2\n{self._disabled()}root = "{scratch}/root"\nstate = "{scratch}/state"\n'
            f'[grpc]\naddress = "{scratch}/containerd.sock"\n{self._plugins()}'
        )
        self.ctr = self.root.engine(
            "ctr", f"--address={scratch}/containerd.sock", f"--namespace={self.namespace}"
        )
        self._start()

    def _disabled(self) -> str:
        return 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'

    def _plugins(self) -> str:
        return ""

    def _start(self) -> None:
        self.root.start("containerd", ["containerd", "--config", f"{self.root.scratch}/config.toml"])
        self.root.wait_for("containerd", self.ctr, "version")

    @property
    def source(self) -> str:
        return f"containerd:{self.root.scratch}/containerd.sock"

    def version(self) -> str:
        return self.root.engine("containerd")("--version").split()[2]

    def _images(self, verb: str, *words: str | Path) -> None:
        # Release 2 has its service do it, which unpacks for the default snapshotter alone.
        local = ("--local",) if "--local" in self.ctr("images", verb, "--help") else ()
        self.ctr("images", verb, *local, *words)

    def pull(self, image: str) -> None:
        self._images("pull", "--plain-http", "--snapshotter=native", image)

    def run(self, image: str, name: str) -> None:
        self.ctr("run", "--detach", "--snapshotter=native", image, name)

    def image_id(self, image: str) -> str:
        for line in self.ctr("images", "ls").splitlines():
            if line.split()[0] == image:
                return line.split()[2]
        raise AssertionError(image)

    def tag(self, image: str, name: str) -> None:
        self.ctr("images", "tag", image, name)

    def forget(self, image: str) -> None:
        self.ctr("images", "rm", "--sync", image)

    def load(self, archive: Path) -> None:
        self._images("import", "--snapshotter=native", archive)

    def push(self, image: str) -> None:
        self._images("push", "--plain-http", image)

    def restart(self, containers: list[str]) -> None:
        self.root.stop("containerd")
        self._start()

    def clear(self) -> None:
        for name in self.ctr("containers", "ls", "--quiet").split():
            self.ctr.attempt("tasks", "rm", "--force", name)
            self.ctr("containers", "rm", name)


class Cri(Containerd):
    """containerd by its CRI plugin, as a kubelet asks it."""

    namespace = "k8s.io"

    def start(self) -> None:
        self._pods = contextlib.ExitStack()
        self._pause = self._pods.enter_context(running_docker_registry())
        images.publish(f"{self._pause}/pause:1", images.made("pause"))
        super().start()
        socket = f"unix://{self.root.scratch}/containerd.sock"
        built = build.place("crictl")
        crictl = str(built) if built.exists() else program("crictl")
        self.crictl = Engine(
            (crictl, f"--runtime-endpoint={socket}", f"--image-endpoint={socket}", "--timeout=60s")
        )
        wait_until(lambda: self.crictl.attempt("info").returncode == 0, what="the CRI's first answer")
        self._sandbox = self.root.scratch / "pod.json"
        self._sandbox.write_text(json.dumps({
            "metadata": {"name": "pod", "namespace": "shop", "uid": "u1", "attempt": 1},
            "log_directory": str(self.root.scratch / "logs"),
            "linux": {"security_context": {"namespace_options": {"network": 2}}},
        }))  # fmt: skip
        self._pod = self.crictl("runp", self._sandbox)

    def _disabled(self) -> str:
        return ""

    def _plugins(self) -> str:
        return (
            f'[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "{self._pause}/pause:1"\n'
            "disable_apparmor = true\nrestrict_oom_score_adj = true\n"
            '[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"\n'
            f'[plugins."io.containerd.grpc.v1.cri".cni]\nconf_dir = "{self.root.scratch}/cni"\n'
        )

    @property
    def source(self) -> str:
        return f"cri:unix://{self.root.scratch}/containerd.sock"

    def pull(self, image: str) -> None:
        self.crictl("pull", image)

    def image_id(self, image: str) -> str:
        return str(self.crictl.json("inspecti", "--output=json", image)["status"]["id"])

    def run(self, image: str, name: str) -> None:
        # A kubelet gives the ID of what it pulled, and beside it what the pod names.
        container = self.root.scratch / "container.json"
        by_id = image.startswith("sha256:")
        container.write_text(json.dumps({
            "metadata": {"name": name},
            "image": {"image": image if by_id else self.image_id(image), "user_specified_image": image},
            "log_path": f"{name}.log",
            "linux": {},
        }))  # fmt: skip
        self.crictl("start", self.crictl("create", self._pod, container, self._sandbox))

    def forget(self, image: str) -> None:
        self.crictl("rmi", image)

    def clear(self) -> None:
        for identity in self.crictl("ps", "--all", "--quiet").split():
            self.crictl("rm", "--force", identity)

    def stop(self) -> None:
        self._pods.close()


_CLASSES: Final[dict[str, type[Runtime]]] = {
    "docker-classic": Docker,
    "docker-containerd": Docker,
    "podman": Podman,
    "ctr": Containerd,
    "cri": Cri,
}


@contextlib.contextmanager
def running(kind: Kind) -> Iterator[Runtime]:
    """A runtime with nothing in it, for the block."""
    with entered(kind.release) as root:
        runtime = _CLASSES[kind.family](kind, root)
        try:
            runtime.start()
            yield runtime
        finally:
            if isinstance(runtime, Cri):
                runtime.stop()
