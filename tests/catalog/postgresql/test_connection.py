"""What a server does to connections: they break in a commit, wait, end with a restart, and are refused."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from digestry.backend import Backend, StoreLocations, open_backend
from digestry.catalog import repository_rows, transaction_locks
from digestry.catalog.catalog import Catalog
from digestry.catalog.postgresql import connection as connections
from digestry.catalog.postgresql import requirements
from digestry.catalog.postgresql.address import parse_address
from digestry.catalog.postgresql.database import PostgresqlDatabase
from digestry.catalog.postgresql.failures import failure, is_lost
from digestry.catalog.transactions import OutcomeUnknown, retried
from digestry.errors import InvalidConfiguration, StorageBusy, StorageError
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from tests.backends import BlockingReads
from tests.catalog.postgresql.proxy import CommitProxy, When, proxy_to
from tests.catalog.support import ORIGIN, image, pushed
from tests.catalog.test_races import at_once
from tests.postgresql import PASSWORD, USER, Cluster, running_cluster
from tests.support import free_port, run_digestry, wait_until


@pytest.fixture
def proxy(postgresql: Cluster) -> Iterator[CommitProxy]:
    with proxy_to(postgresql.port) as made:
        yield made


@pytest.fixture
def proxied(
    proxy: CommitProxy, postgresql: Cluster, url: str, catalog: Catalog, tmp_path: Path
) -> Iterator[Catalog]:
    """The same catalog, by way of the proxy."""
    location = StoreLocations(database=postgresql.url(url.rpartition("/")[2], port=proxy.port))
    made = open_backend(tmp_path, stores=location).open_catalog()
    yield made
    made.close()


@pytest.mark.long
def test_a_commit_that_did_not_arrive_is_done_again(
    proxy: CommitProxy, proxied: Catalog, catalog: Catalog
) -> None:
    manifest = image(proxied, "x")
    proxy.cut = "before"
    (event,) = proxied.put_manifest("x", manifest, tag_names=["t"], origin=ORIGIN)
    assert (proxy.cuts, event.event) == (1, "created")
    assert [entry.event for entry in catalog.journal("x", limit=10)] == ["created"]


def test_a_commit_whose_answer_was_lost_is_not_acknowledged_and_found_out(
    proxy: CommitProxy, proxied: Catalog, catalog: Catalog
) -> None:
    manifest = image(proxied, "x")
    proxy.cut = "after"
    with pytest.raises(OutcomeUnknown) as caught:
        proxied.put_manifest("x", manifest, tag_names=["t"], origin=ORIGIN)
    assert caught.value.committed is True
    assert "it was committed" in caught.value.message
    assert catalog.tags("x")[0].digest == manifest.digest
    # Whoever tries again finds it done.
    assert proxied.put_manifest("x", manifest, tag_names=["t"], origin=ORIGIN) == []


@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_lost_and_nothing_done_twice(
    proxy: CommitProxy, proxied: Catalog, catalog: Catalog, when: When
) -> None:
    acknowledged = []
    for number in range(12):
        if number % 3 == 1:
            proxy.cut = when
        try:
            acknowledged += [event.to_digest for event in (pushed_event(proxied, f"t{number}"),)]
        except OutcomeUnknown:
            assert when == "after"
    found = [event.to_digest for event in catalog.journal("x", limit=100)]
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
    assert catalog.verify_journal() is None


def pushed_event(catalog: Catalog, tag: str) -> TagEvent:
    manifest = image(catalog, "x")
    (event,) = catalog.put_manifest("x", manifest, tag_names=[tag], origin=ORIGIN)
    return event


@pytest.mark.long
def test_the_password_is_in_no_message(backend: Backend, url: str, tmp_path: Path) -> None:
    texts = [repr(backend), backend.catalog_store.describe(), repr(parse_address(url))]
    wrong = open_backend(tmp_path, stores=StoreLocations(database=url.replace("registry_", "absent_")))
    nowhere = open_backend(
        tmp_path, stores=StoreLocations(database=f"postgresql://digestry:a-secret@127.0.0.1:{free_port()}/x")
    )
    for store in (wrong.catalog_store, nowhere.catalog_store):
        with pytest.raises(StorageError) as caught:
            store.is_empty()
        texts += [str(caught.value), repr(caught.value), str(caught.value.__cause__)]
    with pytest.raises(InvalidConfiguration) as refused:
        parse_address(f"postgresql://digestry:{PASSWORD}%zz@h/db")
    texts += [str(refused.value), refused.value.hint]
    assert all("secret" not in found for found in texts)


@pytest.mark.long
@pytest.mark.parametrize("command", ["journal verify", "scrub", "gc", "token list", "serve"])
def test_the_password_is_in_no_error_of_a_command(postgresql: Cluster, tmp_path: Path, command: str) -> None:
    file = tmp_path / "registry.toml"
    url = f"postgresql://digestry:a-secret@127.0.0.1:{postgresql.port}/nowhere"
    file.write_text(f'[storage]\ndatabase = "{url}"\nblobs = "s3://bucket"\n')
    done = run_digestry(*command.split(), "--config", file, env={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert done.returncode not in {0, 70}
    assert f"postgresql://127.0.0.1:{postgresql.port}/nowhere" in done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize(("name", "said"), [("nobody", "authentication"), ("digestry", "does not exist")])
def test_a_user_or_a_database_that_is_wrong_is_told(
    postgresql: Cluster, tmp_path: Path, name: str, said: str
) -> None:
    url = postgresql.url("nowhere").replace("://digestry:", f"://{name}:")
    catalog = open_backend(tmp_path, stores=StoreLocations(database=url)).open_catalog()
    with pytest.raises(StorageBusy, match=said) as raised:
        catalog.has_repository("x")
    assert "check the user, the password and the database" in raised.value.hint
    catalog.close()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("FATAL:  the database system is starting up", "goes on by itself"),
        ("FATAL:  sorry, too many clients already", "goes on by itself"),
        ("FATAL:  Passwort-Authentifizierung fehlgeschlagen", "check the user"),
        ("connection failed: Connection refused", "that its URL names its address"),
    ],
)
def test_a_connection_that_fails_says_what_to_do(words: str, hint: str) -> None:
    assert hint in failure("a", psycopg.OperationalError(words)).hint


@pytest.mark.long
def test_a_server_that_is_not_there_is_told_in_bounded_time(tmp_path: Path) -> None:
    backend = open_backend(
        tmp_path, stores=StoreLocations(database=f"postgresql://digestry@127.0.0.1:{free_port()}/x")
    )
    catalog = backend.open_catalog()
    began = time.monotonic()
    with pytest.raises(StorageBusy, match="cannot be reached"):
        catalog.has_repository("x")
    with pytest.raises(StorageBusy, match="cannot be reached"):
        catalog.add_blob("x", Digest.of(b""), 0)
    reads = BlockingReads(backend)
    with pytest.raises(StorageBusy, match="cannot be reached"):
        reads.manifest("x", "t")
    assert time.monotonic() - began < 20
    reads.close()
    catalog.close()


def test_who_waits_too_long_for_a_row_is_told(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed(catalog, "x")
    short = connections.BEGIN_WRITING.replace("'lock_timeout', '10s'", "'lock_timeout', '50ms'")
    monkeypatch.setattr(connections, "BEGIN_WRITING", short)
    with catalog._database.write() as connection:
        connection.execute(text("SELECT id FROM repositories FOR UPDATE"))
        with pytest.raises(StorageBusy, match="lock timeout"):
            catalog.add_blob("x", Digest.of(b"y"), 1)
    catalog.add_blob("x", Digest.of(b"y"), 1)


def test_a_statement_that_takes_too_long_is_ended(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its transaction leaves nothing."""
    monkeypatch.setattr(connections, "BEGIN_WRITING", connections.BEGIN_WRITING.replace("'30s'", "'200ms'"))

    def sleep() -> None:
        with catalog._database.write() as connection:
            repository_rows.lock_or_make(connection, "x", 1)
            connection.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(StorageBusy, match="statement timeout"):
        sleep()
    assert not catalog.has_repository("x")


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (("VERSION", 99_00_00), "it is version"),
        (("FUNCTIONS", ("pg_xact_status", "pg_of_the_future")), "it has no function pg_of_the_future"),
    ],
)
def test_a_database_that_lacks_something_is_told_at_once(
    postgresql: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: tuple[str, object],
    said: str,
) -> None:
    """And gets no tables."""
    monkeypatch.setattr(requirements, *lacking)
    url = postgresql.new_database()
    backend = open_backend(tmp_path, stores=StoreLocations(database=url))
    catalog = backend.open_catalog()
    with pytest.raises(InvalidConfiguration, match=said) as caught:
        catalog.migrate()
    assert "PostgreSQL 15" in caught.value.hint
    assert backend.catalog_store.is_empty()
    catalog.close()
    postgresql.drop_database(url)


