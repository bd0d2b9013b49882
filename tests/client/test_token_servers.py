"""Who gets a password: the registry's own token server, one that belongs to it, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.client.token_servers import parts_of, trust
from digestry.errors import ProtocolViolation, RemoteNotFound, Unauthorized
from digestry.model.reference import Reference
from tests.certificates import Certificates
from tests.client.liar import Liar, Reply, Request, lying
from tests.client.test_auth import basic, write_config
from tests.support import PATIENCE

SECRET = "s3cret"
LOGIN = {"auth": basic("ann", SECRET)}


@pytest.mark.parametrize(
    ("base", "realm"),
    [
        # what the public registries, and the usual ones of one's own, name
        ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("https://registry.hub.docker.com", "https://auth.docker.io/token"),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("https://registry.example.com:5050", "https://gitlab.example.com/jwt/auth"),
        ("https://gitlab.example.co.uk:5050", "https://gitlab.example.co.uk/jwt/auth"),
        ("https://registry.example.co.uk", "https://auth.example.co.uk/auth"),
        ("https://registry.dev.example.com", "https://sso.example.com/realms/x/protocol/docker-v2/auth"),
        ("https://registry.digitalocean.com", "https://api.digitalocean.com/v2/registry/auth"),
        ("https://docker.elastic.co", "https://docker-auth.elastic.co/auth"),
        ("https://registry.cn-hangzhou.aliyuncs.com", "https://dockerauth.cn-hangzhou.aliyuncs.com/auth"),
        (
            "https://rg.fr-par.scw.cloud",
            "https://api.scaleway.com/registry-internal/v1/regions/fr-par/tokens",
        ),
        ("https://mine.azurecr.io", "https://mine.azurecr.io/oauth2/token"),
        ("https://quay.io", "https://quay.io/v2/auth"),
        ("https://ghcr.io", "https://ghcr.io/token"),
        ("https://harbor.example.com", "https://harbor.example.com/service/token"),
        ("https://company.jfrog.io", "https://company.jfrog.io/artifactory/api/docker/x/v2/token"),
        ("http://localhost:5000", "http://localhost:5001/auth"),
        ("http://registry:5000", "https://registry:5001/auth"),
    ],
)
def test_whose_token_server_it_is(base: str, realm: str) -> None:
    assert trust("registry", base, realm, ClientOptions()) in {"own", "trusted"}


@pytest.mark.parametrize(
    ("base", "realm"),
    [
        ("https://registry.example.com", "https://evil.example.net/token"),
        ("https://registry.example.com", "https://registry.example.com.evil.net/token"),
        ("https://registry.example.com", "https://xexample.com/token"),
        ("https://registry.co.uk", "https://evil.co.uk/token"),
        ("https://registry.com", "https://evil.com/token"),
        ("https://mine.azurecr.io", "https://evil.azurecr.io/token"),
        ("https://1.dkr.ecr.us-east-1.amazonaws.com", "https://x.us-east-1.amazonaws.com/token"),
        ("https://company.jfrog.io", "https://evil.jfrog.io/token"),
        ("https://mine.synology.me", "https://evil.synology.me/token"),
        ("https://r.mine.svc.cluster.local", "https://r.evil.svc.cluster.local/token"),
        ("https://10.0.0.1:5000", "https://10.0.0.2:5000/token"),
        ("https://registry:5000", "https://auth:5001/token"),
        ("https://registry-1.docker.io", "https://auth.docker.io.evil.net/token"),
        ("https://registry.cn-hangzhou.aliyuncs.com", "https://evil.oss-cn-hangzhou.aliyuncs.com/"),
        ("http://127.0.0.1:5000", "https://127.0.0.2/token"),
    ],
)
def test_a_stranger(base: str, realm: str) -> None:
    assert trust("registry", base, realm, ClientOptions()) == "stranger"
    host = realm.split("/")[2]
    named = ClientOptions(token_servers=frozenset({host}))
    assert trust("registry", base, realm, named) == "trusted"


@pytest.mark.parametrize(
    ("base", "realm"),
    [
        ("https://registry.example.com", "http://auth.example.com/token"),
        ("http://127.0.0.1:5000", "http://127.0.0.2:5001/token"),
        ("http://localhost:5000", "http://127.0.0.1:5001/token"),
        ("https://registry.example.com", "http://169.254.169.254/latest/meta-data"),
        ("https://registry.example.com", "http://localhost:2375/token"),
    ],
)
def test_another_host_over_plain_http(base: str, realm: str) -> None:
    for options in (ClientOptions(), ClientOptions(token_servers=frozenset({realm.split("/")[2]}))):
        with pytest.raises(ProtocolViolation, match="plain HTTP"):
            trust("registry", base, realm, options)
    both = frozenset({realm.split("/")[2]})
    assert trust("r", base, realm, ClientOptions(insecure_hosts=both)) == "stranger"
    assert trust("r", base, realm, ClientOptions(insecure_hosts=both, token_servers=both)) == "trusted"


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example\\@registry.example/x",
        "https://registry.example\\@evil.example/x",
        "https://registry.example:443@evil.example/",
        "https://user@registry.example/",
        "https://registry%2eexample/",
        "https://r\N{FULLWIDTH LATIN SMALL LETTER E}gistry.example/",
        "https://registry.example:99999/",
        "https://registry.example:+443/",
        "https://registry.example:0/",
        "https:///x",
        "https:registry.example",
        "ftp://registry.example/",
        "https://[::1%25eth0]/",
        "https://[registry.example/",
        "//registry.example/",
        "",
    ],
)
def test_addresses_that_two_readers_read_as_two_hosts(address: str) -> None:
    assert parts_of(address) is None


def repository(liar: Liar, tmp_path: Path, **more: object) -> Repository:
    write_config(tmp_path, {"auths": {liar.host: LOGIN}})
    options = ClientOptions(docker_config=tmp_path, timeout=PATIENCE, retries=0)
    session = Session(options.replace(**more))
    return session.repository(Reference(liar.host, "a"))


def sent(liar: Liar) -> list[str]:
    """The passwords that came."""
    return [r.headers["Authorization"] for r in liar.seen if "Basic" in r.headers.get("Authorization", "")]


def test_a_redirect_that_reads_as_the_registry_itself(liar: Liar, tmp_path: Path) -> None:
    """``http.client`` would go to the first host, and whoever compares origins sees the second."""
    with lying() as other:

        def answer(request: Request) -> Reply:
            if "Authorization" not in request.headers:
                return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return Reply(307, headers={"Location": f"http://{other.host}\\@{liar.host}/x"})

        liar.answer = answer
        with pytest.raises(ProtocolViolation, match="not a web address"):
            repository(liar, tmp_path).pull_manifest("1")
        assert sent(liar)
        assert not other.seen


@pytest.mark.parametrize("target", ["http://169.254.169.254/x", "http://[fe80::1]/x", "http://0.0.0.0/x"])
def test_nothing_leads_to_what_only_the_machine_has(target: str) -> None:
    transport = Session().connection.transport
    source = "https://registry.example/v2/a"
    for inner in (target, "http://127.0.0.1/x", "https://localhost/x", "https://[::ffff:127.0.0.1]/x"):
        with pytest.raises(ProtocolViolation, match=r"this machine|plain HTTP"):
            transport.follow(source, inner)


def test_an_identity_token_is_not_sent_on(liar: Liar, tmp_path: Path) -> None:
    with lying() as other:

        def answer(request: Request) -> Reply:
            if request.path == "/token":
                return Reply(307, headers={"Location": f"http://{other.host}/token"})
            return Reply(401, headers={"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token"'})

        liar.answer = answer
        remote = repository(liar, tmp_path)
        write_config(tmp_path, {"auths": {liar.host: {"identitytoken": "refresh"}}})
        with pytest.raises(ProtocolViolation, match="sends your login on"):
            remote.pull_manifest("1")
        assert not other.seen


@pytest.fixture
def stranger(pki: Certificates) -> Iterator[tuple[Liar, Path]]:
    """A token server at 127.0.0.1 that has TLS, and its authority's certificate."""
    with lying(lambda _: Reply(200, b'{"token":"t"}'), tls=pki.context()) as server:
        yield server, pki.authority


