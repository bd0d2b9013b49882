"""What every coordination must do: two nodes of one registry, and nodes in processes of their own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from digestry.coordination.protocol import Coordination, Job
from digestry.errors import Conflict, NotFound
from digestry.model.digest import Digest
from tests.coordination.conftest import LEASE
from tests.coordination.nodes import CONTENT, other_node
from tests.support import PATIENCE, wait_until


def conflicts(take: Callable[[], contextlib.AbstractContextManager[object]]) -> bool:
    """Whether another has what ``take`` asks for."""
    try:
        with take():
            return False
    except Conflict:
        return True


@contextlib.contextmanager
def waiting(take: Callable[[], contextlib.AbstractContextManager[object]]) -> Iterator[threading.Event]:
    """A thread that takes something; the event tells that it has it."""
    has = threading.Event()

    def run() -> None:
        with take():
            has.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield has
    thread.join(PATIENCE)
    assert not thread.is_alive()


class TestOnlyOne:
    """A job is done by one node at a time."""

    @pytest.mark.long
    def test_another_node_is_refused(self, here: Coordination, there: Coordination) -> None:
        with here.only_one(Job.SCRUB) as lock:
            lock.check()
            with pytest.raises(Conflict, match="scrubbing"), there.only_one(Job.SCRUB, held="scrubbing"):
                pass
            with pytest.raises(Conflict), here.only_one(Job.SCRUB):
                pass
        with there.only_one(Job.SCRUB) as lock:
            lock.check()

    @pytest.mark.long
    def test_jobs_do_not_exclude_each_other(self, here: Coordination, there: Coordination) -> None:
        with here.only_one(Job.SCRUB), there.only_one(Job.WEBHOOKS), there.only_one(Job.COLLECTION):
            assert conflicts(lambda: here.only_one(Job.COLLECTION))

    def test_who_waits_comes_next(self, here: Coordination, there: Coordination) -> None:
        with contextlib.ExitStack() as held:
            with here.only_one(Job.COLLECTION):
                has = held.enter_context(waiting(lambda: there.only_one(Job.COLLECTION, wait=True)))
                assert not has.wait(0.3)
            assert has.wait(PATIENCE)

    def test_an_error_of_the_job_releases_it(self, here: Coordination, there: Coordination) -> None:
        with pytest.raises(ZeroDivisionError), here.only_one(Job.SCRUB):
            raise ZeroDivisionError
        assert not conflicts(lambda: there.only_one(Job.SCRUB))

    @pytest.mark.long
    def test_a_long_job_keeps_it(self, here: Coordination, there: Coordination) -> None:
        with here.only_one(Job.SCRUB) as lock:
            end = time.monotonic() + 2 * LEASE
            while time.monotonic() < end:
                assert conflicts(lambda: there.only_one(Job.SCRUB))
                lock.check()
                time.sleep(0.2)

    @pytest.mark.long
    def test_a_killed_node_loses_it(self, place: str, here: Coordination) -> None:
        with other_node(place, "webhooks", lease_seconds=LEASE) as other:
            assert conflicts(lambda: here.only_one(Job.WEBHOOKS))
            assert other.ask("check") == "holds"
            other.kill()
            began = time.monotonic()
            wait_until(
                lambda: not conflicts(lambda: here.only_one(Job.WEBHOOKS)), what="the end of the lease"
            )
            assert time.monotonic() - began < LEASE + 2.0

    def test_one_at_a_time(self, here: Coordination, there: Coordination) -> None:
        inside, most = 0, 0
        counting = threading.Lock()

        def work(node: Coordination) -> None:
            nonlocal inside, most
            for _ in range(5):
                with node.only_one(Job.SCRUB, wait=True):
                    with counting:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0.002)
                    with counting:
                        inside -= 1

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, [here, there] * 2))
        assert most == 1


class TestGuard:
    """Content stays while somebody makes it visible."""

    def test_pushes_share_it(self, here: Coordination, there: Coordination) -> None:
        with here.guard(CONTENT) as one, there.guard(CONTENT, wait=False) as two, here.guard(CONTENT):
            one.check()
            two.check()

    def test_a_push_keeps_who_removes_out(self, here: Coordination, there: Coordination) -> None:
        with here.guard(CONTENT), pytest.raises(Conflict):  # noqa: SIM117
            with there.guard(CONTENT, exclusive=True, wait=False):
                pass

    def test_who_removes_keeps_pushes_out(self, here: Coordination, there: Coordination) -> None:
        with here.guard(CONTENT, exclusive=True, wait=False) as guard:
            guard.check()
            assert conflicts(lambda: there.guard(CONTENT, wait=False))
            assert conflicts(lambda: there.guard(CONTENT, exclusive=True, wait=False))

    def test_a_push_waits_for_who_removes(self, here: Coordination, there: Coordination) -> None:
        with contextlib.ExitStack() as held:
            with here.guard(CONTENT, exclusive=True):
                has = held.enter_context(waiting(lambda: there.guard(CONTENT)))
                assert not has.wait(0.2)
            assert has.wait(PATIENCE)

    def test_who_removes_waits_for_pushes(self, here: Coordination, there: Coordination) -> None:
        with contextlib.ExitStack() as held:
            with here.guard(CONTENT):
                has = held.enter_context(waiting(lambda: there.guard(CONTENT, exclusive=True)))
                assert not has.wait(0.2)
            assert has.wait(PATIENCE)

    def test_other_content_is_free(self, here: Coordination, there: Coordination) -> None:
        others = (Digest.of(str(number).encode()) for number in range(1000))
        other = next(digest for digest in others if here.guard_group(digest) != here.guard_group(CONTENT))
        with here.guard(CONTENT, exclusive=True), there.guard(other, exclusive=True, wait=False):
            pass

    def test_content_of_one_group_has_one_guard(self, here: Coordination, there: Coordination) -> None:
        others = (Digest.of(str(number).encode()) for number in range(10_000))
        alike = next(digest for digest in others if here.guard_group(digest) == here.guard_group(CONTENT))
        assert here.guard_group(alike) == there.guard_group(alike)
        with here.guard(CONTENT, exclusive=True):
            assert conflicts(lambda: there.guard(alike, wait=False))

    @pytest.mark.long
    def test_a_long_push_keeps_it(self, here: Coordination, there: Coordination) -> None:
        with here.guard(CONTENT) as guard:
            end = time.monotonic() + 2 * LEASE
            while time.monotonic() < end:
                assert conflicts(lambda: there.guard(CONTENT, exclusive=True, wait=False))
                guard.check()
                time.sleep(0.2)

    @pytest.mark.long
    @pytest.mark.parametrize("what", ["shared", "exclusive"])
    def test_a_killed_node_loses_it(self, place: str, here: Coordination, what: str) -> None:
        with other_node(place, what, lease_seconds=LEASE) as other:
            assert conflicts(lambda: here.guard(CONTENT, exclusive=True, wait=False))
            other.kill()
            began = time.monotonic()
            with here.guard(CONTENT, exclusive=True):
                assert time.monotonic() - began < LEASE + 2.0

    def test_who_reads_and_who_removes_never_meet(self, here: Coordination, there: Coordination) -> None:
        pushing, removing, wrong = 0, 0, []
        counting = threading.Lock()

        def push(node: Coordination) -> None:
            nonlocal pushing
            for _ in range(20):
                with node.guard(CONTENT):
                    with counting:
                        pushing += 1
                        wrong.extend([removing] if removing else [])
                    time.sleep(0.001)
                    with counting:
                        pushing -= 1

        def remove(node: Coordination) -> None:
            nonlocal removing
            for number in range(5):
                try:
                    with node.guard(CONTENT, exclusive=True, wait=bool(number % 2)):
                        with counting:
                            removing += 1
                            wrong.extend([pushing] if pushing else [])
                        time.sleep(0.001)
                        with counting:
                            removing -= 1
                except Conflict:
                    continue

        with ThreadPoolExecutor(4) as threads:
            work = [threads.submit(push, here), threads.submit(push, there)]
            work += [threads.submit(remove, here), threads.submit(remove, there)]
            for one in work:
                one.result(PATIENCE)
        assert wrong == []


class TestTurn:
    """Calls for one key are made one at a time."""

    def test_the_next_waits(self, here: Coordination, there: Coordination) -> None:
        with contextlib.ExitStack() as held:
            with here.turn("upstream", "app", "1.0"):
                has = held.enter_context(waiting(lambda: there.turn("upstream", "app", "1.0")))
                assert not has.wait(0.2)
            assert has.wait(PATIENCE)

    def test_scopes_do_not_wait_for_each_other(self, here: Coordination, there: Coordination) -> None:
        with here.turn("one.example", "app"), there.turn("two.example", "app"):
            pass


class TestKeys:
    """All nodes have the same keys."""

    def test_a_key_is_there_for_every_node(self, here: Coordination, there: Coordination) -> None:
        assert here.keys.ids() == []
        here.keys.add("2", b"second")
        here.keys.add("1", b"first")
        assert there.keys.ids() == ["1", "2"]
        assert there.keys.read("2") == b"second"
        there.keys.check_private("2")
        assert "2" in there.keys.location("2")

    def test_the_version_moves_with_each_change(self, here: Coordination, there: Coordination) -> None:
        here.keys.add("1", b"first")
        before = there.keys.version()
        assert here.keys.version() == before
        time.sleep(0.01)  # the times of files are coarse
        here.keys.add("2", b"second")
        added = there.keys.version()
        time.sleep(0.01)
        here.keys.remove("1")
        assert len({before, added, there.keys.version()}) == 3

    def test_a_removed_key_is_gone(self, here: Coordination, there: Coordination) -> None:
        here.keys.add("1", b"first")
        there.keys.remove("1")
        assert here.keys.ids() == []
        with pytest.raises(NotFound):
            here.keys.read("1")


class TestNotes:
    """All nodes have the same notes."""

    def test_a_note_is_there_for_every_node(self, here: Coordination, there: Coordination) -> None:
        assert here.notes.read("kept") is None
        here.notes.write("kept", b"first")
        there.notes.write("kept", b"second")
        assert here.notes.read("kept") == b"second"
        assert here.notes.read("other") is None
        assert "kept" in here.notes.location("kept")


class TestBackoff:
    """All nodes leave an upstream alone that one of them was told to."""

    def test_every_node_knows_of_it(self, here: Coordination, there: Coordination) -> None:
        with here.turn("one.example", "x"):  # makes the directory, as a mirror does
            pass
        mine, other = (node.backoff("one.example", longest=3600.0) for node in (here, there))
        assert other.remaining() == (0.0, "")
        mine.start(100.0, "rate limited")
        seconds, why = other.remaining()
        assert 90.0 < seconds <= 100.0
        assert why == "rate limited"
        assert there.backoff("two.example", longest=3600.0).remaining() == (0.0, "")
        other.start(50.0, "unreachable")
        assert mine.remaining()[0] <= 50.0
        other.end()
        assert mine.remaining() == (0.0, "")

    def test_none_is_longer_than_the_longest(self, here: Coordination) -> None:
        with here.turn("one.example", "x"):
            pass
        here.backoff("one.example", longest=3600.0).start(1800.0, "rate limited")
        assert here.backoff("one.example", longest=600.0).remaining() == (0.0, "")


class TestLoginFailures:
    """The strikes of a network count at every node, where nodes share them."""

    def test_strikes_add_up(self, here: Coordination, there: Coordination) -> None:
        mine, other = here.login_failures, there.login_failures
        if mine is None or other is None:
            pytest.skip("the processes of one host count by themselves")
        mine.add({"192.0.2.1": 5}, 600.0)
        other.add({"192.0.2.1": 4}, 600.0)
        mine.add({"192.0.2.2": 3}, 600.0)
        assert other.suspects(8) == {"192.0.2.1": 9}
        mine.add({"192.0.2.1": -1}, 600.0)
        assert other.suspects(8) == {}
        assert other.suspects(0) == {"192.0.2.1": 8, "192.0.2.2": 3}

    def test_strikes_are_forgotten(self, here: Coordination, there: Coordination) -> None:
        mine, other = here.login_failures, there.login_failures
        if mine is None or other is None:
            pytest.skip("the processes of one host count by themselves")
        mine.add({"192.0.2.1": 9}, 0.05)
        wait_until(lambda: other.suspects(0) == {}, what="the end of strikes")
        mine.add({"192.0.2.1": -3}, 600.0)
        assert other.suspects(0) == {}
        mine.add({"192.0.2.1": 2}, 600.0)
        assert other.suspects(0) == {"192.0.2.1": 2}
