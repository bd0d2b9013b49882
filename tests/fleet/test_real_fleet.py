"""An advisory on one layer, and a fleet of twelve hosts, of which three are real engines with real agents."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from digestry.cli.demo_program import executable
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.e2e.engines import tar
from tests.e2e.reality import images as real_images
from tests.e2e.reality import runtimes as real
from tests.e2e.reality.runtimes import KINDS, Containerd, Docker, Podman
from tests.fleet.campaign.agents import AgentProcess
from tests.fleet.support import SimulatedAgent, judged, moment
from tests.fleet.test_to_the_last_container import ask, metric
from tests.support import RegistryServer, descriptor, run_digestry, running_registry, wait_until
from tests.web.browser import Browser
from tests.web.test_tag import plain

KIND = {kind.name: kind for kind in KINDS}
CVE = "CVE-2026-7007"
AFFECTED, OTHERS, SIMULATED = 40, 260, 9
OF_EACH = 3
"""Containers of affected images on each real engine; it has another one beside them."""


def push(server: RegistryServer, name: str, *layers: bytes) -> Digest:
    """Push an image that real engines run: its program is in the first layer."""
    config = json.dumps(
        {
            "architecture": real_images.ARCHITECTURE, "os": "linux", "config": {"Cmd": ["/app"]},
            "name": name,
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
        }
    ).encode()  # fmt: skip
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, server.push_blob(name, config), len(config)),
        "layers": [
            descriptor(media_types.OCI_LAYER, server.push_blob(name, layer), len(layer)) for layer in layers
        ],
    }
    return server.push_manifest(name, "1", document)


@dataclass
class Host:
    """A real engine with its agent."""

    runtime: Docker | Podman | Containerd
    agent: AgentProcess
    names: list[str] = field(default_factory=list)

    def run(self, image: str, name: str) -> None:
        self.runtime.pull(image)
        self.runtime.run(image, name)
        self.names.append(name)

    def remove(self, name: str) -> None:
        runtime = self.runtime
        if isinstance(runtime, Docker):
            runtime.docker("rm", "--force", name)
        elif isinstance(runtime, Podman):
            runtime.podman("rm", "--force", "--time=0", name)
        else:
            runtime.ctr("tasks", "rm", "--force", name)
            runtime.ctr("containers", "rm", name)
        self.names.remove(name)


@contextlib.contextmanager
def real_hosts(server: RegistryServer, kinds: Sequence[str], directory: Path) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        hosts = []
        for name in kinds:
            runtime = stack.enter_context(real.running(KIND[name]))
            assert isinstance(runtime, Docker | Podman | Containerd)
            agent = AgentProcess(directory / name, server.host, f"real/{name}", runtime.source)
            agent.start()
            stack.callback(agent.stop)
            hosts.append(Host(runtime, agent))
        yield hosts


def names_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(str(row["name"]).rpartition("/")[2] for row in rows)


@pytest.mark.long
@pytest.mark.xdist_group("docker")
@pytest.mark.parametrize(
    "kinds",
    [("docker-20.10", "podman-4.3", "containerd-1.6"), ("docker-28.5", "podman-5.8", "containerd-2.1")],
    ids=["bookworm", "forky"],
)
def test_from_a_layer_to_the_last_container(kinds: tuple[str, ...], tmp_path: Path) -> None:
    with running_registry() as server, real_hosts(server, kinds, tmp_path) as hosts:
        bad = tar({"app": executable("bad base", real_images.ARCHITECTURE)})
        good = tar({"app": executable("good base", real_images.ARCHITECTURE)})
        layer = Digest.of(bad)
        base = push(server, "base", bad)
        digests = [
            push(server, f"team/app{number}", bad if number < AFFECTED else good, tar({"n": b"%d" % number}))
            for number in range(AFFECTED + OTHERS)
        ]
        expected: set[str] = set()
        numbers = iter(range(AFFECTED))
        for host in hosts:
            for number in [next(numbers) for _ in range(OF_EACH)]:
                host.run(f"{server.host}/team/app{number}:1", f"real{number}")
                expected.add(f"real{number}")
            fine = AFFECTED + hosts.index(host)
            host.run(f"{server.host}/team/app{fine}:1", f"real{fine}")
        simulated = [SimulatedAgent(server, f"host{number}") for number in range(SIMULATED)]
        left = [*numbers, *range(AFFECTED + len(hosts), AFFECTED + OTHERS)]
        for place, agent in enumerate(simulated):
            mine = left[place::SIMULATED]
            agent.start({f"c{number}": f"team/app{number}:1@{digests[number]}" for number in mine})
            expected |= {f"name-of-c{number}" for number in mine if number < AFFECTED}
        assert len(expected) == AFFECTED
        judged(server, {"not_assessed": AFFECTED + OTHERS})
        done = run_digestry(
            "advisory", "add", f"{server.host}/base@{layer}", "--id", CVE, "--status", "affected",
            "--author", "sec@example", timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        judged(server, {"affected": AFFECTED, "not_assessed": OTHERS})
        _all_agree(server, hosts, expected, layer, f"{server.host}/base:1@{base}")
        _pages_agree(server, digests[0], layer)

        # The containers are replaced, one by one; the last one is that of a real engine.
        last = hosts[0].names[0]
        running = AFFECTED
        for place, agent in enumerate(simulated):
            for number in [number for number in left[place::SIMULATED] if number < AFFECTED]:
                agent.stop(f"c{number}", moment(-0.001))
                agent.start({f"new{number}": f"team/app{AFFECTED}:1@{digests[AFFECTED]}"})
                running -= 1
        for host in hosts:
            for name in [name for name in host.names if name != last and name in expected]:
                host.run(f"{server.host}/team/app{AFFECTED}:1", f"new-{name}")
                host.remove(name)
                running -= 1
        assert running == 1
        _wait_for_timeline(server, 1)
        assert names_of(ask(server, "fleet", "who", CVE, status=1)) == [last]
        low = datetime.datetime.now(datetime.UTC)
        hosts[0].remove(last)
        high = datetime.datetime.now(datetime.UTC)
        seen = _wait_for_timeline(server, 0)
        ended = datetime.datetime.fromisoformat(seen["last_end"])
        assert low <= ended <= high
        assert seen["last_end_after"] == seen["last_end"]  # its agent saw it
        assert seen["sentence"] == f"The last container is gone at {ended:%Y-%m-%d %H:%M:%S}Z."
        assert ask(server, "fleet", "who", CVE, status=0) == []
        assert names_of(ask(server, "fleet", "who", CVE, "--ever", status=1)) == sorted(expected)
        page = plain(Browser(server).text(f"/vulnerability?id={CVE}"))
        assert seen["sentence"].removesuffix("Z.") in page or f"{ended:%H:%M:%S}" in page, page[:2000]


def _pages_agree(server: RegistryServer, image: Digest, layer: Digest) -> None:
    """Check that the pages of the fleet, of an image and of the layer have the same numbers and reasons."""
    browser = Browser(server)
    fleet = plain(browser.text("/fleet"))
    assert f"affected {AFFECTED} " in fleet
    assert f"not assessed {OTHERS} " in fleet
    page = browser.text(f"/r/team/app0@{image}")
    assert CVE in plain(page)
    assert "the layer" in plain(page)
    assert "stated in base" in plain(page)
    assert f'href="/r/base@{layer}"' in page
    assert "real/" in page  # where it runs: the first three are on a real engine
    assert CVE in plain(browser.text(f"/r/base@{layer}"))
    found = plain(browser.text(f"/search?q={CVE}"))
    assert "affected" in found
    assert layer.encoded[:12] in found


def _wait_for_timeline(server: RegistryServer, running: int) -> dict[str, Any]:
    end = time.monotonic() + 120
    while True:
        line = ("fleet", "timeline", CVE, "--registry", server.host, "--format", "json")
        done = run_digestry(*line, timeout=120)
        seen: dict[str, Any] = json.loads(done.stdout)
        if (seen["running"], seen["unknown"]) == (running, 0):
            assert done.returncode == (1 if running else 0), done.stderr
            return seen
        assert time.monotonic() < end, seen
        time.sleep(0.5)


def _all_agree(
    server: RegistryServer, hosts: Sequence[Host], expected: set[str], layer: Digest, base: str
) -> None:
    """Check that every way to ask has the same containers, and names the layer in each row."""
    for target in (CVE, str(layer)):
        rows = ask(server, "fleet", "who", target, status=1)
        assert names_of(rows) == sorted(expected)
        assert {(row["layer"], row["base"]) for row in rows} == {(str(layer), base)}
    summary = ask(server, "fleet", "summary", status=1)
    assert (summary["containers"]["affected"], summary["containers"]["not_assessed"]) == (AFFECTED, OTHERS)
    wait_until(
        lambda: metric(server, 'digestry_fleet_containers{state="affected"}') == AFFECTED, what="the metric"
    )
    seen = ask(server, "fleet", "timeline", CVE, status=1)
    assert (seen["running"], seen["total"], seen["last_end"]) == (AFFECTED, AFFECTED, None)
    page = plain(Browser(server).text(f"/vulnerability?id={CVE}"))
    assert f"{AFFECTED} containers still run it" in page
    # The audit of what agents reported, and the audit that asks the real engines itself.
    sources = [word for host in hosts for word in ("--source", host.runtime.source)]
    here = {name for host in hosts for name in host.names if name in expected}
    for line, containers, total in (
        (("--fleet", server.host), expected, AFFECTED + OTHERS),
        (sources, here, len(hosts) * (OF_EACH + 1)),
    ):
        done = run_digestry("audit", *line, "--format", "json", timeout=300)
        assert done.returncode == 1, done.stderr
        report = json.loads(done.stdout)
        assert report["problems"] == []
        assert len(report["containers"]) == total
        found = [row for row in report["containers"] if row["advisory_state"] == "affected"]
        assert names_of(found) == sorted(containers)
        assert {row["advisories"][0]["part"]["digest"] for row in found} == {str(layer)}
