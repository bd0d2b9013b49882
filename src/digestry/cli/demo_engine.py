"""The container engine of the demo: an installed one, one that is installed for it, or none."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from digestry.errors import InvalidConfiguration, Unreachable
from digestry.model.platform import Platform

LABEL: Final = "digestry.demo"
_PROBE_SECONDS: Final = 15
_START_SECONDS: Final = 60
_DEFAULT_SOCKET: Final = "unix:///var/run/docker.sock"


@dataclass(slots=True)
class Engine:
    """A reachable engine. ``source`` is its name for ``digestry audit --source``."""

    program: str
    architecture: str
    source: str
    environment: dict[str, str] = field(default_factory=dict)
    daemon: subprocess.Popen[bytes] | None = None

    def start_command(self, name: str, image: str, *, newest: bool = False) -> list[str]:
        """Return the command that starts a long-running container.

        ``newest`` pulls the tag's present image first.
        """
        options = ["--detach", "--name", name, "--label", LABEL, "--network", "none"]
        if newest:
            options += ["--pull", "always"]
        return [self.program, "run", *options, *self._insecure(), image]

    def run_command(self, image: str) -> list[str]:
        """Return the command that runs a container that prints its version and ends."""
        return [self.program, "run", "--rm", "--network", "none", *self._insecure(), image, "--version"]

    def remove_command(self, *names: str) -> list[str]:
        return [self.program, "rm", "--force", *names]

    def _insecure(self) -> list[str]:
        # Docker accepts plain HTTP from loopback by default; podman needs an option.
        return ["--tls-verify=false"] if self.program == "podman" else []

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the engine's program quietly."""
        return subprocess.run(
            [self.program, *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )

    def clean(self, repository: str) -> None:
        """Remove the demo's containers and its images."""
        found = self.call("ps", "--all", "--quiet", "--filter", f"label={LABEL}").stdout.split()
        if found:
            self.call("rm", "--force", *found)
        images = self.call("images", "--quiet", "--no-trunc", repository).stdout.split()
        if images:
            self.call("rmi", "--force", *dict.fromkeys(images))

    def stop(self) -> None:
        """Stop the daemon, if the demo started it."""
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(timeout=_START_SECONDS)


def find(kinds: tuple[str, ...] = ("docker", "podman")) -> Engine | None:
    """Return the first engine that answers, or None."""
    probes = {"docker": _find_docker, "podman": _find_podman}
    return next((engine for kind in kinds if (engine := probes[kind]()) is not None), None)


def _ask(*command: str, environment: dict[str, str] | None = None) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        answer = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    text = answer.stdout.strip()
    return text if answer.returncode == 0 and text else None


def _find_docker(environment: dict[str, str] | None = None) -> Engine | None:
    environment = environment or {}
    architecture = _ask("docker", "version", "--format", "{{.Server.Arch}}", environment=environment)
    if architecture is None:
        return None
    endpoint = environment.get("DOCKER_HOST") or os.environ.get("DOCKER_HOST")
    endpoint = endpoint or _ask("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    source = "docker" if endpoint in {None, _DEFAULT_SOCKET} else f"docker:{endpoint}"
    return Engine("docker", architecture, source, environment)


def _find_podman() -> Engine | None:
    architecture = _ask("podman", "info", "--format", "{{.Host.Arch}}")
    return None if architecture is None else Engine("podman", architecture, "podman")


def install(directory: Path, say: Callable[[str], None]) -> Engine:
    """Install Debian's docker.io if need be, and start an engine of the demo's own in ``directory``.

    Raises :class:`InvalidConfiguration` where that cannot be done, :class:`Unreachable` if the
    engine does not come up.
    """
    running = _find_docker()
    if running is not None:
        say("A docker engine is running already: it is used as it is.")
        return running
    if os.geteuid() != 0 or platform.system() != "Linux":
        raise InvalidConfiguration("installing an engine needs root on Linux", hint="or start one yourself")
    if shutil.which("dockerd") is None:
        _install_package(say)
        running = _find_docker()
        if running is not None:
            return running  # the package's own service started it
    return _start(directory, say)


def _install_package(say: Callable[[str], None]) -> None:
    if shutil.which("apt-get") is None:
        raise InvalidConfiguration(
            "installing an engine needs Debian's or Ubuntu's apt-get", hint="install docker"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", "docker.io"],
    ):
        say("$ " + " ".join(command))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InvalidConfiguration(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-500:]}")


def _start(directory: Path, say: Callable[[str], None]) -> Engine:
    directory.mkdir()
    host = f"unix://{directory}/docker.sock"
    command = [
        "dockerd",
        *("--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"),
        *("--pidfile", f"{directory}/pid", "--host", host),
        # The demo's containers need no network, so that the host's firewall is left alone.
        *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
    ]
    say("$ " + " ".join(command) + " &")
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and daemon.poll() is None:
        engine = _find_docker({"DOCKER_HOST": host})
        if engine is not None:
            engine.daemon = daemon
            say(f"$ export DOCKER_HOST={host}")
            return engine
        time.sleep(0.3)
    if daemon.poll() is None:
        daemon.terminate()
        daemon.wait(timeout=_START_SECONDS)
    tail = (directory / "log").read_text(errors="replace")[-800:]
    raise Unreachable(f"dockerd did not come up; the end of its log:\n{tail}")


def host_architecture() -> str:
    """Return this machine's architecture, in Go's names."""
    return Platform.of_host().architecture
