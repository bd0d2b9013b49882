"""What nodes over PostgreSQL do when one is paused, cut off, or has a clock of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import make_url, text

from digestry.coordination.postgresql.clock import DatabaseClock
from digestry.coordination.postgresql.connections import Connections
from digestry.coordination.postgresql.coordination import PostgresCoordination
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, StorageError
from tests.coordination.conftest import LEASE
from tests.coordination.network import network_to
from tests.coordination.nodes import CONTENT, connections, other_node, through
from tests.coordination.test_contract import conflicts
from tests.support import free_port, wait_until

SHORT = 1.0


class SteadyClock:
    """A clock that runs as time does, until it is moved."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def base(database: str) -> Iterator[Connections]:
    """Connections of somebody else."""
    made = connections(database)
    yield made
    made.close()


@pytest.fixture
def node(base: Connections) -> Iterator[PostgresCoordination]:
    made = PostgresCoordination(base, node="here", lease_seconds=LEASE)
    yield made
    made.close()


def rows(base: Connections, sql: str, **values: Any) -> list[Any]:
    with base.statements() as connection:
        result = connection.execute(text(sql), values)
        return list(result) if result.returns_rows else []


def test_a_lock_has_a_new_number_each_time(node: PostgresCoordination, base: Connections) -> None:
    numbers = []
    for _ in range(3):
        with node.only_one(Job.SCRUB):
            numbers += [row.fence for row in rows(base, "SELECT fence FROM locks WHERE name = 'job/scrub'")]
    assert numbers == sorted(set(numbers))


def test_the_holder_is_known(node: PostgresCoordination) -> None:
    with node.only_one(Job.SCRUB):
        assert node.holders() == {Job.SCRUB: "here"}
    assert node.holders() == {}


@pytest.mark.long
@pytest.mark.parametrize("what", ["webhooks", "shared", "exclusive"])
def test_a_paused_node_learns_that_it_lost_its_lock(
    database: str, node: PostgresCoordination, what: str
) -> None:
    with other_node(database, what, lease_seconds=SHORT) as other:
        other.pause()
        if what == "webhooks":
            wait_until(lambda: not conflicts(lambda: node.only_one(Job.WEBHOOKS)), what="the lease's end")
        else:
            with node.guard(CONTENT, exclusive=True) as guard:
                guard.check()
        other.resume()
        assert other.ask("check") == "lost"
        assert other.ask("release") == "released"


@pytest.mark.long
def test_who_comes_late_does_not_end_the_lock_of_another(database: str, node: PostgresCoordination) -> None:
    with other_node(database, "webhooks", lease_seconds=SHORT) as other:
        other.pause()
        time.sleep(SHORT + 0.1)
        with node.only_one(Job.WEBHOOKS, wait=True) as lock:
            other.resume()
            assert other.ask("release") == "released"
            lock.check()
            assert conflicts(lambda: node.only_one(Job.WEBHOOKS))


def test_a_change_is_refused_once_another_has_the_lock(node: PostgresCoordination, base: Connections) -> None:
    slow = PostgresCoordination(base, node="slow", lease_seconds=LEASE)
    with slow.only_one(Job.WEBHOOKS) as lost:
        with base.transaction() as connection:
            lost.require_held(connection)
        # Whatever the node believes, the database says who has it.
        rows(base, "UPDATE locks SET expires_at = 0 WHERE name = 'job/webhooks'")
        with node.only_one(Job.WEBHOOKS) as lock:
            with pytest.raises(Conflict, match="job/webhooks"), base.transaction() as connection:
                lost.require_held(connection)
            with base.transaction() as connection:
                lock.require_held(connection)


@pytest.mark.long
def test_nobody_takes_the_lock_during_a_change(
    database: str, node: PostgresCoordination, base: Connections
) -> None:
    with other_node(database, "webhooks", lease_seconds=SHORT) as other:
        with base.transaction() as connection:
            # As that node's change does, which then takes long.
            confirm = "SELECT fence FROM locks WHERE name = 'job/webhooks' FOR SHARE"
            before = connection.execute(text(confirm)).scalar_one()
            other.kill()
            time.sleep(SHORT + 0.5)
            found = rows(base, "SELECT fence FROM locks WHERE name = 'job/webhooks'")
            assert [row.fence for row in found] == [before]
        with node.only_one(Job.WEBHOOKS, wait=True) as lock:
            lock.check()


