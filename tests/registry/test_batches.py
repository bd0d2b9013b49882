"""Batches: what waits is done together, in its order, by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from digestry.registry.batches import Batches, Then
from tests.support import PATIENCE, wait_until


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def test_what_comes_while_a_batch_is_done_is_the_next_one(threads: ThreadPoolExecutor) -> None:
    done: list[list[int]] = []
    began, go_on = threading.Event(), threading.Event()

    def do(batch: list[int]) -> None:
        done.append(batch)
        began.set()
        assert go_on.wait(PATIENCE)

    batches = Batches(do, threads, most=4)
    batches.add([0])
    assert began.wait(PATIENCE)
    for number in range(1, 7):
        batches.add([number])
    assert done == [[0]]
    go_on.set()
    wait_until(lambda: len(done) == 3, what="the batches")
    assert done == [[0], [1, 2, 3, 4], [5, 6]]


def test_all_is_done_in_its_order_whoever_adds(threads: ThreadPoolExecutor) -> None:
    done: list[tuple[int, int]] = []
    at_once = 0

    def do(batch: list[tuple[int, int]]) -> None:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        done.extend(batch)
        at_once -= 1

    batches = Batches(do, threads)

    def add(adder: int) -> None:
        for number in range(200):
            batches.add([(adder, number)], here=adder % 2 == 0)

    adders = [threading.Thread(target=add, args=(adder,)) for adder in range(4)]
    for thread in adders:
        thread.start()
    for thread in adders:
        thread.join(PATIENCE)
    wait_until(lambda: len(done) == 800, what="all of it")
    for adder in range(4):
        assert [number for who, number in done if who == adder] == list(range(200))


def test_the_next_batch_begins_while_the_end_of_one_is_done(threads: ThreadPoolExecutor) -> None:
    done: list[int] = []
    second = threading.Event()

    def do(batch: list[int]) -> Then:
        done.extend(batch)
        if batch == [2]:
            second.set()
            return lambda: None
        batches.add([2])
        return lambda: done.append(-1 if second.wait(PATIENCE) else -2)

    batches = Batches(do, threads)
    batches.add([1])
    wait_until(lambda: len(done) == 3, what="all of it")
    assert done == [1, 2, -1]


def test_what_waits_is_done_also_when_the_threads_are_being_stopped() -> None:
    threads = ThreadPoolExecutor(1)
    done: list[int] = []

    def do(batch: list[int]) -> Then:
        done.extend(batch)
        if batch == [1]:
            batches.add([2])
        return lambda: None

    batches = Batches(do, threads)
    threads.shutdown()
    batches.add([1])
    assert done == [1, 2]


def test_several_batches_are_done_side_by_side(threads: ThreadPoolExecutor) -> None:
    all_there = threading.Barrier(3, timeout=PATIENCE)
    done: list[int] = []

    def do(batch: list[int]) -> None:
        (number,) = batch
        if number < 3:
            all_there.wait()
        done.append(number)

    batches = Batches(do, threads, most=1, at_once=3)
    batches.add(range(10))
    wait_until(lambda: len(done) == 10, what="all of it")
    batches.add([10])
    wait_until(lambda: len(done) == 11, what="one more")
    assert sorted(done) == list(range(11))
    wait_until(lambda: batches._busy == 0, what="their end")
