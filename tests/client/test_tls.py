"""TLS, plain HTTP, and who may be spoken to how."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.client.configuration.rules import ClientCertificate, HostRule, RegistryRules
from digestry.client.options import ClientOptions, is_loopback
from digestry.client.session import Session
from digestry.client.transport import Call
from digestry.client.trust import Trust
from digestry.errors import InvalidConfiguration, RemoteNotFound, Unreachable
from digestry.model.reference import Reference
from tests.certificates import Certificates, make
from tests.client.liar import Liar, Reply, Request, lying
from tests.support import PATIENCE, program


@pytest.fixture
def strangers(tmp_path: Path) -> Certificates:
    """Certificates of an authority that no registry knows."""
    return make(tmp_path / "strangers")


@pytest.fixture
def secret(pki: Certificates) -> Iterator[Liar]:
    """A registry that speaks TLS only, with a certificate that nobody has reason to trust."""
    with lying(tls=pki.context()) as server:
        yield server


@pytest.fixture
def wary(pki: Certificates) -> Iterator[Liar]:
    """A registry that answers only who shows a certificate of its authority."""
    with lying(tls=pki.context(wants_client=True)) as server:
        yield server


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host is this machine."""
    for module in ("options", "transport"):
        monkeypatch.setattr(f"digestry.client.{module}.is_loopback", lambda _: False)


def ruled(**said: object) -> RegistryRules:
    """One rule for 127.0.0.1."""
    return RegistryRules(hosts=((HostRule("127.0.0.1", "/a/config.toml", **said),),))  # type: ignore[arg-type]


def folder(directory: Path, host: str, **files: Path) -> Path:
    """Fills the folder of ``host`` in ``directory``, with a file for each name; ``_`` is a dot."""
    made = directory / host
    made.mkdir(parents=True)
    for name, file in files.items():
        shutil.copy(file, made / name.replace("_", "."))
    return directory


def ask(options: ClientOptions, host: str) -> None:
    with Session(options) as session:
        repository = session.repository(Reference(host, "a"))
        repository.pull_manifest("latest")


@pytest.mark.peer("openssl")
def test_this_machine_may_have_any_certificate_and_it_is_said_once(secret: Liar) -> None:
    said: list[str] = []
    with Session(ClientOptions(timeout=PATIENCE, tell=said.append)) as session:
        for _ in range(2):
            with pytest.raises(RemoteNotFound):
                session.repository(Reference(secret.host, "a")).pull_manifest("latest")
    assert secret.paths() == ["GET /v2/a/manifests/latest"] * 2
    (line,) = said
    assert line.startswith(f"the certificate of {secret.host} is NOT verified (")
    assert line.endswith("because it is this machine")


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
def test_a_listed_host_may_have_any_certificate(secret: Liar) -> None:
    said: list[str] = []
    listed = frozenset({"127.0.0.1"})
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, insecure_hosts=listed, tell=said.append), secret.host)
    assert "NOT verified" in said[0]
    with lying() as plain, pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, retries=0, insecure_hosts=frozenset({plain.host})), plain.host)


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
def test_a_stranger_may_not(secret: Liar) -> None:
    with pytest.raises(Unreachable, match="certificate cannot be trusted") as caught:
        ask(ClientOptions(timeout=PATIENCE, retries=0), secret.host)
    assert f"insecure-registries {secret.host}" in caught.value.hint
    assert f"--registry {secret.host} ca FILE" in caught.value.hint
    assert secret.seen == []


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
def test_plain_http_and_no_verification_are_two_things(secret: Liar) -> None:
    plain = ClientOptions(timeout=PATIENCE, retries=0, registries=ruled(plain_http=True))
    with pytest.raises(Unreachable, match="certificate cannot be trusted"):
        ask(plain, secret.host)
    said: list[str] = []
    unverified = ClientOptions(
        timeout=PATIENCE, retries=0, registries=ruled(skip_verify=True), tell=said.append
    )
    with pytest.raises(RemoteNotFound):
        ask(unverified, secret.host)
    assert "because /a/config.toml allows that" in said[0]
    with lying() as server:
        with pytest.raises(RemoteNotFound):
            ask(plain, server.host)
        with pytest.raises(Unreachable, match="does not speak TLS"):
            ask(unverified, server.host)


@pytest.mark.peer("openssl")
def test_this_machine_is_verified_if_a_rule_says_so(secret: Liar) -> None:
    with pytest.raises(Unreachable, match="certificate cannot be trusted"):
        ask(ClientOptions(timeout=PATIENCE, registries=ruled(skip_verify=False)), secret.host)


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
def test_an_authority_of_a_rule_counts_for_its_hosts_alone(secret: Liar, pki: Certificates) -> None:
    rules = ruled(authorities=(pki.authority,))
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, registries=rules), secret.host)
    port = secret.host.partition(":")[2]
    with pytest.raises(Unreachable, match="certificate cannot be trusted"):
        ask(ClientOptions(timeout=PATIENCE, retries=0, registries=rules), f"localhost:{port}")


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_systems_certificates_are_where_the_environment_says(
    secret: Liar, pki: Certificates, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "certificates"
    if variable == "SSL_CERT_DIR":
        place.mkdir()
        shutil.copy(pki.authority, place / f"{subject_hash(pki.authority)}.0")
    else:
        shutil.copy(pki.authority, place)
    monkeypatch.setenv(variable, str(place))
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE), secret.host)
    monkeypatch.setenv(variable, str(tmp_path / "absent"))
    with pytest.raises(InvalidConfiguration, match=f"{variable} names .*absent, which is not there"):
        ask(ClientOptions(timeout=PATIENCE), secret.host)


