"""Threads of which the one that worked last takes the next work."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from digestry.registry.thread_stack import ThreadStack
from tests.support import PATIENCE, wait_until


def test_work_that_comes_one_piece_after_the_other_is_done_by_one_thread() -> None:
    threads = ThreadStack(4, name="work")
    names = []
    for _ in range(50):
        done = threading.Event()

        def work(done: threading.Event = done) -> None:
            names.append(threading.current_thread().name)
            done.set()

        threads.submit(work)
        assert done.wait(PATIENCE)
        wait_until(lambda: threads.idle == threads.made, what="the thread's rest")
    threads.shutdown()
    assert set(names) == {"work_0"}


def test_no_more_threads_than_allowed_work_and_all_work_is_done() -> None:
    threads = ThreadStack(3, name="work")
    go_on = threading.Event()
    lock = threading.Lock()
    done: list[int] = []
    at_work = most = 0

    def work(number: int) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        assert go_on.wait(PATIENCE)
        with lock:
            at_work -= 1
            done.append(number)

    for number in range(20):
        threads.submit(lambda number=number: work(number))  # type: ignore[misc]
    wait_until(lambda: at_work == 3, what="three threads at work")
    go_on.set()
    threads.shutdown()
    assert most == 3
    assert sorted(done) == list(range(20))


def test_no_work_is_lost_that_comes_when_a_thread_has_just_ended_its_own() -> None:
    threads = ThreadStack(2, name="work")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places in the middle of everything
    try:
        for number in range(3000):
            done = threading.Event()
            threads.submit(done.set)
            assert done.wait(PATIENCE), number
    finally:
        sys.setswitchinterval(interval)
    threads.shutdown()


def test_work_that_fails_is_logged_and_its_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    threads = ThreadStack(1, name="work")
    done = threading.Event()

    def fail() -> None:
        raise ValueError("this work fails")

    with caplog.at_level(logging.ERROR, logger="digestry.registry"):
        threads.submit(fail)
        threads.submit(done.set)
        assert done.wait(PATIENCE)
    threads.shutdown()
    assert "this work fails" in caplog.text


def test_stopped_threads_take_no_work_and_end() -> None:
    threads = ThreadStack(2, name="ended")
    done = threading.Event()
    threads.submit(done.set)
    threads.shutdown()
    assert done.is_set()
    with pytest.raises(RuntimeError, match="being stopped"):
        threads.submit(done.clear)
    assert not [each for each in threading.enumerate() if each.name.startswith("ended_")]
