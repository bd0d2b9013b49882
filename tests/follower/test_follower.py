"""The copy of a log: what is copied, what is not, and what an alarm does."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from pathlib import Path

import pytest
from msgspec import structs

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import RemoteError
from digestry.follower.alarms import Listeners
from digestry.follower.follower import Follower
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.translog.checkpoints import Checkpoint
from digestry.translog.merkle import leaf_hash, root_of
from digestry.translog.tiles import (
    WIDTH,
    bundles_of,
    decode_bundle,
    encode_bundle,
    parse_path,
    tiles_of,
    whole_hash,
)
from digestry.verifier.history import verify_history
from digestry.verifier.log_view import LogVerifier
from digestry.verifier.seen_logs import SeenLogs
from tests.client.liar import Reply, Request, lying
from tests.follower.conftest import Follow
from tests.support import PATIENCE, wait_until
from tests.verifier.log_server import ORIGIN, LogServer, image


def files(follower: Follower) -> set[str]:
    place = follower.copy.directory
    return {str(path.relative_to(place)) for path in (place / "tile").rglob("*") if path.is_file()}


def is_the_log(follower: Follower, server: LogServer) -> None:
    """The copy has the files that the log serves, and no others; and the entries that are in it."""
    size = len(server.events)
    assert follower.copy.size == size
    tiles = [*tiles_of(size), *bundles_of(size)]
    assert files(follower) == {tile.path for tile in tiles}
    leaves = []
    for bundle in bundles_of(size):
        content = follower.copy.read(bundle)
        assert content is not None
        leaves += decode_bundle(bundle, content)
    assert leaves == [server.leaf(index).content for index in range(size)]
    assert root_of(server.hashes()) == follower.copy.checkpoint.root
    assert follower.history.count() == size


def test_a_copy_that_grows(server: LogServer, follow: Follow) -> None:
    server.fill(3)
    follower = follow()
    assert (follower.round().new, follower.round().new) == (3, 0)
    is_the_log(follower, server)
    for more in (253, 1, 300, 512):
        server.fill(more)
        assert follower.round().new == more
        is_the_log(follower, server)
    server.fill(10)
    server.liar.seen.clear()
    again = follow()  # as a process that starts
    assert again.round().new == 10
    is_the_log(again, server)
    bundles = [request.path for request in server.liar.seen if "tile/entries" in request.path]
    assert len(bundles) == 1  # what was copied is not asked for again


def test_the_history(server: LogServer, follow: Follow) -> None:
    server.fill(20)
    first = server.move("team/app", "1.5", 1)
    second = server.move("team/app", "1.5", 2)
    follower = follow()
    follower.round()
    server.fill(5)  # not copied yet
    size = follower.copy.size
    events = follower.history.events(size, "team/app", limit=10)
    assert [event.to_digest for event in events] == [second.to_digest, first.to_digest]
    assert {event.actor for event in events} == {""}
    (span,) = follower.history.spans_of(size, str(first.to_digest), repository="team/app", limit=10)
    assert (span.repository, span.until, span.still) == ("team/app", second.at, False)
    assert "team/app" in follower.history.repositories(size)


def test_sealed_entries_are_opened_and_not_shown(server: LogServer, follow: Follow) -> None:
    server.sealed = {"team/secret"}
    server.fill(5)
    server.move("team/secret", "1", 1)
    follower = follow()
    found = follower.round()
    assert (found.new, found.opened) == (6, 1)
    assert follower.history.unopened(0) == 0
    assert not follower.history.has(6, "team/secret")
    assert follow(with_sealed=True).history.has(6, "team/secret")
    server.fill(2)
    server.liar.seen.clear()
    assert follower.round().opened == 0
    assert not [path for path in server.liar.paths() if "openings" in path]  # nothing sealed is new


@pytest.mark.parametrize("lost", ["tile/0/000", "tile/entries/000", "tile/1/000.p/2", "history.db"])
def test_a_copy_that_was_damaged_is_made_whole(server: LogServer, follow: Follow, lost: str) -> None:
    server.fill(600)
    follower = follow()
    follower.round()
    path = follower.copy.directory / lost
    if lost == "history.db":
        follower.close()
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    again = follow()
    again.recheck()
    assert again.round().alarm == ""
    is_the_log(again, server)


def test_what_a_killed_process_left_is_verified(server: LogServer, follow: Follow) -> None:
    """A larger tree was half copied; then the log showed another one, which continues what was published."""
    server.fill(300)
    follower = follow()
    follower.round()
    before = follower.copy.directory / "checkpoint"
    note = before.read_bytes()
    server.fill(400)
    follower.round()
    before.write_bytes(note)  # as if the process had been killed before its last step
    follower.copy.directory.joinpath("tile/entries/001").write_bytes(b"\x00\x01?")
    again = follow()
    assert again.copy.size == 300
    assert again.round().new == 400
    is_the_log(again, server)


class Endless:
    """A log of 2 ** 60 entries, all the same, signed and consistent: whoever reads all of it never ends."""

    size = 1 << 60

    def __init__(self, server: LogServer) -> None:
        server.fill(1)
        self._entry = server.leaf(0).content
        self._levels = [leaf_hash(self._entry)]
        for _ in range(8):
            self._levels.append(whole_hash([self._levels[-1]] * WIDTH))
        root = whole_hash([self._levels[7]] * 16)
        self._note = Checkpoint(ORIGIN, self.size, root).sign([server.key]).encode()
        self._honest = server.answer
        self.bundles = 0
        server.liar.answer = self.answer

    def answer(self, request: Request) -> Reply:
        path = request.path.removeprefix("/v2/_digestry/log/")
        if path == "checkpoint":
            return Reply(200, self._note)
        if not path.startswith("tile/"):
            return self._honest(request)
        tile = parse_path(path)
        if tile.level is not None:
            return Reply(200, self._levels[tile.level] * tile.width)
        self.bundles += 1
        return Reply(200, encode_bundle([self._entry] * tile.width))


def test_a_log_without_an_end_can_be_stopped(server: LogServer, follow: Follow) -> None:
    endless = Endless(server)
    follower = follow()
    ended = threading.Event()
    thread = threading.Thread(target=follower.run, args=(1.0, ended, lambda _: None), daemon=True)
    thread.start()
    wait_until(lambda: endless.bundles > 20, what="some bundles")
    ended.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert follower.copy.size == 0
    assert follower.status.verified_at is None  # what is here is not the log as it was


def test_a_log_without_an_end_is_verified_in_parts(server: LogServer, tmp_path: Path) -> None:
    Endless(server)
    with Session(ClientOptions(timeout=20.0, retries=0, patience=20.0)) as session:
        repository = session.repository(Reference(server.host, "others/0"))
        verifier = LogVerifier(SeenLogs(tmp_path / "logs"))
        report = verify_history(verifier, repository, most=300)
    assert report.completeness.scanned == 300
    assert any("is about others/0" in problem for problem in report.problems)


# -- alarms ------------------------------------------------------------------------------------


def forked(server: LogServer) -> None:
    event = server.events[100]
    server.events[100] = structs.replace(event, to_digest=Digest.of(image(999)))
    server.fill(5)


def test_a_fork(server: LogServer, follow: Follow, tmp_path: Path) -> None:
    server.fill(300)
    heard = tmp_path / "heard"
    program = f"import os;open({str(heard)!r}, 'a').write(os.environ['DIGESTRY_ALARM'] + chr(10))"
    command = shlex.join([sys.executable, "-c", program])
    with lying() as listener:
        listener.answer = lambda _: Reply(503)
        listeners = Listeners(f"http://{listener.host}/alarm", command)
        follower = follow(listeners)
        follower.round()
        honest = list(server.events)
        forked(server)
        before = files(follower)
        assert "was forked" in follower.round().alarm
        assert not heard.exists()  # who was to hear it first did not: it is told again
        listener.answer = lambda _: Reply(200)
        restarted = follow(listeners)
        for _ in range(3):
            assert "was forked" in restarted.round().alarm
        assert files(restarted) == before
        assert heard.read_text().count("was forked") == 1
        bodies = [json.loads(request.body) for request in listener.seen]
        assert len(bodies) == 2
        assert bodies[-1]["type"] == "digestry.log.alarm"
        assert (Path(bodies[-1]["data"]["evidence"]) / "shown.checkpoint").exists()
        server.events = honest
        server.fill(2)
        assert restarted.round().alarm == ""
        assert restarted.alarms.current is None
        is_the_log(restarted, server)


@pytest.mark.long
def test_a_rollback(server: LogServer, follow: Follow) -> None:
    server.fill(300)
    follower = follow()
    follower.round()
    del server.events[200:]
    assert "was rolled back" in follower.round().alarm
    assert follower.copy.size == 300


def test_a_copy_that_somebody_changed(server: LogServer, follow: Follow) -> None:
    """What was seen and the copy contradict each other: one of the two was written by somebody else."""
    server.fill(300)
    follower = follow()
    follower.round()
    event = server.events[10]
    server.events[10] = structs.replace(event, to_digest=Digest.of(image(999)))
    (follower.copy.directory / "checkpoint").write_bytes(server.note().encode())
    server.events[10] = event
    server.fill(1)
    assert "and not the copy" in follow().round().alarm


def test_a_registry_that_is_away(server: LogServer, follow: Follow) -> None:
    server.fill(30)
    follower = follow()
    follower.round()
    at = follower.status.verified_at
    server.answers["checkpoint"] = Reply(hangs_up=True)
    with pytest.raises(RemoteError):
        follower.round()
    assert follow().status.verified_at == at
    assert follower.alarms.current is None