def test_a_database_of_another_encoding_is_told_at_once(postgresql: Cluster, tmp_path: Path) -> None:
    with postgresql.superuser() as connection:
        connection.execute(
            f"CREATE DATABASE latin OWNER {USER} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
            " LOCALE_PROVIDER libc"
        )
    catalog = open_backend(tmp_path, stores=StoreLocations(database=postgresql.url("latin"))).open_catalog()
    with pytest.raises(InvalidConfiguration, match="its texts are LATIN1"):
        catalog.migrate()
    catalog.close()
    postgresql.drop_database(postgresql.url("latin"))


def test_no_connection_keeps_a_setting(catalog: Catalog) -> None:
    """As a pooler in transaction mode requires it."""
    for transaction in (catalog._database.write, catalog._database.read):
        with transaction() as connection:
            assert connection.execute(text("SHOW statement_timeout")).scalar() == "30s"
            assert connection.execute(text("SHOW lock_timeout")).scalar() == "10s"
            assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar() == 0
            driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert driver.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_a_reader_cannot_write(catalog: Catalog) -> None:
    with pytest.raises(StorageError, match="read-only transaction"), catalog._database.read() as connection:
        connection.execute(text("DELETE FROM uploads"))


def test_a_reader_sees_one_state(catalog: Catalog) -> None:
    count = text("SELECT count(*) FROM repositories")
    with catalog._database.read() as connection:
        assert connection.execute(count).scalar() == 0
        pushed(catalog, "meanwhile")
        assert connection.execute(count).scalar() == 0
    with catalog._database.read() as connection:
        assert connection.execute(count).scalar() == 1


