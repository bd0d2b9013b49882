from __future__ import annotations

from collections.abc import Iterator

import pytest

from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.model.reference import Reference
from tests import certificates
from tests.certificates import Certificates
from tests.client.docker_registry import running_docker_registry
from tests.client.liar import Liar, lying
from tests.support import PATIENCE


@pytest.fixture(scope="session")
def docker_registry() -> Iterator[str]:
    """The host of a real registry that is not ours."""
    with running_docker_registry() as host:
        yield host


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of an authority that this machine does not know."""
    names = "IP:127.0.0.1,DNS:localhost,DNS:registry.example"
    return certificates.make(tmp_path_factory.mktemp("pki") / "pki", names)


@pytest.fixture
def liar() -> Iterator[Liar]:
    with lying() as server:
        yield server


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ClientOptions(timeout=PATIENCE, retries=2)) as opened:
        yield opened


@pytest.fixture
def hostile(liar: Liar, session: Session) -> Repository:
    """The repository ``team/app`` of the liar."""
    return session.repository(Reference(liar.host, "team/app"))
