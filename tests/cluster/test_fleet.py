"""The node that judges the fleet dies while agents report: verdicts and events come once, from another."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Final

import pytest

from digestry.backend import Backend
from digestry.coordination.protocol import Job
from digestry.model.digest import Digest
from tests.cli.test_layer_advisories import push
from tests.cluster.balancer import tcp_proxy
from tests.cluster.nodes import Nodes
from tests.cluster.test_jobs import backend, receiver, registry
from tests.fleet.support import SimulatedAgent, runs
from tests.registry.webhook_receiver import SECRET, Receiver
from tests.support import PATIENCE, RegistryServer, run_digestry, wait_until

__all__ = ["backend", "receiver", "registry"]  # fixtures

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.long]

HOST: Final = "registry.example"
PLACES: Final = ("rack1/web1", "rack1/web2", "rack2/db1")
SETTINGS: Final = """
hosts = ["{host}"]

[[webhook]]
name = "fleet"
url = "{receiver}"
secret = "{secret}"
events = ["affected-started", "last-affected-stopped", "agent-silent"]
"""
_SECONDS: Final = 45.0
"""What another node's verdict may take: 6 s until the dead one's lock ends, 2 s until the next attempt to
take it, up to 5 s between two looks, as much again for the webhooks, and the rest for a busy machine."""


class Agents:
    """Agents of several places that start and stop containers of two images all the time, also while a node
    that they report to is killed."""

    def __init__(self, front: RegistryServer, bad: Digest, good: Digest) -> None:
        self._agents = {place: SimulatedAgent(front, place) for place in PLACES}
        self._images = {"bad": f"{HOST}/team/app:1@{bad}", "good": f"{HOST}/team/clean:1@{good}"}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._churn, args=(place,), daemon=True) for place in PLACES]
        self.started: list[str] = []

    def __enter__(self) -> Agents:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def start(self, place: str, container: str, image: str) -> None:
        self._until_taken(place, lambda one: one.start({container: self._images[image]}, since=0))
        if image == "bad":
            self.started.append(container)

    def stop(self, place: str, container: str, at: datetime.datetime) -> None:
        self._until_taken(place, lambda one: one.stop(container, at.isoformat()))

    def _until_taken(self, place: str, report: Any) -> None:
        """An agent reports the same until it is taken."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with self._lock:
                    report(self._agents[place])
                return
            except (AssertionError, OSError, ValueError, http.client.HTTPException):
                assert time.monotonic() < end
                time.sleep(0.1)

    def _churn(self, place: str) -> None:
        number = 0
        while not self._stop.wait(0.4):
            name = f"{place.replace('/', '-')}-clean-{number}"
            self.start(place, name, "good")
            self.stop(place, name, now())
            number += 1


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def holder(backend: Backend, job: Job, nodes: list[RegistryServer]) -> RegistryServer:
    """The node that does ``job`` now, in its maintenance process too."""
    found: list[RegistryServer] = []

    def held() -> bool:
        process = int(backend.coordination.holders().get(job, "/0").rpartition("/")[2])
        with contextlib.suppress(OSError):  # it has ended, and its lock will
            found.extend(node for node in nodes if process and os.getpgid(process) == node.process.pid)
        return bool(found)

    wait_until(held, what=f"a node that does the job {job}")
    return found[0]


def timeline(front: RegistryServer, vulnerability: str) -> dict[str, Any]:
    done = run_digestry(
        "fleet", "timeline", vulnerability, "--registry", front.host, "--format", "json", timeout=PATIENCE
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_node_that_judges_is_killed(
    registry: Nodes, backend: Backend, receiver: Receiver, tmp_path: Path
) -> None:
    settings = tmp_path / "registry.toml"
    settings.write_text(SETTINGS.format(host=HOST, receiver=receiver.url, secret=SECRET))
    nodes = [registry.start("--config", str(settings)) for _ in range(2)]
    with tcp_proxy(*(("127.0.0.1", node.port) for node in nodes), one_request=True) as proxy:
        front = RegistryServer(proxy.host, nodes[0].process, tmp_path, nodes[0].log)
        bad, good = push(front, "team/app", "1", b"bad"), push(front, "team/clean", "1", b"clean")

        def killed(job: Job) -> None:
            """Kill the node that does a job."""
            dead = holder(backend, job, nodes)
            dead.kill()
            nodes.remove(dead)

        def again() -> None:
            """Start another in its place."""
            nodes.append(registry.start("--config", str(settings)))
            proxy.retarget(*(("127.0.0.1", node.port) for node in nodes))

        def events(kind: str) -> list[dict[str, Any]]:
            """The data of the messages of a kind: one may arrive twice, with the same ID."""
            with receiver.lock:
                taken = list(receiver.taken)
            return list({one["id"]: one["data"] for one in taken if f".{kind}." in one["type"]}.values())

        def listed(kind: str, name: str) -> list[str]:
            return [str(one[name]) for event in events(kind) for one in event["listed"]]

        def comes(kind: str, name: str, expected: list[str]) -> None:
            began = time.monotonic()
            wait_until(
                lambda: sorted(listed(kind, name)) == sorted(expected),  # each once, and nothing else
                what=f"{kind} of {expected}",
                log=nodes[-1].log,
            )
            assert time.monotonic() - began < _SECONDS

        with Agents(front, bad, good) as agents:
            for place in PLACES:
                agents.start(place, f"{place}-a", "bad")
            # The images have verdicts: somebody has the lock, and holds it in the middle of its work.
            wait_until(
                lambda: {run["verdict"]["state"] for run in runs(front)} <= {"not_assessed"}, what="verdicts"
            )
            stated = ("--id", "CVE-1", "--status", "affected", "--author", "me")
            done = run_digestry("advisory", "add", f"{front.host}/team/app:1", *stated, timeout=PATIENCE)
            assert done.returncode == 0, done.stderr
            killed(Job.ASSESSMENT)
            for place in PLACES:
                agents.start(place, f"{place}-b", "bad")
            comes("affected-started", "container", list(agents.started))
            again()

            killed(Job.ASSESSMENT)
            for place in PLACES:
                agents.start(place, f"{place}-c", "bad")
            comes("affected-started", "container", list(agents.started))
            again()

            for place in PLACES:
                for number in "abc":
                    last = now()
                    if (place, number) == (PLACES[-1], "c"):
                        killed(Job.ASSESSMENT)
                    agents.stop(place, f"{place}-{number}", last)
            comes("last-affected-stopped", "vulnerability", ["CVE-1"])
            again()

            # A container of an image that is known to be bad, which starts and ends between two looks.
            agents.start(PLACES[0], "again", "bad")
            killed(Job.WEBHOOKS)
            final = now()
            agents.stop(PLACES[0], "again", final)
            comes("affected-started", "container", list(agents.started))
            comes("last-affected-stopped", "vulnerability", ["CVE-1", "CVE-1"])
        assert not events("agent-silent")
        (end,) = (one for one in events("last-affected-stopped")[-1]["listed"])
        assert abs((datetime.datetime.fromisoformat(end["lastEnd"]) - final).total_seconds()) < 0.001
        found = timeline(front, "CVE-1")
        assert (found["total"], found["running"]) == (len(agents.started), 0)
        assert abs((datetime.datetime.fromisoformat(found["last_end"]) - final).total_seconds()) < 0.001
        there = [run["container"] for run in runs(front, "ever=1")]
        assert len(there) == len(set(there))
