"""Every command that moves images, cut and killed again and again: plain HTTP, TLS, a far line.

The right bytes are there at the end, and what had come was not fetched, nor sent, a second time: but for the
part that was on its way. By default there are a few cuts and kills, and one line for each way; with
``DIGESTRY_FAULTS=all`` a hundred of each for each way and line.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from digestry.model.digest import Digest
from tests import certificates
from tests.copy.slow_proxy import SlowProxy, slow_proxy
from tests.copy.test_odd_images import LayoutDirectory
from tests.support import PATIENCE, digestry, running_registry

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("cut-and-killed")]

ALL: Final = os.environ.get("DIGESTRY_FAULTS") == "all"
TIMES: Final = 100 if ALL else 4
RATE: Final = 12 << 20
"""Bytes a second over a proxy."""
LARGE: Final = max(12 << 20, TIMES * (400 << 10))
SMALL: Final = 1 << 20
"""An upload of so few bytes begins anew."""
SIZE: Final = LARGE + 2 * SMALL
KILLED_IN_FLIGHT: Final = 4 << 20
"""Bytes of all blobs together that may be on the way, and in memory, when a process is killed."""
CUT_DOWN: Final = 512 << 10
"""The same when a connection is cut. What is in memory stays, unless the command gives up: of ranges that
come side by side, those whose turn it was not."""
CUT_UP: Final = SMALL + (128 << 10)
"""Of an upload, which a registry may have taken in part."""
_FAR: Final = """
from digestry.client import blob_download, connections_ahead, ranged_download
connections_ahead.FAR = 0.0
blob_download._WATCHED = 0.02
blob_download._FAST = 1 << 40
ranged_download.WORTH = ranged_download.WORTH_IF_SLOW = 256 << 10
ranged_download._RANGE = 64 << 10
"""
"""As on a far line: connections are opened ahead, and layers come by ranges side by side."""
_RUN: Final = "import sys\n{}\nfrom digestry.cli.main import main\nsys.argv[0] = 'digestry'\nmain()"


@dataclass
class Line:
    """The registry, and how commands reach it."""

    port: int
    tls: bool
    far: bool
    environment: dict[str, str]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self, *arguments: str) -> list[str]:
        if self.far:
            return [sys.executable, "-c", _RUN.format(_FAR), *arguments]
        return digestry(*arguments)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, tuple[int, Path]]]:
    """The ports of a registry with TLS, and of one without, and the authority."""
    pki = certificates.make(tmp_path_factory.mktemp("cut") / "pki")
    certificate, key = pki.server
    config = pki.directory / "registry.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    with ExitStack() as opened:
        with_tls = opened.enter_context(running_registry("--config", str(config)))
        plain = opened.enter_context(running_registry())
        yield {True: (with_tls.port, pki.authority), False: (plain.port, pki.authority)}


@pytest.fixture
def line(request: pytest.FixtureRequest, servers: dict[bool, tuple[int, Path]], tmp_path: Path) -> Line:
    kind = request.node.callspec.params["kind"]
    tls = kind != "plain"
    port, authority = servers[tls]
    environment = {
        **os.environ,
        "DIGESTRY_HOME": str(tmp_path / "home"),
        "DOCKER_CONFIG": str(tmp_path),
        "SSL_CERT_FILE": str(authority),
    }
    return Line(port, tls, kind == "far", environment)


class Scene:
    """An image in a layout, in the registry and in the local store; and the ways that it can go."""

    def __init__(self, line: Line, name: str, path: Path) -> None:
        self.line, self.path = line, path
        self.repository = f"cut/{name}"
        chance = random.Random(name)
        layout = LayoutDirectory(path / "made")
        layers = [chance.randbytes(size) for size in (LARGE, SMALL, SMALL)]
        entry = layout.image(*layers)
        layout.name(entry, "1")
        self.digest = Digest.parse(entry["digest"])
        self.made = f"oci:{layout.path}:1"
        self.source = f"{self.repository}:1"

    def prepare_registry(self) -> None:
        self.line.run("copy", "-q", self.made, f"{self.line.host}/{self.source}")

    def check(self, place: str) -> None:
        """Every byte of the image at ``place`` is right."""
        back = self.path / "back"
        assert self.line.run("copy", "-q", place, f"oci:{back}").strip() == str(self.digest)
        found = json.loads((back / "index.json").read_text())["manifests"]
        assert [one["digest"] for one in found] == [str(self.digest)]
        for blob in (back / "blobs/sha256").iterdir():
            assert Digest.of(blob.read_bytes()).encoded == blob.name


Way = Callable[[Scene, str, str], tuple[list[str], str]]
"""Prepares, and returns the arguments of a command, and the place where the image is afterwards. It is given
the hosts of the proxies for what comes down and for what goes up."""


def pull(scene: Scene, down: str, up: str) -> tuple[list[str], str]:
    scene.prepare_registry()
    return ["pull", "-q", f"{down}/{scene.source}"], f"local:{down}/{scene.source}"


def push(scene: Scene, down: str, up: str) -> tuple[list[str], str]:
    name = f"{up}/{scene.repository}/pushed:1"
    scene.line.run("copy", "-q", scene.made, f"local:{name}")
    return ["push", "-q", name], f"{scene.line.host}/{scene.repository}/pushed:1"


def _to(target: str) -> Way:
    def copy(scene: Scene, down: str, up: str) -> tuple[list[str], str]:
        scene.prepare_registry()
        place = target.format(path=scene.path)
        return ["copy", "-q", f"{down}/{scene.source}", place], place

    return copy


def between_registries(scene: Scene, down: str, up: str) -> tuple[list[str], str]:
    scene.prepare_registry()
    there = f"{scene.repository}/there:1"
    return ["copy", "-q", f"{down}/{scene.source}", f"{up}/{there}"], f"{scene.line.host}/{there}"


def from_a_layout(scene: Scene, down: str, up: str) -> tuple[list[str], str]:
    there = f"{scene.repository}/there:1"
    return ["copy", "-q", scene.made, f"{up}/{there}"], f"{scene.line.host}/{there}"


def sync(scene: Scene, down: str, up: str) -> tuple[list[str], str]:
    scene.prepare_registry()
    file = scene.path / "sync.toml"
    there = f"{scene.repository}/synced"
    file.write_text(
        f'[[copy]]\nsource = "{down}/{scene.repository}"\ntarget = "{up}/{there}"\ntags = ["1"]\n'
    )
    return ["sync", str(file)], f"{scene.line.host}/{there}:1"


WAYS: Final[dict[str, Way]] = {
    "pull": pull,
    "push": push,
    "oci": _to("oci:{path}/layout:1"),
    "oci-archive": _to("oci-archive:{path}/layout.tar:1"),
    "docker-archive": _to("docker-archive:{path}/saved.tar:app:1"),
    "local": _to("local:killed:1"),
    "registries": between_registries,
    "layout": from_a_layout,
    "sync": sync,
}


LINES: Final = ("plain", "tls", "far")
PAIRS: Final = [
    (way, kind)
    for number, way in enumerate(WAYS)
    for other, kind in enumerate(LINES)
    if ALL or number % len(LINES) == other
]


def moved(proxies: tuple[SlowProxy, SlowProxy]) -> list[int]:
    return [proxy.sent for proxy in proxies]


def report(request: pytest.FixtureRequest, times: int, proxies: tuple[SlowProxy, SlowProxy]) -> None:
    for proxy, direction in zip(proxies, ("down", "up"), strict=True):
        if proxy.sent > SIZE // 2:
            more = (proxy.sent - SIZE) / times
            print(f"{request.node.name}: {times} times, {direction} {more / 1024:.0f} KiB more each time")


@pytest.mark.parametrize(("way", "kind"), PAIRS)
def test_killed(request: pytest.FixtureRequest, line: Line, way: str, kind: str, tmp_path: Path) -> None:
    scene = Scene(line, f"killed-{request.node.callspec.id}", tmp_path)
    chance = random.Random(way)
    with (
        slow_proxy(line.port, rate=RATE) as down,
        slow_proxy(line.port, rate=RATE, uploads=True) as up,
    ):
        proxies = (down, up)
        arguments, place = WAYS[way](scene, down.host, up.host)
        kills = 0
        for _ in range(TIMES):
            goal = max(moved(proxies)) + chance.randrange(1, 2 * SIZE // (TIMES + 2))
            process = subprocess.Popen(
                line.command(*arguments), env=line.environment,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while max(moved(proxies)) < goal and process.poll() is None:
                time.sleep(0.005)
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
        line.run(*arguments)
        report(request, kills, proxies)
        assert kills >= TIMES * 3 // 4
        assert max(moved(proxies)) < SIZE + SIZE // 50 + kills * KILLED_IN_FLIGHT
    scene.check(place)


@pytest.mark.parametrize(("way", "kind"), PAIRS)
def test_cut(request: pytest.FixtureRequest, line: Line, way: str, kind: str, tmp_path: Path) -> None:
    """Each connection is cut at a random byte; a command that gives up is called once more."""
    scene = Scene(line, f"cut-{request.node.callspec.id}", tmp_path)
    after = SIZE // (TIMES + 2)
    with (
        slow_proxy(line.port, rate=4 * RATE, cut_after=after) as down,
        slow_proxy(line.port, rate=4 * RATE, cut_after=after, uploads=True) as up,
    ):
        proxies = (down, up)
        arguments, place = WAYS[way](scene, down.host, up.host)
        for _ in range(TIMES):
            done = subprocess.run(
                line.command(*arguments), env=line.environment, capture_output=True, text=True, check=False
            )
            assert "Traceback" not in done.stderr
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stderr
        cuts = sum(proxy.cuts for proxy in proxies)
        report(request, cuts, proxies)
        assert cuts >= TIMES // 2
        assert down.sent < SIZE + SIZE // 50 + (cuts + 1) * CUT_DOWN
        assert up.sent < SIZE + SIZE // 50 + (cuts + 1) * CUT_UP
    scene.check(place)


def test_a_load_that_is_killed(tmp_path: Path) -> None:
    """Its bytes are here already: what counts is that nothing half-written is taken for an image."""
    line = Line(0, False, False, {**os.environ, "DIGESTRY_HOME": str(tmp_path / "home")})
    scene = Scene(line, "load", tmp_path)
    saved = tmp_path / "saved.tar"
    line.run("copy", "-q", scene.made, f"docker-archive:{saved}:app:1")
    chance = random.Random(1)
    began = time.monotonic()
    line.run("load", "-i", str(saved))
    took = time.monotonic() - began
    line.run("rmi", "app:1")
    for _ in range(TIMES):
        process = subprocess.Popen(
            line.command("load", "-i", str(saved)), env=line.environment, stdout=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(0, took))
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        if line.run("images", "-q").strip():  # it was quick
            scene.check("local:app:1")
            line.run("rmi", "app:1")
    line.run("load", "-i", str(saved))
    scene.check("local:app:1")