def test_a_transaction_that_fails_leaves_nothing(catalog: Catalog) -> None:
    def half() -> None:
        with catalog._database.write() as connection:
            connection.execute(text("INSERT INTO repositories (name, created_at) VALUES ('half', 1)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert not catalog.has_repository("half")


# -- a server of the test's own ----------------------------------------------------------------------


@pytest.fixture
def own() -> Iterator[Cluster]:
    """A server that the test may stop."""
    with running_cluster() as cluster:
        yield cluster


@pytest.mark.long
def test_a_restart_in_the_middle(own: Cluster, tmp_path: Path) -> None:
    """What was acknowledged is there; who asks while the server is away is told; all goes on by itself."""
    backend = open_backend(tmp_path, stores=StoreLocations(database=own.new_database()))
    catalog = backend.open_catalog()
    catalog.migrate()
    done = threading.Event()
    acknowledged: list[Digest] = []
    refused: list[StorageError] = []

    def push() -> None:
        while not done.is_set():
            try:
                acknowledged.append(pushed(catalog, "x").digest)
            except StorageBusy as error:
                refused.append(error)

    async def read() -> int:
        reads, found = backend.open_reads(), 0
        while not done.is_set():
            try:
                found += await reads.manifest("x", "t") is not None
            except StorageBusy as error:
                refused.append(error)
                await asyncio.sleep(0.05)
        await reads.close()
        return found

    found: list[int] = []
    threads = [threading.Thread(target=push) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: found.append(asyncio.run(read()))))
    for thread in threads:
        thread.start()

    def pushes() -> None:
        enough = len(acknowledged) + 5
        wait_until(lambda: len(acknowledged) > enough, what="a push")

    for mode in ("fast", "immediate"):
        pushes()
        own.restart(mode)
    pushes()
    done.set()
    for thread in threads:
        thread.join()
    there = {event.to_digest for event in catalog.journal("x", limit=100_000)}
    assert set(acknowledged) <= there
    assert found[0] > 0
    assert catalog.verify_journal() is None
    catalog.close()


@pytest.mark.long
def test_a_change_that_only_one_server_has_is_not_acknowledged(
    own: Cluster,
) -> None:
    """It has it, and waits for its standby: longer than a client, or until somebody ends the wait."""
    url = own.new_database()
    catalog = Catalog(PostgresqlDatabase(parse_address(url), commit_seconds=0.5))
    catalog.migrate()
    digest = Digest.of(b"")
    with own.superuser() as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
        connection.execute("SELECT pg_reload_conf()")
    wait_until(lambda: not _acknowledged(catalog, digest), what="the new setting")
    patient = Catalog(PostgresqlDatabase(parse_address(url)))
    done = threading.Event()
    ender = threading.Thread(target=_end_waits, args=(own, done))
    ender.start()
    with pytest.raises(OutcomeUnknown, match="canceling wait for synchronous replication"):
        patient.add_blob("x", Digest.of(b"y"), 1)
    done.set()
    ender.join()
    # All are there. Only where the standby is, nobody knows.
    assert [catalog.blob_size("x", found) for found in (digest, Digest.of(b"y"))] == [0, 1]
    catalog.close()
    patient.close()


def _acknowledged(catalog: Catalog, digest: Digest) -> bool:
    try:
        catalog.add_blob("x", digest, 0)
    except OutcomeUnknown as error:
        assert (error.committed, "within 0.5 s" in error.message) == (None, True)  # noqa: PT017
        return False
    return True


def _end_waits(postgresql: Cluster, done: threading.Event) -> None:
    waits = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with postgresql.superuser() as connection:
        while not done.wait(0.1):
            connection.execute(waits)


@pytest.mark.long
def test_a_failover_to_a_synchronous_standby_loses_nothing_acknowledged(own: Cluster, tmp_path: Path) -> None:
    standby = own.standby(own.directory / "standby")
    name = own.new_database().rpartition("/")[2]
    with own.superuser() as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
    hosts = f"127.0.0.1:{own.port},127.0.0.1:{standby.port}"
    url = own.url(name).replace(f"127.0.0.1:{own.port}", hosts) + "?target_session_attrs=read-write"
    backend = open_backend(tmp_path, stores=StoreLocations(database=url))
    nodes = [backend.open_catalog() for _ in range(2)]
    nodes[0].migrate()
    done = threading.Event()
    acknowledged: list[Digest] = []

    def push(node: Catalog, repository: str) -> None:
        while not done.is_set():
            with contextlib.suppress(StorageBusy):
                acknowledged.append(pushed(node, repository).digest)

    threads = [
        threading.Thread(target=push, args=(node, repository)) for node in nodes for repository in ("x", "y")
    ]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(acknowledged) > 50, what="a push")
        own.stop("immediate")
        before = len(acknowledged)
        standby.promote()
        promoted = time.monotonic()
        wait_until(lambda: len(acknowledged) > before + 20, what="a push to the promoted server")
        assert time.monotonic() - promoted < 30
        done.set()
        for thread in threads:
            thread.join()
        there = {event.to_digest for name in ("x", "y") for event in nodes[0].journal(name, limit=1_000_000)}
        assert set(acknowledged) <= there
        assert nodes[0].verify_journal() is None
    finally:
        done.set()
        for node in nodes:
            node.close()
        standby.stop()


