"""No run is lost, doubled or prolonged while agents, the engine, the registry and its database are killed.

Each campaign compares what an engine did with the runs that the registry has at its end.
``DIGESTRY_CAMPAIGN`` is for how many seconds each goes on. Without it, one of each kind that needs no other
release's engine goes on for ten seconds, and the rest is skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.agent.engine import Engine, engine
from tests.e2e.reality import images
from tests.e2e.reality import runtimes as real
from tests.e2e.reality.runtimes import KINDS, Kind
from tests.fleet.campaign.agents import AgentProcess, clock_ahead
from tests.fleet.campaign.crowd import Crowd
from tests.fleet.campaign.ledger import Found, Gap, Ledger, Life, gaps_of, runs_of
from tests.fleet.campaign.real import RealCrowd
from tests.fleet.campaign.recorder import Recorder, entries_about, recorder
from tests.postgresql import running_cluster
from tests.support import PATIENCE, RegistryServer, start_registry, wait_until

SECONDS = float(os.environ.get("DIGESTRY_CAMPAIGN", "10"))
SEED = int(os.environ.get("DIGESTRY_CAMPAIGN_SEED", "7"))
asked_for = pytest.mark.skipif("DIGESTRY_CAMPAIGN" not in os.environ, reason="DIGESTRY_CAMPAIGN is not set")
PLACE = "rack/host"
REAL = [kind for kind in KINDS if kind.family != "cri"]
_TICK = 0.4
"""Seconds by which an event and its container may differ in time: less than two starts do."""
_CORRECTED = 5.0
"""Seconds by which corrected times may be off: one is the date's, and a busy machine holds reports up."""


class Registry:
    """A registry on a fixed port that can be killed."""

    def __init__(self, directory: Path, database: str | None) -> None:
        config = directory / "registry.toml"
        config.write_text("" if database is None else f'[storage]\ndatabase = "{database}"\n')
        self._arguments = ("--config", str(config))
        self._root = directory / "root"
        self.server = start_registry(self._root, *self._arguments)

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server = start_registry(self._root, *self._arguments, port=self.server.port)


@contextlib.contextmanager
def registry(directory: Path, database: str | None = None) -> Iterator[Registry]:
    found = Registry(directory, database)
    try:
        yield found
    finally:
        if found.server.process.poll() is None:
            found.server.stop()


def settled(server: RegistryServer, ledger: Ledger, *, tolerance: float, patience: float = PATIENCE) -> Found:
    """Return the comparison once there is no difference; after some time with those that are left."""
    end = time.monotonic() + patience
    while True:
        found = ledger.compare(runs_of(server, PLACE), gaps_of(server, PLACE), tolerance=tolerance)
        if not found.wrong or time.monotonic() > end:
            return found
        time.sleep(1)


def explained(found: Found, told: Recorder, events: Sequence[Mapping[str, Any]]) -> str:
    """Return the differences; of the first ones also the engine's events, and what agents reported."""
    lines = [str(found)]
    for container in found.containers()[:6]:
        lines.append(f"--- {container}")
        lines += [
            f"{event['timeNano'] / 1e9:.6f} engine: {event['Action']}"
            for event in events
            if event["Actor"]["ID"] == container
        ]
        lines += entries_about(told.told, container)
    return "\n".join(lines)


def agents(directory: Path, host: str, docker: Engine, count: int) -> list[AgentProcess]:
    return [
        AgentProcess(directory / f"agent-{number}", host, PLACE, f"docker:{docker.url}")
        for number in range(count)
    ]


@contextlib.contextmanager
def running(them: list[AgentProcess]) -> Iterator[None]:
    for one in them:
        one.start()
    try:
        yield
    finally:
        for one in them:
            one.stop()


def first_report(server: RegistryServer) -> None:
    """Wait until the place is known."""
    end = time.monotonic() + PATIENCE
    while not server.request("GET", f"/v2/_digestry/fleet/places?place={PLACE}").json().get("sources"):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=asked_for)])
