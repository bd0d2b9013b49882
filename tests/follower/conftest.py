from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.follower.alarms import Alarms, Listeners
from digestry.follower.follower import Follower
from digestry.verifier.log_view import LogVerifier
from digestry.verifier.seen_logs import SeenLogs
from tests.verifier.log_server import LogServer, log_server

Follow = Callable[..., Follower]
OPTIONS = ClientOptions(timeout=20.0, retries=0, patience=20.0)


def open_follower(
    session: Session,
    host: str,
    place: Path,
    listeners: Listeners | None = None,
    *,
    with_sealed: bool = False,
) -> Follower:
    """A follower of the log of ``host`` into ``place``, as a process that starts makes it."""
    connection = session.connection
    alarms = Alarms(place / "alarm.json", listeners or Listeners(), connection.transport)
    verifier = LogVerifier(SeenLogs(place / "seen"))
    return Follower(connection, host, place, verifier, alarms, with_sealed=with_sealed)


@pytest.fixture
def server() -> Iterator[LogServer]:
    with log_server() as running:
        yield running


@pytest.fixture
def follow(tmp_path: Path, server: LogServer) -> Iterator[Follow]:
    """Makes a follower of the server into one directory, as a process that starts does."""
    with Session(OPTIONS) as session:
        opened: list[Follower] = []

        def make(listeners: Listeners | None = None, *, with_sealed: bool = False) -> Follower:
            place = tmp_path / "copy"
            place.mkdir(exist_ok=True)
            opened.append(open_follower(session, server.host, place, listeners, with_sealed=with_sealed))
            return opened[-1]

        yield make
        for one in opened:
            one.close()
