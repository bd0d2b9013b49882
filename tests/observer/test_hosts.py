"""The pace of one registry's requests: no turn is given out ahead of time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.model.tag_check import StatedRate
from digestry.observer.hosts import Host
from digestry.registry.pull_through.config import implied
from digestry.upstream.http_upstream import ClientUpstream, UpstreamOptions
from tests.backends import open_coordination
from tests.support import wait_until


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    def asking(_: object) -> ClientUpstream:
        return ClientUpstream(UpstreamOptions("up.test", "http://127.0.0.1:1"))

    coordination = open_coordination(tmp_path)
    made = Host(implied("up.test"), asking, coordination, tmp_path, rate=1000, parallel=8)
    yield made
    made.stop()


def test_a_limit_that_is_lifted_holds_nobody_up(host: Host) -> None:
    """Those who waited did not take their turns of the hours to come."""
    stop, done = threading.Event(), []

    def ask() -> None:
        done.append(host.wait_turn(stop))

    host.obey(StatedRate(1, 100, 3600.0))
    assert host.wait_turn(stop)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert not stop.wait(0.5)
        assert done == []
        host.obey(StatedRate(90, 100, 3600.0))
        wait_until(lambda: len(done) == len(threads), what="everybody has had a turn")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(done)


def test_after_the_reset_there_is_a_new_limit(host: Host) -> None:
    stop = threading.Event()
    host.obey(StatedRate(0, 100, 0.3))
    assert host.wait_turn(stop)
    host.obey(StatedRate(1, 100, 0.3))
    threads = [threading.Thread(target=host.wait_turn, args=(stop,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)  # in the turns of the old limit it would be six seconds
    late = [thread for thread in threads if thread.is_alive()]
    stop.set()
    assert not late
