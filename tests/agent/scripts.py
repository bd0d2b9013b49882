"""Followers that tell what a test says, and agents that follow them."""

from __future__ import annotations

import contextlib
import datetime
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from digestry.agent.agent import Agent, AgentOptions
from digestry.client.fleet_reports import FleetIntake
from digestry.client.options import ClientOptions
from digestry.client.transport import Transport
from digestry.errors import DigestryError, Unreachable
from digestry.inventory.observation import ImageFacts
from digestry.inventory.runs import (
    AllRuns,
    Run,
    RunChange,
    RunStarted,
    RunStopped,
    Step,
    Wakeup,
)
from tests.agent.intake import TOKEN, Intake
from tests.support import wait_until

NOON = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)


def at(seconds: float) -> datetime.datetime:
    return NOON + datetime.timedelta(seconds=seconds)


def run(container: str, started: float = 0.0, **more: Any) -> Run:
    image = more.pop("image", ImageFacts("localhost:5000/app:1"))
    return Run(container, more.pop("instance", "first"), at(started), image, name=f"name-{container}", **more)


def started(container: str, seconds: float = 0.0, **more: Any) -> RunStarted:
    return RunStarted(run(container, seconds, **more))


def stopped(container: str, seconds: float = 0.0) -> RunStopped:
    return RunStopped(container, at(seconds), "first")


class Scripted:
    """A follower whose changes a test puts in; an error ends it, and it is followed again."""

    name = "scripted"

    def __init__(self, *running: str) -> None:
        self.running = list(running)
        self.positions: list[str] = []
        self._changes: queue.SimpleQueue[RunChange | DigestryError] = queue.SimpleQueue()
        self._told = 0
        self._wakeup: Wakeup | None = None
        self._taken = threading.Event()

    def put(self, *changes: RunChange | DigestryError) -> None:
        for change in changes:
            self._changes.put(change)

    def follow(self, position: str, wakeup: Wakeup) -> Iterator[Step]:
        self.positions.append(position)
        yield self._all()
        while True:
            yield Step((), str(self._told), idle=True)
            wakeup.wait(0.01)
            if wakeup.take_request():
                yield self._all()
            with contextlib.suppress(queue.Empty):
                while True:
                    change = self._changes.get_nowait()
                    if isinstance(change, DigestryError):
                        raise change
                    self._told += 1
                    yield Step((change,), str(self._told))

    def _all(self) -> Step:
        runs = tuple(map(run, self.running))
        return Step((AllRuns(at(0), runs),), str(self._told))


class Broken(Scripted):
    """A follower that never sees anything."""

    name = "broken"

    def follow(self, position: str, wakeup: Wakeup) -> Iterator[Step]:
        if position == "never":
            yield Step()
        raise Unreachable("unix:///nowhere: there is no such socket")


def agent(intake: Intake, followers: list[Any], directory: Path, **more: Any) -> Agent:
    """An agent that reports every second."""
    token = directory / "token"
    directory.mkdir(exist_ok=True)
    token.write_text(f"{TOKEN}\n")
    transport = Transport(ClientOptions(retries=0, timeout=5))
    options = AgentOptions(
        place=more.pop("place", "rack/one"),
        token_file=token,
        state=directory / "state",
        interval=more.pop("interval", 1),
        **more,
    )
    return Agent(FleetIntake(transport, intake.url), followers, options)


@contextlib.contextmanager
def running(agent: Agent) -> Iterator[None]:
    """The agent, running until the block ends; then it has stopped on purpose."""
    failures: list[BaseException] = []

    def go() -> None:
        try:
            agent.run()
        except BaseException as error:  # noqa: BLE001 - shown by the thread that waits
            failures.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        agent.end()
        thread.join(30)
        assert not thread.is_alive()
        assert not failures


def wait_for(condition: Callable[[], object], what: str = "the agent to report it") -> None:
    wait_until(condition, what=what)