def subject_hash(certificate: Path) -> str:
    """The name that OpenSSL looks for in a directory of certificates."""
    command = [program("openssl"), "x509", "-noout", "-hash", "-in", str(certificate)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return str(done.stdout).strip()


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
def test_dockers_directory_has_authorities_and_client_certificates(
    wary: Liar, pki: Certificates, tmp_path: Path
) -> None:
    certificate, key = pki.client
    files = {"ca_crt": pki.authority, "client_cert": certificate, "client_key": key, "notes_txt": key}
    directories = (tmp_path / "absent", folder(tmp_path / "certs.d", wary.host, **files))
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, certificate_directories=directories), wary.host)


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_of_several_client_certificates_the_next_is_shown_if_one_is_refused(
    pki: Certificates, strangers: Certificates, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 a server refuses it only after the client has begun its request."""
    context = pki.context(wants_client=True)
    context.minimum_version = context.maximum_version = version
    (theirs, their_key), (ours, our_key) = strangers.client, pki.client
    files = {
        "ca_crt": pki.authority,
        "a_cert": theirs,
        "a_key": their_key,
        "c_cert": theirs,
        "c_key": their_key,
    }
    with lying(tls=context) as wary:
        directory = folder(tmp_path / "certs.d", wary.host, **files, b_cert=ours, b_key=our_key)
        options = ClientOptions(timeout=PATIENCE, retries=0, certificate_directories=(directory,))
        with pytest.raises(RemoteNotFound):
            ask(options, wary.host)
        assert len(wary.seen) > 0
        directory = folder(tmp_path / "others", wary.host, **files)
        options = ClientOptions(timeout=PATIENCE, retries=0, certificate_directories=(directory,))
        wary.seen.clear()
        with pytest.raises(Unreachable):
            ask(options, wary.host)
        assert wary.seen == []


@pytest.mark.peer("openssl")
def test_no_thread_passes_a_certificate_over(pki: Certificates) -> None:
    """Several may be refused the same one at the same time."""
    trust = Trust(clients=[ClientCertificate(*pki.client)] * 3)
    assert trust.shown == 0
    assert [trust.show_next(0), trust.show_next(0), trust.show_next(0)] == [True] * 3
    assert trust.shown == 1
    assert trust.show_next(1)
    assert not trust.show_next(2)
    assert trust.shown == 2


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
def test_a_client_certificate_of_a_rule(wary: Liar, pki: Certificates) -> None:
    rules = ruled(authorities=(pki.authority,), client=ClientCertificate(*pki.client))
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, registries=rules), wary.host)
    unverified = ruled(skip_verify=True, client=ClientCertificate(*pki.client))
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, registries=unverified), wary.host)


@pytest.mark.peer("openssl")
def test_who_has_no_client_certificate_is_told_what_is_required(pki: Certificates) -> None:
    rules = ruled(authorities=(pki.authority,))
    context = pki.context(wants_client=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the alert comes before the connection is used
    with (
        lying(tls=context) as wary,
        pytest.raises(Unreachable, match="refuses the TLS connection") as caught,
    ):
        ask(ClientOptions(timeout=PATIENCE, retries=0, registries=rules), wary.host)
    assert "client-cert" in caught.value.hint


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("client_cert",), "its key client.key is missing"),
        (("client_key",), "its certificate client.cert is missing"),
        (("ca_crt",), "cannot use .*ca.crt as the certificates of a CA"),
        (("client_cert", "client_key"), "cannot use the client certificate .*client.cert"),
    ],
    ids=" ".join,
)
def test_certificates_that_cannot_be_used_are_named(
    secret: Liar, pki: Certificates, tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    useless = tmp_path / "useless"
    useless.write_text("no PEM")
    directory = folder(tmp_path / "certs.d", secret.host, **dict.fromkeys(files, useless))
    with pytest.raises(InvalidConfiguration, match=message):
        ask(ClientOptions(timeout=PATIENCE, certificate_directories=(directory,)), secret.host)


@pytest.mark.peer("openssl")
def test_a_key_with_a_passphrase_asks_nobody(secret: Liar, pki: Certificates, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    subprocess.run(
        [program("openssl"), "pkey", "-in", pki.client[1], "-aes128", "-passout", "pass:x", "-out", locked],
        check=True,
    )
    rules = ruled(client=ClientCertificate(pki.client[0], locked))
    with pytest.raises(InvalidConfiguration, match="has a passphrase"):
        ask(ClientOptions(timeout=PATIENCE, registries=rules), secret.host)


@pytest.mark.peer("openssl")
@pytest.mark.usefixtures("elsewhere")
def test_a_token_server_has_the_registrys_authorities_and_not_its_client(
    secret: Liar, wary: Liar, pki: Certificates, tmp_path: Path
) -> None:
    """The registry is at 127.0.0.1, and its token server at localhost."""
    token = f"https://localhost:{secret.host.partition(':')[2]}/token"

    def answer(request: Request) -> Reply:
        if request.headers.get("Authorization") == "Bearer t":
            return Reply(404)
        return Reply(401, headers={"WWW-Authenticate": f'Bearer realm="{token}"'})

    wary.answer = answer
    secret.answer = lambda _: Reply(200, b'{"token":"t"}')
    certificate, key = pki.client
    files = {"ca_crt": pki.authority, "client_cert": certificate, "client_key": key}
    directories = (folder(tmp_path / "certs.d", wary.host, **files),)
    with pytest.raises(RemoteNotFound):
        ask(ClientOptions(timeout=PATIENCE, certificate_directories=directories), wary.host)
    with lying(tls=pki.context(wants_client=True)) as other:
        token = f"https://localhost:{other.host.partition(':')[2]}/token"
        options = ClientOptions(timeout=PATIENCE, retries=0, certificate_directories=directories)
        with pytest.raises(Unreachable):
            ask(options, wary.host)
        assert other.seen == []


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
