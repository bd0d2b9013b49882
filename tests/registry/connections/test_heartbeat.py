"""Who says nothing is replaced; who says something, was never heard of, or has ended is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from digestry.registry.connections.heartbeat import Heartbeat
from tests.registry.connections.support import server_with
from tests.support import wait_until


def beat(heartbeat: Heartbeat) -> None:
    """One sign of life of this process."""

    async def once() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(heartbeat.beat(), 0.05)

    asyncio.run(once())


def test_only_who_was_heard_and_is_silent_is_killed() -> None:
    heartbeat = Heartbeat(patience=2.0)
    killed: list[int] = []
    for _ in range(10):
        heartbeat.tick([os.getpid()], killed.append)
    assert killed == []  # it has only begun
    for _ in range(10):
        beat(heartbeat)
        heartbeat.tick([os.getpid()], killed.append)
    assert killed == []
    for _ in range(6):
        heartbeat.tick([os.getpid()], killed.append)
    assert killed == [os.getpid()]
    beat(heartbeat)
    heartbeat.tick([], killed.append)
    for _ in range(10):
        heartbeat.tick([os.getpid()], killed.append)  # another one with its number
    assert killed == [os.getpid()]


def test_a_pipe_that_nobody_reads_stops_no_worker() -> None:
    heartbeat = Heartbeat(patience=2.0)
    for _ in range(3):
        beat(heartbeat)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(heartbeat._write, b"\0" * 4096)
    beat(heartbeat)


def stopped(process: int) -> bool:
    """Whether all threads of a process stand still: a signal takes a moment to reach them."""
    states = Path(f"/proc/{process}/task").glob("*/stat")
    return all(state.read_text().rpartition(")")[2].split()[0] == "T" for state in states)


@pytest.mark.long
def test_a_worker_that_hangs_is_replaced_and_nobody_waits_for_it(tmp_path: Path) -> None:
    with server_with(tmp_path, "workers = 2\n[limits]\nworker-seconds = 2\n") as server:
        before = set(server.processes()) - {server.process.pid}
        assert len(before) == 2
        hanging = min(before)
        os.kill(hanging, signal.SIGSTOP)
        wait_until(lambda: stopped(hanging), what="the stop of each of its threads")
        for _ in range(20):
            assert server.request("GET", "/livez").status == 200
        wait_until(lambda: hanging not in server.processes(), what="the end of the worker that hangs")
        wait_until(
            lambda: len(set(server.processes()) - {server.process.pid} - {hanging}) == 2,
            what="another worker",
        )
        assert server.request("GET", "/livez").status == 200
        assert "has not answered for" in server.log.read_text()
