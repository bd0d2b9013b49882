"""Quotas and limits: what is too much is refused early, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import bcrypt
import pytest

from digestry.model.digest import Digest
from tests.registry.access.support import As, basic, guarded, htpasswd, of
from tests.registry.support import Upload, ingest_files, on_disk, statuses, upload_rows
from tests.support import PATIENCE, RegistryServer, Response, wait_until

LIMITS = """
[[rule]]
who = "authenticated"
actions = ["admin"]

[limits]
upload = "3 MiB"
uploads = 60
uploads-per-user = 40
header-seconds = 2
body-seconds = 2

[[quota]]
repository = "small/**"
bytes = 100_000

[[quota]]
repository = "few/*"
tags = 2

[[quota]]
repository = "shared/**"
bytes = 100_000
each = "pattern"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded(LIMITS) as server:
        yield server


@pytest.fixture
def alice(server: RegistryServer) -> As:
    return of(server, "alice")


def add_user(server: RegistryServer, name: str, password: str) -> None:
    """Adds a user whose password takes long to verify, and returns when the server knows of it."""
    users = server.root.with_name("users")
    expensive = bcrypt.hashpw(password.encode(), bcrypt.gensalt(11)).decode()
    # Not by asking for that one itself: what was verified once is quick from then on.
    users.write_text(f"{users.read_text()}{name}:{expensive}\n{htpasswd({f'{name}-too': password})}")
    headers = basic(f"{name}-too", password)
    wait_until(lambda: server.request("GET", "/v2/", headers=headers).status == 200, what="the new users")


def over(answer: Response) -> None:
    assert (answer.status, answer.code) == (403, "DENIED"), answer.body
    assert "quota" in answer.body.decode()


