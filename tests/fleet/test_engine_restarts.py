"""Engines that are started again while containers run, also with docker's live-restore."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.e2e.reality import images
from tests.e2e.reality import runtimes as real
from tests.e2e.reality.runtimes import KINDS, Containerd, Docker
from tests.fleet.campaign.agents import AgentProcess
from tests.fleet.campaign.ledger import Found, Ledger, Life, gaps_of, runs_of
from tests.support import PATIENCE, running_registry, wait_until

PLACE = "rack/host"
IMAGE = "reg.example/restarts:1"
KIND = {kind.name: kind for kind in KINDS}
_TOLERANCE = 0.5
"""Seconds: docker writes the time of a start down before its event, which is lost with the engine."""


def live_restore(runtime: Docker) -> None:
    """Start the engine anew, so that its containers run on when it stops."""
    path = runtime.root.scratch / "daemon.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "live-restore": True}))
    runtime.restart([])


def stop(runtime: Docker | Containerd) -> None:
    runtime.root.stop("dockerd" if isinstance(runtime, Docker) else "containerd")


@pytest.mark.long
@pytest.mark.xdist_group("docker")
@pytest.mark.parametrize(
    ("name", "runs_on"),
    [
        ("docker-20.10", True),
        ("docker-20.10", False),
        ("docker-28.5-containerd-store", True),
        ("docker-28.5", False),
        ("containerd-1.7", True),
        ("containerd-2.1", True),
    ],
)
def test_an_engine_is_started_again_while_containers_run(name: str, runs_on: bool, tmp_path: Path) -> None:
    ledger = Ledger()
    with running_registry() as server, real.running(KIND[name]) as runtime:
        assert isinstance(runtime, Docker | Containerd)
        if isinstance(runtime, Docker) and runs_on:
            live_restore(runtime)
        path = runtime.root.scratch / "restarts.tar"
        path.write_bytes(images.archive(IMAGE, images.made("restarts")))
        runtime.load(path)

        def begin(container: str) -> Life:
            low = time.time()
            if isinstance(runtime, Docker):
                options = ("--detach", "--network=none", "--stop-signal=KILL", f"--name={container}")
                identity = runtime.docker("run", *options, IMAGE)
            else:
                runtime.run(IMAGE, container)
                identity = f"{runtime.namespace}/{container}"
            life = Life(identity, (low, time.time()))
            ledger.lives.append(life)
            return life

        def known() -> bool:
            told = runs_of(server, PLACE)
            return {run["container"] for run in told} >= {life.container for life in ledger.lives}

        def process(container: str) -> str:
            if isinstance(runtime, Docker):
                return runtime.docker("inspect", "--format={{.State.Pid}}", container)
            rows = [line.split() for line in runtime.ctr("tasks", "ls").splitlines()]
            return next(row[1] for row in rows if row[0] == container)

        def compared() -> Found:
            return ledger.compare(runs_of(server, PLACE), gaps_of(server, PLACE), tolerance=_TOLERANCE)

        def as_it_was() -> bool:
            return known() and not compared().wrong

        agent = AgentProcess(tmp_path / "agent", server.host, PLACE, runtime.source)
        begin("stays")  # before the agent, which finds it in a list
        agent.start()
        try:
            wait_until(lambda: "it follows" in agent.log.read_text(), what="the agent", log=agent.log)
            ends = begin("ends")
            wait_until(known, what="both runs")
            inside = process("ends")
            low = time.time()
            stop(runtime)
            if runs_on:
                runtime.root.engine("sh", "-c")('kill -KILL "$1"', "sh", inside)
            runtime._start()
            wait_until(lambda: "followed again" in agent.log.read_text(), what="its events", log=agent.log)
            for life in ledger.lives if not runs_on else [ends]:
                life.ended = (low, time.time() + 5)
            begin("after")
            end = time.monotonic() + PATIENCE
            while not as_it_was():
                assert time.monotonic() < end, f"{compared()}\n{agent.log.read_text()}"
                time.sleep(0.3)
        finally:
            agent.stop()
        # An agent that begins anew, without its position, tells the same runs.
        once = ("--once",)
        other = AgentProcess(tmp_path / "other", server.host, PLACE, runtime.source, more=once)
        other.start()
        assert other.process is not None
        assert other.process.wait(PATIENCE) == 0, other.log.read_text()
        found = compared()
        assert not found.wrong, str(found)
