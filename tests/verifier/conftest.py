from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.model.reference import Reference
from digestry.verifier.history import verify_history
from digestry.verifier.log_view import LogVerifier
from digestry.verifier.repository_check import RepositoryReport
from digestry.verifier.seen_logs import SeenLogs
from digestry.verifier.trust import LogTrust
from tests.verifier.log_server import LogServer, log_server


@pytest.fixture
def server() -> Iterator[LogServer]:
    with log_server() as running:
        yield running


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ClientOptions(timeout=20.0, retries=0, patience=20.0)) as opened:
        yield opened


class Client:
    """A user with a home."""

    def __init__(self, home: Path, server: LogServer, session: Session) -> None:
        self.server = server
        self.session = session
        self.trust = LogTrust()
        self.told: list[str] = []
        self.seen = SeenLogs(home / "logs")
        self.now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
        self.verifier = LogVerifier(self.seen, lambda _: self.trust, now=self._time, tell=self.told.append)

    def _time(self) -> datetime.datetime:
        return self.now()

    def verify(self, name: str, tag: str | None = None, *, most: int = 200_000) -> RepositoryReport:
        repository = self.session.repository(Reference(self.server.host, name))
        return verify_history(self.verifier, repository, tag, most=most)


@pytest.fixture
def client(tmp_path: Path, server: LogServer, session: Session) -> Client:
    return Client(tmp_path, server, session)