def begun(asking: As, name: str) -> str:
    answer = asking.request("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202, answer.body
    return answer.headers["location"]


@pytest.mark.long
def test_a_blob_over_the_quota(server: RegistryServer, alice: As) -> None:
    content = os.urandom(100_001)
    digest = Digest.of(content)
    over(alice.request("POST", f"/v2/small/one/blobs/uploads/?digest={digest}", content))
    over(alice.request("PATCH", begun(alice, "small/one"), content))
    over(alice.request("PUT", f"{begun(alice, 'small/one')}?digest={digest}", content))
    path = begun(alice, "small/one")
    assert alice.request("PATCH", path, content[:60_000]).status == 202
    over(alice.request("PATCH", path, content[60_000:]))
    assert alice.request("GET", path).status == 404  # it cannot go on
    assert upload_rows(server, "small/one") == 0
    assert ingest_files(server) == set()
    assert not on_disk(server, digest)


def test_what_is_there_counts(alice: As) -> None:
    first, second = os.urandom(60_000), os.urandom(60_000)
    assert alice.push_blob("small/two", first).status == 201
    over(alice.push_blob("small/two", second))
    assert alice.push_blob("small/three", second).status == 201  # each for itself
    over(alice.request("POST", f"/v2/small/two/blobs/uploads/?mount={Digest.of(second)}&from=small/three"))
    assert alice.request("HEAD", f"/v2/small/two/blobs/{Digest.of(second)}").status == 404
    assert alice.request("DELETE", f"/v2/small/two/blobs/{Digest.of(first)}").status == 202
    assert alice.push_blob("small/two", second).status == 201
    assert alice.push_image("small/two", "1").status == 201


def test_a_quota_of_many_repositories_together(alice: As) -> None:
    assert alice.push_blob("shared/a", os.urandom(60_000)).status == 201
    over(alice.push_blob("shared/b", os.urandom(60_000)))
    over(alice.push_blob("shared/b/c", os.urandom(60_000)))
    assert alice.push_blob("shared/b", os.urandom(30_000)).status == 201


def test_two_at_once_do_not_pass_both(alice: As) -> None:
    answers: list[int] = []

    def push() -> None:
        answers.append(alice.push_blob("small/race", os.urandom(40_000)).status)

    threads = [threading.Thread(target=push) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] * 2 + [403] * 6


def test_tags(alice: As) -> None:
    for tag in ("1", "2"):
        assert alice.push_image("few/tags", tag).status == 201
    over(alice.push_image("few/tags", "3"))
    assert alice.push_image("few/tags", "2", b"moved").status == 201
    assert alice.request("GET", "/v2/few/tags/tags/list").json()["tags"] == ["1", "2"]
    assert alice.request("DELETE", "/v2/few/tags/manifests/1").status == 202
    assert alice.push_image("few/tags", "3").status == 201


def test_a_huge_chunked_body_against_a_small_quota(server: RegistryServer, alice: As) -> None:
    """The client hears of it soon, and long before its end; nothing of it stays."""
    path = begun(alice, "small/huge")
    head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    head += f"Authorization: {alice.headers['Authorization']}\r\n\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        chunk = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                connection.sendall(chunk)
                sent += 1 << 20
        with contextlib.suppress(ConnectionError):
            assert statuses(connection.recv(4096)) in ([403], [])
    assert sent < 100 << 20
    assert upload_rows(server, "small/huge") == 0
    assert ingest_files(server) == set()


def test_the_largest_blob(server: RegistryServer, alice: As) -> None:
    content = os.urandom((3 << 20) + 1)
    answer = alice.push_blob("large/blob", content)
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")
    assert "3145728 bytes" in answer.body.decode()
    assert alice.push_blob("large/blob", content[1:]).status == 201


@pytest.mark.long
def test_uploads_at_once(server: RegistryServer, alice: As) -> None:
    paths = [begun(alice, "half/open") for _ in range(40)]
    try:
        answer = alice.request("POST", "/v2/half/open/blobs/uploads/")
        assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
        assert "alice has 40 uploads under way" in answer.body.decode()
        assert answer.headers["retry-after"]
        bob, carol = of(server, "bob"), of(server, "carol")
        assert bob.push_image("half/open", "1").status == 201  # the others work on
        paths += [begun(bob, "half/open") for _ in range(20)]
        paths.append(begun(carol, "half/open"))  # who has the most makes room
        assert alice.request("GET", paths[0]).status == 404
        assert all(alice.request("GET", path).status == 204 for path in paths[1:40])
        assert all(bob.request("GET", path).status == 204 for path in paths[40:60])
        assert carol.request("GET", "/v2/half/open/manifests/1").status == 200
    finally:
        for path in paths:
            of(server, "carol").request("DELETE", path)
    assert alice.push_image("half/open", "2").status == 201


@pytest.mark.long
def test_slow_clients_while_others_work_on(server: RegistryServer, alice: As) -> None:
    """Headers that never end, and bodies that stop, are given up; meanwhile requests are quick."""
    with contextlib.ExitStack() as stack:
        slow = []
        for number in range(400):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
            stack.callback(connection.close)
            slow.append(connection)
            if number < 380:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            else:
                path = begun(alice, "slow/body")
                head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                connection.sendall(f"{head}Authorization: {alice.headers['Authorization']}\r\n\r\nx".encode())
        waits = []
        for _ in range(20):
            began = time.monotonic()
            assert alice.request("GET", "/v2/").status == 200
            waits.append(time.monotonic() - began)
        assert of(server, "bob").push_image("slow/others", "1").status == 201
        assert min(waits) < 1  # who had to wait for a slow one would wait for two seconds, each time
        for connection in slow[::20]:
            with contextlib.suppress(ConnectionError):
                received = connection.recv(4096)
                assert statuses(received) in ([], [408])
    for upload in list(ingest_files(server)):
        Upload(server, f"/v2/slow/body/blobs/uploads/{upload}")
        alice.request("DELETE", f"/v2/slow/body/blobs/uploads/{upload}")


@pytest.mark.long
def test_one_user_with_many_connections(server: RegistryServer) -> None:
    """A client that begins with several requests at once is not a flood: one verification is for all."""
    add_user(server, "many", "many")
    found: list[int] = []

    def ask() -> None:
        found.append(server.request("GET", "/v2/", headers=basic("many", "many")).status)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 12


@pytest.mark.long
def test_a_flood_of_wrong_passwords(server: RegistryServer) -> None:
    """Who floods is told to wait; who logged in before, or logs in from elsewhere, is served."""
    add_user(server, "slow", "slow")
    assert of(server, "alice").request("GET", "/v2/").status == 200
    found: list[int] = []
    enough = threading.Event()

    def guess(number: int) -> None:
        count = 0
        while not enough.is_set():
            count += 1
            headers = basic("slow", f"{number}-{count}")
            found.append(server.request("GET", "/v2/", headers=headers).status)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    served = 0
    end = time.monotonic() + 1
    try:
        while time.monotonic() < end or set(found) != {401, 429}:
            assert time.monotonic() < end + PATIENCE
            assert of(server, "alice").request("GET", "/v2/").status == 200
            served += 1
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert set(found) == {401, 429}
    assert served > found.count(401) / 4  # in the queue with twelve others she would get a twelfth