@pytest.mark.long
def test_a_node_that_is_cut_off_loses_its_locks_and_comes_back(
    database: str, node: PostgresCoordination
) -> None:
    url = make_url(database)
    assert url.port is not None
    with network_to(url.port) as network:
        far = connections(through(database, network.port), seconds=1.0)
        away = PostgresCoordination(far, node="away", lease_seconds=LEASE)
        with away.only_one(Job.SCRUB) as lock, away.guard(CONTENT) as guard:
            network.cut()
            with node.only_one(Job.SCRUB, wait=True):
                with pytest.raises(Conflict):
                    lock.check()
                with node.guard(CONTENT, exclusive=True), pytest.raises(Conflict):
                    guard.check()
                began = time.monotonic()
                with pytest.raises(StorageError), away.guard(CONTENT):
                    pass
                assert time.monotonic() - began < 10.0
        network.mend()
        wait_until(lambda: _takes(away), what="the return of a node that was cut off")
        away.close()


def _takes(node: PostgresCoordination) -> bool:
    try:
        with node.only_one(Job.SCRUB) as lock, node.guard(CONTENT):
            lock.check()
    except (Conflict, StorageError):
        return False
    return True


def test_a_lease_ends_by_a_clock_that_nobody_sets(base: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteadyClock()
    node = PostgresCoordination(base, lease_seconds=LEASE, clock=clock)
    with node.only_one(Job.SCRUB) as lock:
        hour_ago = time.time() - 3600.0
        monkeypatch.setattr(time, "time", lambda: hour_ago)
        lock.check()
        monkeypatch.setattr(time, "time", lambda: hour_ago + 7200.0)
        lock.check()
        clock.ahead = 2 * LEASE  # as if it had been paused for so long
        with pytest.raises(Conflict):
            lock.check()


def test_a_database_clock_that_was_set_back_blocks_nobody(
    node: PostgresCoordination, base: Connections
) -> None:
    rows(base, "INSERT INTO locks VALUES ('job/scrub', 'dead', 7, 1 + 4102444800000000)")
    rows(base, "UPDATE locks SET expires_at = 4102444800000000 WHERE name LIKE 'guard/%'")
    with node.only_one(Job.SCRUB) as lock, node.guard(CONTENT) as guard:
        lock.check()
        guard.check()


def test_what_dead_nodes_left_is_removed(node: PostgresCoordination, base: Connections) -> None:
    name = f"guard/{node.guard_group(CONTENT)}"
    rows(base, "INSERT INTO shared_guards VALUES ('dead', :name, 1)", name=name)
    with node.guard(CONTENT, exclusive=True, wait=False):
        assert rows(base, "SELECT * FROM shared_guards") == []


def test_no_guard_is_left_behind(node: PostgresCoordination, base: Connections) -> None:
    for _ in range(10):
        with node.guard(CONTENT):
            pass
    wait_until(lambda: rows(base, "SELECT * FROM shared_guards") == [], what="the release of guards")


def test_keys_that_every_role_can_read_are_refused(node: PostgresCoordination, base: Connections) -> None:
    node.keys.add("1", b"secret")
    rows(base, "GRANT SELECT ON signing_keys TO PUBLIC")
    with pytest.raises(StorageError, match="every role") as raised:
        node.keys.check_private("1")
    assert "secret" not in str(raised.value)


@pytest.mark.long
def test_connections_that_the_server_closed_are_replaced(
    node: PostgresCoordination, base: Connections, database: str
) -> None:
    with node.only_one(Job.SCRUB), node.guard(CONTENT):
        pass
    other = connections(database)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    rows(other, f"{ended} WHERE datname = current_database() AND pid <> pg_backend_pid()")
    other.close()
    time.sleep(1.0)  # as long as a server's restart takes
    with node.only_one(Job.SCRUB) as lock, node.guard(CONTENT) as guard:
        lock.check()
        guard.check()


def test_the_time_is_the_databases(
    base: Connections, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (row,) = rows(base, "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) AS now")
    wrong = time.time_ns() - 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: wrong)
    steady = SteadyClock()
    clock = DatabaseClock(base, clock=steady)
    first = clock()
    assert abs(first - row.now) < 60_000_000
    steady.ahead = 10.0
    assert clock() - first >= 10_000_000  # it goes by the steady clock
    steady.ahead = 100.0  # so late it asks again
    wait_until(lambda: clock() - first < 90_000_000, what="the database's answer")
    wait_until(lambda: not _asks(), what="the end of the thread that asked")
    assert caplog.text == ""


def _asks() -> bool:
    return any(thread.name == "database clock" for thread in threading.enumerate())


def test_the_time_without_a_database(database: str, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = connections(through(database, free_port()))
    clock = DatabaseClock(nowhere)
    assert abs(clock() - time.time_ns() // 1000) < 60_000_000
    assert "what time it is" in caplog.text
    nowhere.close()
