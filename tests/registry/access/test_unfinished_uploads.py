"""Unfinished uploads: they count in quotas, as what they are on the disk, and nobody's keep others out."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from digestry.catalog.catalog import Catalog
from digestry.catalog.quotas import OverQuota, Quota
from digestry.errors import NotFound, TooMany
from digestry.model.digest import Digest
from tests.backends import open_blobs, open_catalog
from tests.registry.access.support import As, guarded, nobody, of
from tests.registry.support import ingest_files, upload_rows
from tests.stores import arrived, needs_disk
from tests.support import RegistryServer, wait_until

QUOTA = 4 << 20
LIMITS = f"""
workers = 2

[proxy]
trusted = "127.0.0.1"

[[rule]]
who = "authenticated"
actions = "admin"

[[rule]]
who = "anonymous"
repository = "public/**"
actions = ["pull", "push"]

[limits]
uploads = 40
uploads-per-user = 20
body-seconds = 2
upload-idle-seconds = 3600

[[quota]]
repository = "small/*"
bytes = {QUOTA}

[[quota]]
repository = "large/*"
bytes = "64 MiB"

[[quota]]
repository = "shared/**"
bytes = {QUOTA}
each = "pattern"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    top, _, rest = LIMITS.partition("[proxy]")
    with guarded("[proxy]" + rest, "--workers", top.split()[-1]) as server:
        yield server


@pytest.fixture
def alice(server: RegistryServer) -> As:
    return of(server, "alice")


