"""A runtime followed by the events of its CRI, and those that have none for several readers."""

from __future__ import annotations

import datetime
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from digestry.inventory.engines.protobuf import (
    encode_integer as integer,
)
from digestry.inventory.engines.protobuf import (
    encode_nested as nested,
)
from digestry.inventory.engines.protobuf import (
    encode_string as string,
)
from digestry.inventory.follower_selection import parse_follower
from digestry.inventory.runs import (
    AllRuns,
    FollowingEnded,
    RunChange,
    RunStarted,
    RunStopped,
    Step,
    Unobserved,
    Wakeup,
)
from tests.inventory.grpc_server import Answer, Live, Status, serving

IMAGE = "sha256:" + "1" * 64
SECOND = 1_000_000_000
BEGAN = 1_760_000_000 * SECOND
CREATED, STARTED, STOPPED, DELETED = range(4)


class FakeRuntime:
    """A runtime whose containers a test starts and ends."""

    def __init__(self, name: str = "containerd", version: str = "2.1.4", *, refuses: bool = False) -> None:
        self.name, self.version, self.refuses = name, version, refuses
        self.containers: dict[str, tuple[int, int]] = {}
        self.events: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.asked: list[str] = []

    def tell(self, container: str, kind: int, at: int) -> None:
        self.events.put(string(1, container) + integer(2, kind) + integer(3, at))

    def start(self, container: str, at: int) -> None:
        self.containers[container] = (at, 0)
        self.tell(container, STARTED, at)

    def stop(self, container: str, at: int) -> None:
        self.containers[container] = (self.containers[container][0], at)
        self.tell(container, STOPPED, at + SECOND // 2)

    def answer(self, _: str, method: str, message: bytes) -> Answer:
        call = method.rpartition("/")[2]
        self.asked.append(call)
        if call == "GetContainerEvents":
            return Status(12, "it is switched off") if self.refuses else Live(self.events)
        if call == "Version":
            return [string(2, self.name) + string(3, self.version)]
        if call == "ListContainers":
            return [b"".join(nested(1, _listed(one, times)) for one, times in self.containers.items())]
        if call == "ContainerStatus":
            identity = message[2 : 2 + message[1]].decode()
            if identity not in self.containers:
                return Status(5, "there is no such container")
            started, ended = self.containers[identity]
            status = string(1, identity) + nested(2, string(1, identity)) + integer(3, 2 if ended else 1)
            status += integer(5, started) + integer(6, ended) + nested(8, string(1, "app:1"))
            return [nested(1, status + string(9, IMAGE))]
        return [nested(1, string(1, IMAGE))]


def _listed(identity: str, times: tuple[int, int]) -> bytes:
    state = integer(6, 2 if times[1] else 1)
    return (
        string(1, identity) + nested(3, string(1, identity)) + nested(4, string(1, "app:1"))
        + string(5, IMAGE) + state
    )  # fmt: skip


class Followed:
    """What a follower has told, in a thread of its own."""

    def __init__(self, steps: Iterator[Step]) -> None:
        self.changes: queue.SimpleQueue[RunChange] = queue.SimpleQueue()
        self.position = ""
        self._steps = steps
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for step in self._steps:
                self.position = step.position
                for change in step.changes:
                    self.changes.put(change)
        except FollowingEnded:
            pass

    def next(self) -> RunChange:
        return self.changes.get(timeout=20)


@contextmanager
def followed(runtime: FakeRuntime, position: str = "") -> Iterator[Followed]:
    wakeup = Wakeup()
    with serving(runtime.answer) as path:
        found = Followed(parse_follower(f"cri:unix://{path}", timeout=5).follow(position, wakeup))
        try:
            yield found
        finally:
            wakeup.end()
            found.thread.join(10)
    assert not found.thread.is_alive()
    wakeup.close()


def microseconds(at: datetime.datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000


def test_starts_and_ends_have_the_times_of_the_runtime() -> None:
    runtime = FakeRuntime()
    runtime.containers["old"] = (BEGAN, 0)
    with followed(runtime) as told:
        first = told.next()
        assert isinstance(first, AllRuns)
        assert [run.container for run in first.runs] == ["old"]
        runtime.tell("sandbox", STARTED, BEGAN)  # no container has that ID
        runtime.start("new", BEGAN + SECOND)
        started = told.next()
        assert isinstance(started, RunStarted)
        assert (started.run.container, microseconds(started.run.started_at)) == ("new", BEGAN + SECOND)
        assert str(started.run.image.claims[0].digest) == IMAGE
        runtime.stop("new", BEGAN + 3 * SECOND)
        ended = told.next()
        assert isinstance(ended, RunStopped)
        assert (ended.container, ended.instance) == ("new", started.run.instance)
        assert microseconds(ended.at) == BEGAN + 3 * SECOND
        del runtime.containers["old"]
        runtime.tell("old", DELETED, BEGAN + 4 * SECOND)
        gone = told.next()
        assert isinstance(gone, RunStopped)
        assert (gone.container, microseconds(gone.at)) == ("old", BEGAN + 4 * SECOND)


def test_a_container_that_ended_before_it_was_asked_about_is_a_run() -> None:
    runtime = FakeRuntime()
    with followed(runtime) as told:
        assert isinstance(told.next(), AllRuns)
        runtime.containers["short"] = (BEGAN, BEGAN + SECOND)
        runtime.tell("short", STARTED, BEGAN)
        runtime.tell("short", STOPPED, BEGAN + SECOND)
        started, ended = told.next(), told.next()
        assert isinstance(started, RunStarted)
        assert isinstance(ended, RunStopped)
        assert microseconds(ended.at) == BEGAN + SECOND


def test_what_ended_while_nobody_followed_is_told() -> None:
    runtime = FakeRuntime()
    runtime.containers = {
        "before": (BEGAN - 9, BEGAN - 5),
        "over": (BEGAN, BEGAN + SECOND),
        "runs": (BEGAN, 0),
    }
    with followed(runtime, "2025-10-09T08:53:20Z") as told:
        changes = [told.next() for _ in range(4)]
    assert [type(change) for change in changes] == [Unobserved, RunStarted, RunStopped, AllRuns]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "version", "refuses"),
    [
        ("containerd", "1.7.27", False),
        ("cri-o", "1.28.1", False),
        ("cri-o", "1.33.0", True),
        ("other", "9.9", False),
    ],
)
def test_others_are_looked_at_again_and_again(name: str, version: str, refuses: bool) -> None:
    runtime = FakeRuntime(name, version, refuses=refuses)
    with followed(runtime) as told:
        assert isinstance(told.next(), AllRuns)
        runtime.containers["new"] = (BEGAN, 0)
        change = told.next()
        while isinstance(change, AllRuns) and not change.runs:  # the second follower's first
            change = told.next()
        assert isinstance(change, RunStarted | AllRuns)
        runtime.containers.clear()
        assert isinstance(told.next(), RunStopped)
    assert ("GetContainerEvents" in runtime.asked) == refuses