@pytest.mark.long
def test_who_is_undone_for_anothers_sake_tries_again(catalog: Catalog) -> None:
    """Two transactions that wait for each other: the server undoes one of them."""
    both = threading.Barrier(2)
    attempts: list[str] = []

    @retried
    def lock(first: str, second: str) -> None:
        attempts.append(first)
        with catalog._database.write() as connection:
            transaction_locks.lock(connection, first)
            if len(attempts) <= 2:
                both.wait()
            transaction_locks.lock(connection, second)

    at_once(lambda: lock("a", "b"), lambda: lock("b", "a"))
    assert len(attempts) >= 3  # on a busy machine one may be undone twice


def test_who_is_undone_again_and_again_is_told(catalog: Catalog) -> None:
    attempts: list[int] = []

    @retried
    def twice() -> None:
        attempts.append(1)
        with catalog._database.write() as connection:
            for _ in range(2):
                connection.execute(text("INSERT INTO transaction_locks (name) VALUES ('same')"))

    with pytest.raises(StorageBusy, match="duplicate key"):
        twice()
    assert len(attempts) == 5


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (psycopg.OperationalError("consuming input failed: server closed the connection"), True),
        # What psycopg makes of a result that libpq wrote itself, since nothing came from the server.
        (psycopg.DatabaseError("server closed the connection unexpectedly"), True),
        (psycopg.errors.AdminShutdown("terminating connection"), True),
        (psycopg.errors.UniqueViolation("duplicate key"), False),
        (psycopg.InterfaceError("the cursor is closed"), False),
    ],
)
def test_a_connection_that_is_gone_is_told_from_a_statement_that_failed(
    error: psycopg.Error, lost: bool
) -> None:
    assert is_lost(error) is lost
    assert ("cannot be reached" in failure("postgresql://x", error).message) is lost
