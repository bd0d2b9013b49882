"""TLS, plain HTTP, and who may be spoken to how."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions, is_loopback
from digestry.client.session import Session
from digestry.client.transport import Call
from digestry.errors import RemoteNotFound, Unreachable
from digestry.model.reference import Reference
from tests.client.liar import Liar, lying
from tests.support import PATIENCE, program


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that nobody has reason to trust, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=nobody", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def secret(certificate: tuple[Path, Path]) -> Iterator[Liar]:
    """A registry that speaks TLS only, with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with lying(tls=context) as server:
        yield server


def ask(options: ClientOptions, host: str) -> None:
    with Session(options) as session:
        repository = session.repository(Reference(host, "a"))
        repository.pull_manifest("latest")


@pytest.mark.peer("openssl")
def test_this_machine_may_have_any_certificate(secret: Liar) -> None:
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE), secret.host)
    assert secret.paths() == ["GET /v2/a/manifests/latest"]


@pytest.mark.peer("openssl")
def test_a_listed_host_may_have_any_certificate(secret: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("options", "transport"):
        monkeypatch.setattr(f"digestry.client.{module}.is_loopback", lambda _: False)
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, insecure_hosts=frozenset({"127.0.0.1"})), secret.host)
    with lying() as plain, pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, retries=0, insecure_hosts=frozenset({plain.host})), plain.host)


@pytest.mark.peer("openssl")
def test_a_stranger_may_not(secret: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("options", "transport"):
        monkeypatch.setattr(f"digestry.client.{module}.is_loopback", lambda _: False)
    with pytest.raises(Unreachable, match="certificate cannot be trusted") as caught:
        ask(ClientOptions(timeout=PATIENCE, retries=0), secret.host)
    assert f"insecure-registries {secret.host}" in caught.value.hint
    assert secret.seen == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("128.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example:5000", False),
        ("registry.example", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert ClientOptions().may_be_plain(host) is expected


def test_listed_hosts() -> None:
    options = ClientOptions(insecure_hosts=frozenset({"a.example", "b.example:5000"}))
    assert options.may_be_plain("a.example:1")
    assert options.may_be_plain("b.example:5000")
    assert not options.may_be_plain("b.example:5001")


def test_a_proxy_is_used_and_this_machine_is_not_proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    with lying() as proxy, lying() as near:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        options = ClientOptions(timeout=PATIENCE, retries=0, insecure_hosts=frozenset({"far.example"}))
        with pytest.raises(RemoteNotFound):
            ask(options, near.host)
        assert proxy.seen == []
        with Session(options) as session:
            session.connection.transport.send(Call("GET", "http://far.example/v2/x")).close()
        assert proxy.paths() == ["GET http://far.example/v2/x"]
