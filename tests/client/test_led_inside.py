"""A registry elsewhere leads to nothing of this machine: not by redirects, uploads, or token servers."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import pytest

from digestry.client.options import ClientOptions, is_inside
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import ProtocolViolation
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request, lying
from tests.client.test_hostile import DIGEST, manifest_reply
from tests.support import PATIENCE

NAMES = ("2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost", "127.0.0.1", "0.0.0.0", "127.2.3.4")  # noqa: S104
"""How a resolver finds this machine."""


@pytest.fixture
def elsewhere() -> Iterator[Liar]:
    """A registry at an address of this machine that is not its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but its loopback")
        address = probe.getsockname()[0]
    with lying(address=address) as server:
        yield server


@pytest.fixture
def inner(liar: Liar) -> Liar:
    """What only this machine should reach: a liar on its loopback."""
    liar.answer = lambda _: Reply(200, b'{"token":"t"}')
    return liar


@pytest.fixture
def remote(elsewhere: Liar) -> Iterator[Repository]:
    options = ClientOptions(timeout=PATIENCE, retries=1, insecure_hosts=frozenset({elsewhere.host}))
    with Session(options) as session:
        yield session.repository(Reference(elsewhere.host, "team/app"))


def at(inner: Liar, name: str) -> str:
    return f"{name}:{inner.host.partition(':')[2]}"


@pytest.mark.parametrize("name", NAMES)
def test_a_redirect(elsewhere: Liar, inner: Liar, remote: Repository, name: str) -> None:
    elsewhere.answer = lambda _: Reply(307, headers={"Location": f"http://{at(inner, name)}/secret"})
    with pytest.raises(ProtocolViolation, match="this machine"):
        remote.pull_manifest("1")
    assert inner.seen == []


def test_a_redirect_of_a_redirect(elsewhere: Liar, inner: Liar, remote: Repository) -> None:
    elsewhere.answer = lambda request: (
        Reply(307, headers={"Location": "/again"})
        if request.path != "/again"
        else Reply(307, headers={"Location": f"http://{at(inner, '127.1')}/secret"})
    )
    with pytest.raises(ProtocolViolation, match=r"this machine or on its link \(127\.0\.0\.1\)"):
        remote.pull_manifest("1")
    assert inner.seen == []


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_the_address_of_an_upload(elsewhere: Liar, inner: Liar, remote: Repository, method: str) -> None:
    content = bytes(9 << 20)
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))

    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(404)
        if request.method == method == "GET":
            return Reply(307, headers={"Location": f"http://{at(inner, '127.1')}/secret"})
        return Reply(202, headers={"Location": f"http://{at(inner, '2130706433')}/upload"})

    elsewhere.answer = answer
    with pytest.raises(ProtocolViolation, match="this machine"):
        remote.push_blob(blob, lambda: io.BytesIO(content))
    assert inner.seen == []


@pytest.mark.parametrize("name", ["127.1", "127.0.0.1", "2130706433"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_token_server(elsewhere: Liar, inner: Liar, remote: Repository, name: str, scheme: str) -> None:
    elsewhere.answer = lambda _: Reply(
        401, headers={"WWW-Authenticate": f'Bearer realm="{scheme}://{at(inner, name)}/token"'}
    )
    with pytest.raises(ProtocolViolation, match=r"this machine|plain HTTP"):
        remote.pull_manifest("1")
    assert inner.seen == []


def test_a_connection_that_is_open_already(elsewhere: Liar, inner: Liar, remote: Repository) -> None:
    """That the user asks a registry of this machine too does not open it to others."""
    inner.answer = lambda _: manifest_reply()
    own = Session(connection=remote.connection).repository(Reference(inner.host, "a"))
    assert own.pull_manifest("1").digest == DIGEST
    elsewhere.answer = lambda _: Reply(307, headers={"Location": f"http://{inner.host}/secret"})
    with pytest.raises(ProtocolViolation, match="this machine"):
        remote.pull_manifest("1")
    assert [request.path for request in inner.seen] == ["/v2/a/manifests/1"]


def test_what_the_user_allows(elsewhere: Liar, inner: Liar) -> None:
    inner.answer = lambda _: manifest_reply()
    elsewhere.answer = lambda _: Reply(307, headers={"Location": f"http://{inner.host}/blobs"})
    options = ClientOptions(timeout=PATIENCE, insecure_hosts=frozenset({elsewhere.host, inner.host}))
    with Session(options) as session:
        named = session.repository(Reference(elsewhere.host, "a"))
        assert named.pull_manifest("1").digest == DIGEST


def test_a_registry_of_this_machine_may_lead_to_this_machine(inner: Liar) -> None:
    inner.answer = lambda _: manifest_reply()
    with lying(lambda _: Reply(307, headers={"Location": f"http://{at(inner, '127.1')}/x"})) as first:
        first_host = f"localhost:{first.host.partition(':')[2]}"
        with Session(ClientOptions(timeout=PATIENCE)) as session:
            named = session.repository(Reference(first_host, "a"))
            assert named.pull_manifest("1").digest == DIGEST


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]", "169.254.169.254", "[fe80::1]", "0.0.0.0",  # noqa: S104
        "[::]", "localhost", "x.localhost:5000", "[fd00:ec2::254]", "100.100.100.200",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_link(host: str) -> None:
    assert is_inside(host)


@pytest.mark.parametrize("host", ["", "10.0.0.1", "192.0.2.1:80", "[2001:db8::1]", "registry.example", "1.2"])
def test_other_addresses(host: str) -> None:
    assert not is_inside(host)
