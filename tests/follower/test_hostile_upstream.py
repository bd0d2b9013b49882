"""A registry that is hostile, slow, or broken: a follower copies nothing wrong, in bounded room and time, and
goes on when the registry is honest again."""

from __future__ import annotations

import gzip
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import DigestryError
from digestry.follower.alarms import Alarms, Listeners
from digestry.follower.follower import Follower
from digestry.verifier.log_view import LogVerifier
from digestry.verifier.seen_logs import SeenLogs
from tests.client.liar import Reply, Request, lying
from tests.follower.test_follower import files, is_the_log
from tests.support import PATIENCE
from tests.verifier.log_server import LogServer

PATIENT = 3.0


@pytest.fixture
def follower(tmp_path: Path, server: LogServer) -> Iterator[Follower]:
    """A follower that waits for no answer longer than a few seconds."""
    with Session(ClientOptions(timeout=PATIENT, retries=0, patience=PATIENT)) as session:
        connection = session.connection
        alarms = Alarms(tmp_path / "alarm.json", Listeners(), connection.transport)
        verifier = LogVerifier(SeenLogs(tmp_path / "seen"))
        made = Follower(connection, server.host, tmp_path, verifier, alarms)
        yield made
        made.close()


def failed(follower: Follower) -> str:
    """Why a round failed: its error, or its alarm."""
    try:
        return follower.round().alarm
    except DigestryError as error:
        return error.message


def bomb(size: int) -> bytes:
    return gzip.compress(bytes(size))


CASES: dict[str, tuple[str, Callable[[LogServer], Reply]]] = {
    "a redirect to itself": (
        "checkpoint",
        lambda server: Reply(307, headers={"Location": f"http://{server.host}/v2/_digestry/log/checkpoint"}),
    ),
    "a redirect nowhere": ("checkpoint", lambda _: Reply(307, headers={"Location": "file:///etc/passwd"})),
    "a redirect without a target": ("tile/entries", lambda _: Reply(307)),
    "a tile's redirect to itself": (
        "tile/entries/001",
        lambda server: Reply(302, headers={"Location": f"http://{server.host}/v2/tile/entries/001"}),
    ),
    "a checkpoint that is a bomb": (
        "checkpoint",
        lambda _: Reply(200, bomb(256 << 20), {"Content-Encoding": "gzip"}),
    ),
    "a tile that is a bomb": ("tile/0/", lambda _: Reply(200, bomb(64 << 20), {"Content-Encoding": "gzip"})),
    "entries that are a bomb": (
        "tile/entries",
        lambda _: Reply(200, bomb(64 << 20), {"Content-Encoding": "gzip"}),
    ),
    "an error that is a bomb": (
        "checkpoint",
        lambda _: Reply(500, bomb(64 << 20), {"Content-Encoding": "gzip"}),
    ),
    "an endless checkpoint": ("checkpoint", lambda _: Reply(200, endless=True)),
    "endless entries": ("tile/entries", lambda _: Reply(200, endless=True)),
    "a checkpoint in drips": ("checkpoint", lambda server: Reply(200, server.note().encode(), drip=0.25)),
    "entries in drips": ("tile/entries/001", lambda _: Reply(200, b"\x00" * 5000, drip=0.25)),
    "an unknown encoding": ("tile/entries", lambda _: Reply(200, b"x", {"Content-Encoding": "br"})),
    "a short tile": ("tile/0/001", lambda _: Reply(200, b"x" * 31)),
    "no content": ("tile/entries", lambda _: Reply(204)),
    "part of it": ("tile/entries", lambda _: Reply(206, b"\x00\x01x")),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_whatever_is_sent_the_copy_stays_what_it_was(
    server: LogServer, follower: Follower, case: str
) -> None:
    server.fill(300)
    follower.round()
    before, size = files(follower), follower.copy.size
    server.fill(400)
    path, reply = CASES[case]
    server.answers[path] = reply(server)
    asked = len(server.liar.seen)
    began, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = failed(follower)
    assert problem
    assert len(problem) < 2000
    assert time.monotonic() - began < PATIENCE
    # A bomb is not unpacked: some megabytes are what bundles of entries may have.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 160 << 10
    assert len(server.liar.seen) - asked < 40
    assert follower.copy.size == size == 300
    assert before <= files(follower)  # what was copied of a larger tree is verified before it is used
    server.answers.clear()
    assert follower.round().alarm == ""
    is_the_log(follower, server)


@pytest.mark.long
def test_drips_end_when_the_time_for_an_answer_is_over(server: LogServer, follower: Follower) -> None:
    server.fill(3)
    server.answers["checkpoint"] = Reply(200, server.note().encode(), drip=0.25)
    began = time.monotonic()
    assert "does not answer in time" in failed(follower)
    # All of it would take a minute.
    assert time.monotonic() - began < PATIENT + PATIENCE / 2


def test_another_host_that_a_redirect_leads_to_is_believed_no_more(
    server: LogServer, follower: Follower
) -> None:
    """Tiles may be elsewhere, and are verified by the log's own root: those of another log are not."""
    server.fill(300)
    with lying() as elsewhere:
        other = LogServer(elsewhere)
        other.fill(300)
        other.move("others/0", "t0", 77)
        honest = server.answer

        def answer(request: Request) -> Reply:
            if "/tile/" in request.path and "Redirected" not in request.headers:
                return Reply(307, headers={"Location": f"http://{elsewhere.host}{request.target}"})
            return honest(request)

        server.liar.answer = answer
        elsewhere.answer = honest  # the same log's tiles, from another address
        assert follower.round().new == 300
        is_the_log(follower, server)
        server.fill(400)
        elsewhere.answer = other.answer
        assert failed(follower)
        assert follower.copy.size == 300
        server.liar.answer = honest
        assert follower.round().alarm == ""
        is_the_log(follower, server)


def test_a_tile_that_changes_while_it_is_copied(server: LogServer, follower: Follower) -> None:
    server.fill(300)
    follower.round()
    server.fill(700)
    honest, seen = server.answer, set[str]()

    def answer(request: Request) -> Reply:
        reply = honest(request)
        if "/tile/" in request.path and request.path in seen:
            return Reply(200, reply.body[:-1] + b"?")
        seen.add(request.path)
        return reply

    server.liar.answer = answer
    follower.round()  # each tile is read once
    is_the_log(follower, server)
    server.fill(1)
    failed(follower)
    assert follower.copy.size in {1000, 1001}
    server.liar.answer = honest
    assert follower.round().alarm == ""
    is_the_log(follower, server)


@pytest.mark.long
def test_a_checkpoint_that_goes_back_and_forth(server: LogServer, follower: Follower) -> None:
    """A balancer with a node that is behind: the newest one that was seen counts."""
    server.fill(300)
    follower.round()
    for size in (10, 299):
        server.size = size
        assert "rolled back" in failed(follower)
        assert follower.copy.size == 300
    server.size = None
    server.fill(1)
    assert follower.round().new == 1
    is_the_log(follower, server)