@pytest.mark.peer("openssl")
def test_a_stranger_is_asked_for_nobody(liar: Liar, stranger: tuple[Liar, Path], tmp_path: Path) -> None:
    """A public image comes; a refusal says that the login was not sent, and what allows it."""
    server, certificate = stranger
    remote = repository(liar, tmp_path, authorities=certificate)
    # The same machine under another name, as another host is.
    remote.connection.transport.place(liar.host, f"http://localhost:{liar.host.partition(':')[2]}")

    def answer(request: Request) -> Reply:
        if request.headers.get("Authorization") != "Bearer t":
            return Reply(401, headers={"WWW-Authenticate": f'Bearer realm="https://{server.host}/token"'})
        return Reply(404 if request.path.endswith("/public") else 403)

    liar.answer = answer
    with pytest.raises(RemoteNotFound):
        remote.pull_manifest("public")
    with pytest.raises(Unauthorized, match="digestry config set token-servers") as caught:
        remote.pull_manifest("private")
    assert server.host in str(caught.value)
    assert server.seen
    assert not sent(server)
    assert SECRET not in json.dumps([r.target for r in server.seen])

    allowed = repository(liar, tmp_path, authorities=certificate, token_servers=frozenset({server.host}))
    allowed.connection.transport.place(liar.host, f"http://localhost:{liar.host.partition(':')[2]}")
    with pytest.raises(RemoteNotFound):
        allowed.pull_manifest("public")
    assert len(sent(server)) == 1