def test_everything_is_killed_while_2000_containers_start_a_minute(database: str, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(running_cluster()) if database == "postgresql" else None
        mine = stack.enter_context(registry(tmp_path, cluster.new_database() if cluster else None))
        # Most events are told at once, and some of a busy engine a while after the container's own times.
        late = random.Random(SEED)
        docker = stack.enter_context(
            engine(late=lambda: late.random() * 0.3 if late.random() < 0.03 else 0.0)
        )
        told = stack.enter_context(recorder(mine.server.host))
        them = agents(tmp_path, told.host, docker, 2)
        stack.enter_context(running(them))
        first_report(mine.server)

        def one_agent() -> None:
            one = chance.choice(them)
            one.kill()
            time.sleep(chance.random() * 2)
            one.start()

        def the_registry() -> None:
            mine.kill()
            time.sleep(chance.random() * 4)
            mine.start()

        acts: list[Callable[[], None]] = [one_agent, one_agent, the_registry, docker.restart]
        if cluster is not None:
            acts.append(lambda: cluster.restart("immediate"))
        done: dict[str, int] = {}
        with Crowd(docker) as crowd:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                time.sleep(1 + 3 * chance.random())
                act = acts[sum(done.values()) % len(acts)]
                act()
                done[act.__name__] = done.get(act.__name__, 0) + 1
        found = settled(mine.server, crowd.ledger, tolerance=_TICK)
        print(f"{database}: {found}; {done}; gaps {gaps_of(mine.server, PLACE)}")
    assert not found.wrong, explained(found, told, docker.history)


@pytest.mark.long
def test_an_agent_alone_is_killed_while_2000_containers_start_a_minute(tmp_path: Path) -> None:
    chance = random.Random(SEED + 1)
    with registry(tmp_path) as mine, engine() as docker, recorder(mine.server.host) as told:
        them = agents(tmp_path, told.host, docker, 1)
        with running(them):
            first_report(mine.server)
            with Crowd(docker) as crowd:
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    time.sleep(1 + 3 * chance.random())
                    them[0].kill()
                    # The engine's memory of 256 events is two seconds here.
                    time.sleep(chance.choice([0.0, 0.2, 5.0]))
                    them[0].start()
            found = settled(mine.server, crowd.ledger, tolerance=_TICK)
            gaps = gaps_of(mine.server, PLACE)
            print(f"alone: {found}; {them[0].kills} kills; gaps {[gap.until - gap.since for gap in gaps]}")
    assert not found.wrong, explained(found, told, docker.history)


@pytest.mark.long
@pytest.mark.parametrize("ahead", [3600, pytest.param(-3600, marks=asked_for)])
@pytest.mark.parametrize(
    "whose",
    [
        pytest.param("the host's", marks=asked_for),
        pytest.param("the agent's", marks=asked_for),
        "the engine's",
    ],
)
def test_a_clock_that_is_an_hour_off(whose: str, ahead: int, tmp_path: Path) -> None:
    """The clock of the host, with its engine and its agent, or of one of these alone."""
    engines, agents_ = (0 if whose == other else ahead for other in ("the agent's", "the engine's"))
    with registry(tmp_path) as mine, engine(ahead=engines) as docker, recorder(mine.server.host) as told:
        them = agents(tmp_path, told.host, docker, 1)
        them[0].environment = clock_ahead(agents_) if agents_ else {}
        with running(them):
            first_report(mine.server)
            with Crowd(docker) as crowd:
                time.sleep(SECONDS / 2)
                them[0].kill()
                them[0].start()
                time.sleep(SECONDS / 2)
            found = settled(mine.server, crowd.ledger, tolerance=_CORRECTED)
            print(f"{whose} {ahead} s off: {found}; gaps {gaps_of(mine.server, PLACE)}")
    assert not found.wrong, explained(found, told, docker.history)


@pytest.mark.long
def test_cut_off_for_an_hour(tmp_path: Path) -> None:
    """The starts and stops of an hour, as fast as the engine tells them, while the registry is away."""
    containers = 120_000 if SECONDS >= 60 else 5_000
    ledger = Ledger()
    with registry(tmp_path) as mine, engine(memory=100_000) as docker, recorder(mine.server.host) as told:
        them = agents(tmp_path, told.host, docker, 1)
        with running(them):
            first_report(mine.server)
            mine.kill()
            began = time.monotonic()
            for number in range(containers):
                name = f"c{number:06}"
                low = time.time()
                docker.flash(name)
                high = time.time()
                ledger.lives.append(Life(name, (low, high), (low, high)))
                if number % 50 == 49:  # what the agent has read so far is asked about
                    asked = docker.reads
                    while docker.waiting() > 200:
                        time.sleep(0.005)
                    assert docker.reads >= asked
            spoke = time.monotonic() - began
            mine.start()
            began = time.monotonic()
            found = settled(mine.server, ledger, tolerance=_TICK, patience=900)
            sent = time.monotonic() - began
            gaps = gaps_of(mine.server, PLACE)
            print(f"hour: {found}; told in {spoke:.0f} s, sent in {sent:.0f} s; gaps {gaps}")
    assert not found.wrong, explained(found, told, docker.history)


@pytest.mark.long
def test_cut_off_until_the_buffer_is_full(tmp_path: Path) -> None:
    """The line to the registry is cut, and the registry killed meanwhile; the buffer stays small."""
    ledger = Ledger()
    with (
        registry(tmp_path) as mine,
        engine(memory=100_000) as docker,
        recorder(mine.server.host) as told,
    ):
        (agent,) = agents(tmp_path, told.host, docker, 1)
        agent.more = ("--buffer", "1")
        with running([agent]):
            first_report(mine.server)
            docker.run("stays")
            low = time.time()
            ledger.lives.append(Life("stays", (low - 1, low)))
            told.cut.set()
            mine.kill()
            for number in range(4000):
                name = f"c{number:06}"
                low = time.time()
                docker.flash(name)
                ledger.lives.append(Life(name, (low, time.time()), (low, time.time())))
                while number % 50 == 49 and docker.waiting() > 200:
                    time.sleep(0.005)
                if number == 2000:
                    agent.kill()
                    agent.start()
            mine.start()
            wait_until(lambda: not docker.waiting(), what="the last event")
            kept = sum(path.stat().st_size for path in (agent.directory / "state").glob("entries-*"))
            told.cut.clear()
            found = settled(mine.server, ledger, tolerance=_TICK)
            gaps = [gap for gap in gaps_of(mine.server, PLACE) if "buffer was full" in gap.reason]
            print(f"full: {found}; {kept} bytes were kept; gaps {gaps}")
            assert kept < 1.3e6
            assert found.in_gaps > 500
            assert len(gaps) == 1  # of one outage, though it was dropped in many steps
    assert not found.wrong, explained(found, told, docker.history)


def test_the_ledger_finds_what_is_wrong() -> None:
    def run(container: str, start: float, end: float | None, after: float | None = None) -> dict[str, object]:
        def text(at: float) -> str:
            return f"2026-01-01T00:00:{at:09.6f}+00:00"

        found: dict[str, object] = {"container": container, "from": text(start)}
        return found if end is None else {**found, "until": text(end), "untilAfter": text(after or end)}

    base = 1767225600.0

    def life(container: str, start: float, end: float | None) -> Life:
        ended = None if end is None else (base + end, base + end)
        return Life(container, (base + start, base + start), ended)

    ledger = Ledger([life("a", 1, 2), life("a", 3, 4), life("b", 1, 5), life("c", 1, None), life("d", 7, 8)])
    right = [run("a", 1, 2), run("a", 3, 4), run("b", 1, 6, 4), run("c", 1, None), run("d", 7, 8)]
    assert ledger.compare(right, tolerance=0.1).wrong == 0
    assert len(ledger.compare(right[1:], tolerance=0.1).lost) == 1
    assert ledger.compare(right[:4], [Gap(base + 6, base + 9, "")], tolerance=0.1).in_gaps == 1
    assert len(ledger.compare(right[:4], [Gap(base + 7.5, base + 9, "")], tolerance=0.1).lost) == 1
    assert len(ledger.compare([*right, right[0]], tolerance=0.1).doubled) == 1
    assert len(ledger.compare([*right, run("e", 1, 2)], tolerance=0.1).invented) == 1
    assert len(ledger.compare([*right[:4], run("d", 7, None)], tolerance=0.1).prolonged) == 1
    assert len(ledger.compare([*right[:4], run("d", 7, 9)], tolerance=0.1).prolonged) == 1
    assert len(ledger.compare([*right[:4], run("d", 7, 7.5)], tolerance=0.1).shortened) == 1
    assert len(ledger.compare([*right[:3], run("c", 1, 2), right[4]], tolerance=0.1).shortened) == 1


@contextlib.contextmanager
def events_of(runtime: real.Runtime, path: Path) -> Iterator[list[dict[str, Any]]]:
    """The events that Docker tells, as they come; of other engines none."""
    found: list[dict[str, Any]] = []
    if not isinstance(runtime, real.Docker):
        yield found
        return
    engine = runtime.docker
    with path.open("wb") as file:
        command = [*engine.command, "events", "--filter=type=container", "--format={{json .}}"]
        listener = subprocess.Popen(command, stdout=file, env={**os.environ, **engine.environment})
    try:
        yield found
    finally:
        listener.terminate()
        listener.wait()
        found += [json.loads(line) for line in path.read_text().splitlines()]


@asked_for
@pytest.mark.long
@pytest.mark.xdist_group("docker")
@pytest.mark.parametrize("kind", REAL, ids=[kind.name for kind in REAL])
def test_agents_of_real_engines_are_killed(kind: Kind, tmp_path: Path) -> None:
    """Two agents of one engine, of which one at a time is killed, and the registry."""
    chance = random.Random(SEED + 2)
    with contextlib.ExitStack() as stack:
        mine = stack.enter_context(registry(tmp_path))
        told = stack.enter_context(recorder(mine.server.host))
        runtime = stack.enter_context(real.running(kind))
        path = runtime.root.scratch / "campaign.tar"
        path.write_bytes(images.archive("reg.example/campaign:1", images.made("campaign")))
        runtime.load(path)
        them = [
            AgentProcess(tmp_path / f"agent-{number}", told.host, PLACE, runtime.source)
            for number in range(2)
        ]
        stack.enter_context(running(them))
        first_report(mine.server)
        with events_of(runtime, tmp_path / "events") as events:
            with RealCrowd(runtime, "reg.example/campaign:1", seed=SEED) as crowd:
                end = time.monotonic() + SECONDS
                acts = 0
                while time.monotonic() < end:
                    time.sleep(1 + 2 * chance.random())
                    if acts % 4 == 3:
                        mine.kill()
                        mine.start()
                    else:
                        one = them[acts % 2]
                        one.kill()
                        time.sleep(chance.random())
                        one.start()
                    acts += 1
            assert not crowd.failures, crowd.failures[:3]
            found = settled(mine.server, crowd.ledger, tolerance=_TICK)
        rate = 60 * len(crowd.ledger.lives) / SECONDS
        gaps = gaps_of(mine.server, PLACE)
        print(f"{kind.name} {runtime.version()}: {rate:.0f} a minute; {found}; {gaps}")
    assert not found.wrong, explained(found, told, events)