def begun(asking: As, name: str) -> str:
    answer = asking.request("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202, answer.body
    return answer.headers["location"]


def unfinished(server: RegistryServer) -> int:
    """Bytes of unfinished uploads on the disk."""
    size = 0
    for name in open_blobs(server.root).ingests():
        with contextlib.suppress(NotFound):
            size += arrived(server.root, name)
    return size


@pytest.fixture(autouse=True)
def forget(server: RegistryServer) -> Iterator[None]:
    """Cancels what a test has left."""
    yield
    with closing(sqlite3.connect(f"file:{server.root / 'catalog.db'}?mode=ro", uri=True)) as connection:
        for repository, upload in connection.execute("SELECT repository, id FROM uploads").fetchall():
            of(server, "carol").request("DELETE", f"/v2/{repository}/blobs/uploads/{upload}")
    assert ingest_files(server) == set()


@pytest.mark.long
@pytest.mark.parametrize("names", [["small/one"], ["shared/a", "shared/b", "shared/c/d"]])
def test_they_count(server: RegistryServer, alice: As, names: list[str]) -> None:
    part = os.urandom(1 << 20)
    paths = [begun(alice, names[number % len(names)]) for number in range(6)]
    statuses = [alice.request("PATCH", path, part).status for path in paths]
    assert statuses == [202] * 4 + [403] * 2
    assert unfinished(server) <= QUOTA
    refused = alice.request("PATCH", paths[0], b"one byte more")
    assert (refused.status, refused.code) == (403, "DENIED")
    assert "quota" in refused.body.decode()
    # What is small and needs no upload, and what needs no bytes, finds no room either.
    for name in names:
        assert alice.push_blob(name, b"x" * 1000 + name.encode()).status in {201, 403}
    left = QUOTA - 3 * len(part)
    assert alice.push_blob(names[0], os.urandom(left + 1)).status == 403


def test_a_finished_one_counts_once(server: RegistryServer, alice: As) -> None:
    content = os.urandom(QUOTA)
    path = begun(alice, "small/whole")
    assert alice.request("PATCH", path, content[: QUOTA // 2]).status == 202
    answer = alice.request("PUT", f"{path}?digest={Digest.of(content)}", content[QUOTA // 2 :])
    assert answer.status == 201, answer.body
    assert alice.push_blob("small/whole", b"x").status == 403
    assert alice.request("DELETE", f"/v2/small/whole/blobs/{Digest.of(content)}").status == 202
    assert alice.push_blob("small/whole", os.urandom(QUOTA)).status == 201


def test_cancelled_ones_give_their_room_back(server: RegistryServer, alice: As) -> None:
    path = begun(alice, "small/cancelled")
    assert alice.request("PATCH", path, os.urandom(QUOTA)).status == 202
    other = begun(alice, "small/cancelled")
    assert alice.request("PATCH", other, b"x").status == 403
    assert alice.request("DELETE", path).status == 204
    assert alice.push_blob("small/cancelled", os.urandom(QUOTA)).status == 201


@pytest.mark.long
def test_dropped_ones_give_their_room_back() -> None:
    text = '[limits]\nupload-idle-seconds = 1\n[[quota]]\nrepository = "**"\nbytes = 100_000\n'
    with guarded(text) as server:
        alice = of(server, "alice")
        path = begun(alice, "a")
        assert alice.request("PATCH", path, os.urandom(90_000)).status == 202
        content = os.urandom(90_000)
        assert alice.push_blob("a", content).status == 403
        wait_until(lambda: alice.request("GET", path).status == 404, what="the end of the upload")
        wait_until(lambda: alice.push_blob("a", content).status == 201, what="the room")


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_many_at_once_do_not_pass_the_quota(server: RegistryServer, alice: As, chunked: bool) -> None:
    """Sixteen at once, of two worker processes, that would come to eight times the quota."""
    needs_disk(server.root)  # where the bytes of all uploads can be counted while they come
    part = os.urandom(2 << 20)
    paths = [begun(alice, "small/race") for _ in range(16)]
    statuses: list[int] = []
    most = 0
    over = threading.Event()

    def patch(path: str) -> None:
        body = (part[start : start + 65536] for start in range(0, len(part), 65536)) if chunked else part
        with contextlib.suppress(ConnectionError):
            statuses.append(alice.request("PATCH", path, body).status)

    def watch() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, unfinished(server))

    watching = threading.Thread(target=watch)
    threads = [threading.Thread(target=patch, args=(path,)) for path in paths]
    for thread in (watching, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    watching.join()
    assert max(most, unfinished(server)) <= QUOTA
    assert set(statuses) <= {202, 403}
    assert statuses.count(202) <= 2
    if not chunked:
        assert 202 in statuses


def test_who_declares_much_and_sends_little_keeps_little_from_others(
    server: RegistryServer, alice: As
) -> None:
    path = begun(alice, "large/declared")
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {alice.headers['Authorization']}\r\n"
        f"Content-Length: {64 << 20}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + b"x" * 1000)
        wait_until(lambda: _reserved(server.root) > 0, what="the reservation")
        assert _reserved(server.root) <= (16 << 20) + 1000
        assert alice.push_blob("large/declared", os.urandom(2 << 20)).status == 201
    # Once it has left, what it has on the disk counts, and no more.
    wait_until(lambda: _reserved(server.root) <= 1000, what="the room to be given back")
    assert alice.push_blob("large/declared", bytes((62 << 20) - 1000)).status == 201


def test_what_broke_off_can_be_sent_again(server: RegistryServer, alice: As) -> None:
    needs_disk(server.root)
    content = os.urandom(QUOTA)
    path = begun(alice, "small/again")
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {alice.headers['Authorization']}\r\n"
        f"Content-Length: {QUOTA}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + content[:-1000])
        wait_until(lambda: unfinished(server) > QUOTA // 2, what="the bytes")
    wait_until(lambda: alice.request("PATCH", path, content).status == 202, what="a second try")
    other = begun(alice, "small/again")
    assert alice.request("PATCH", other, b"x").status == 403
    assert alice.request("PUT", f"{path}?digest={Digest.of(content)}").status == 201


def _reserved(root: Path) -> int:
    with closing(sqlite3.connect(f"file:{root / 'catalog.db'}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT coalesce(sum(reserved), 0) FROM uploads").fetchone()[0])


def test_users_with_many_do_not_keep_others_out(server: RegistryServer, alice: As) -> None:
    bob, carol = of(server, "bob"), of(server, "carol")
    theirs = [begun(asking, "x/a") for asking in (alice, bob) for _ in range(20)]
    assert alice.request("POST", "/v2/x/a/blobs/uploads/").status == 429
    mine = [begun(carol, "x/b") for _ in range(13)]
    assert upload_rows(server, "x/a") + upload_rows(server, "x/b") == 40
    assert all(carol.request("GET", path).status == 204 for path in mine)
    # By now nobody has more than the others: who wants more than their share waits.
    assert carol.request("POST", "/v2/x/b/blobs/uploads/").status in {202, 429}
    for _ in range(20):
        carol.request("POST", "/v2/x/b/blobs/uploads/")
    left = sum(alice.request("GET", path).status == 204 for path in theirs)
    assert left >= 40 - 14
    assert (
        "make room" in (server.root / "audit.log").read_text()
        or "makes room" in (server.root / "audit.log").read_text()
    )


def test_who_is_not_known_is_an_address(server: RegistryServer) -> None:
    def post(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        return nobody(server).request("POST", "/v2/public/a/blobs/uploads/", None, headers).status

    assert [post("203.0.113.9") for _ in range(21)] == [202] * 20 + [429]
    assert post("203.0.113.10") == 202
    assert [post(f"2001:db8::{number:x}") for number in range(19)] == [202] * 19  # one network
    assert post("2001:db8:0:1::1") == 202  # for which one of the first address made room
    assert post("2001:db8::1:1") in {202, 429}


def test_a_writer_whose_upload_made_room_is_told_so(server: RegistryServer, alice: As) -> None:
    path = begun(alice, "x/a")
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {alice.headers['Authorization']}\r\n"
        "Content-Length: 10\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + b"12345")
        for asking in (alice, of(server, "bob")):
            for _ in range(20):
                asking.request("POST", "/v2/x/a/blobs/uploads/")
        begun(of(server, "carol"), "x/b")
        assert alice.request("GET", path).status == 404
        connection.sendall(b"67890")
        assert connection.recv(100).startswith(b"HTTP/1.1 404")


# -- the catalog --------------------------------------------------------------------------------


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = open_catalog(tmp_path, quotas=(Quota("a/*", bytes=100),))
    catalog.migrate()
    yield catalog
    catalog.close()


def test_room_is_taken_and_given_back(catalog: Catalog) -> None:
    one, two = catalog.begin_upload("a/b", "sha256"), catalog.begin_upload("a/b", "sha256")
    assert catalog.reserve(one, 10, 60) == 60
    assert catalog.reserve(two, 10, 60) == 40  # what is left
    assert catalog.bytes_left("a/b") == 0
    with pytest.raises(OverQuota):
        catalog.reserve(two, 41, 60)
    assert catalog.reserve(one, 20, 20) == 20
    catalog.release(two, 30)
    assert catalog.bytes_left("a/b") == 50
    two = catalog.advance_upload(two, 30, None)
    assert catalog.reserve(two, 80, 90) == 80
    catalog.end_upload(two.id)
    assert catalog.bytes_left("a/b") == 80
    with pytest.raises(NotFound):
        catalog.reserve(two, 1, 1)
    assert catalog.reserve(catalog.begin_upload("b", "sha256"), 1000, 2000) == 2000


def test_room_among_users(catalog: Catalog) -> None:
    def begin(actor: str) -> str | None:
        replaced = catalog.begin_upload("a/b", "sha256", actor=actor, most=4).replaced
        return None if replaced is None else replaced.id

    first = catalog.begin_upload("a/b", "sha256", actor="one").id
    assert [begin("one"), begin("one"), begin("one")] == [None] * 3
    assert begin("two") == first
    assert begin("two") is not None
    for actor in ("one", "two"):
        with pytest.raises(TooMany):
            begin(actor)
    assert begin("three") is not None
