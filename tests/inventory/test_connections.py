"""The ways to an engine: TLS with real certificates, and SSH with a program that stands for it."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from digestry.errors import DigestryError, Unreachable
from digestry.inventory.engines.client import Engine
from digestry.inventory.engines.connections import ssh_command
from digestry.inventory.engines.endpoints import TLS, Endpoint
from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.inventory.source_selection import parse_source
from tests import certificates
from tests.certificates import Certificates
from tests.inventory import fakes
from tests.inventory.fakes import engine, recording
from tests.support import PATIENCE

INFO = {"/info": {"status": 200, "body": {"Name": "far"}}}

# -- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("pki") / "pki")


@contextlib.contextmanager
def secret_engine(pki: Certificates, *, wants_client: bool = True) -> Iterator[str]:
    """An engine on TLS that, like docker's with --tlsverify, wants a client's certificate."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

        def do_GET(self) -> None:
            body = json.dumps({"Name": "far"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that does not trust it hangs up

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.server)
    if wants_client:
        context.load_verify_locations(pki.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def ask(where: Endpoint | str) -> object:
    with contextlib.closing(Engine(where, timeout=PATIENCE)) as one:
        return one.get("/info")


@pytest.mark.peer("openssl")
def test_tls_as_dockers_client_does_it(pki: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    with secret_engine(pki) as url:
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(pki.directory))
        assert ask(url) == {"Name": "far"}
        assert ask(url.replace("tcp:", "https:")) == {"Name": "far"}
        monkeypatch.delenv("DOCKER_TLS_VERIFY")
        with pytest.raises(DigestryError):  # plain HTTP, which is what docker would speak too
            ask(url)


@pytest.mark.peer("openssl")
def test_an_engine_that_nobody_vouches_for_is_not_asked(pki: Certificates, tmp_path: Path) -> None:
    empty = TLS.of_directory(tmp_path)
    assert empty == TLS()
    with secret_engine(pki, wants_client=False) as url:
        with pytest.raises(Unreachable, match="certificate is not to be trusted") as caught:
            ask(Endpoint(url, empty))
        assert "ca.pem" in caught.value.hint
        assert ask(Endpoint(url, replace(empty, verify=False))) == {"Name": "far"}
        other = url.replace("127.0.0.1", "localhost")  # which the certificate does not name
        with pytest.raises(Unreachable, match="not to be trusted"):
            ask(Endpoint(other, TLS.of_directory(pki.directory)))


@pytest.mark.peer("openssl")
def test_certificates_that_cannot_be_used_are_named(pki: Certificates, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with secret_engine(pki) as url:
        with pytest.raises(Unreachable, match=r"cannot use the certificates .*ca\.pem"):
            ask(Endpoint(url, TLS.of_directory(tmp_path)))
        with pytest.raises(Unreachable, match=r"does not answer|not to be trusted|is required"):
            ask(Endpoint(url, TLS(authority=pki.authority)))  # without a client's certificate


# -- SSH ----------------------------------------------------------------------------------------

_SSH = """#!{python}
import json, os, socket, sys, threading
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if {says!r}:
    sys.stderr.write({says!r})
    sys.exit(255)
link = socket.socket(socket.AF_UNIX)
link.connect({path!r})
def send():
    try:
        while data := os.read(0, 65536):
            link.sendall(data)
        link.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the engine has closed it, which the other direction says
threading.Thread(target=send, daemon=True).start()
while data := link.recv(65536):
    os.write(1, data)
"""


class FakeSSH:
    """A program called ``ssh`` that relays to an engine on this machine, or ``says`` why not."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, url: str, says: str = "") -> None:
        self._log = directory / "calls"
        path = directory / "bin" / "ssh"
        path.parent.mkdir()
        socket = url.removeprefix("unix://")
        path.write_text(_SSH.format(python=sys.executable, log=str(self._log), path=socket, says=says))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=":")

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


def test_the_command_is_that_of_dockers_client() -> None:
    endpoint = Endpoint.parse("ssh://me@far.example:2222/run/a b.sock")
    assert ssh_command(endpoint, 7.4) == [
        *("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=7", "-l", "me", "-p", "2222"),
        *("--", "far.example", "docker", "--host", "'unix:///run/a b.sock'", "system", "dial-stdio"),
    ]
    assert ssh_command(Endpoint.parse("ssh://far"), 0.1)[-4:] == ["far", "docker", "system", "dial-stdio"]
    podman = replace(Endpoint.parse("ssh://far/s"), program="podman", identity="/k")
    assert "-i" in ssh_command(podman, 1)
    assert ssh_command(podman, 1)[-5:] == ["podman", "--url", "unix:///s", "system", "dial-stdio"]


@pytest.mark.long
def test_over_ssh_every_container_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine(recording("docker-20.10")) as (url, _):
        ssh = FakeSSH(tmp_path, monkeypatch, url)
        seen = list(parse_source("docker:ssh://me@far", timeout=PATIENCE).observe())
    assert min(one.name for one in seen if isinstance(one, ContainerObservation)) == "by-id"
    assert not [one for one in seen if isinstance(one, Unseen)]
    assert ssh.calls()[0][-5:] == ["--", "far", "docker", "system", "dial-stdio"]
    web = next(one for one in seen if isinstance(one, ContainerObservation) and one.name == "web-bad")
    assert "localhost:5610 is a registry on vm itself" in " ".join(web.remarks)


def test_one_ssh_serves_many_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes._Handler, "protocol_version", "HTTP/1.1")
    with engine(INFO) as (url, _):
        ssh = FakeSSH(tmp_path, monkeypatch, url)
        with contextlib.closing(Engine("ssh://far", timeout=PATIENCE)) as one:
            for _ in range(3):
                assert one.get("/info") == {"Name": "far"}
        assert len(ssh.calls()) == 1


def test_a_connection_that_was_closed_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes._Handler, "protocol_version", "HTTP/1.1")
    monkeypatch.setattr(fakes._Handler, "timeout", 0.1)
    with engine(INFO) as (url, _):
        ssh = FakeSSH(tmp_path, monkeypatch, url)
        with contextlib.closing(Engine("ssh://far", timeout=PATIENCE)) as one:
            one.get("/info")
            time.sleep(0.4)
            assert one.get("/info") == {"Name": "far"}
        assert len(ssh.calls()) == 2


def test_what_ssh_says_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSSH(tmp_path, monkeypatch, "unix:///nowhere", says="me@far: Permission denied (publickey).\n")
    (problem,) = parse_source("docker:ssh://me@far", timeout=PATIENCE).observe()
    assert isinstance(problem, Unseen)
    assert problem.message == "ssh://me@far: me@far: Permission denied (publickey)."
    assert "without asking" in problem.hint


@pytest.mark.long
def test_an_ssh_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ssh"
    path.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(Unreachable, match=r"ssh://far did not answer within 0\.3 s"):
        Engine("ssh://far", timeout=0.3).get("/info")


def test_without_ssh_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreachable, match="no program ssh"):
        Engine("ssh://far", timeout=PATIENCE).get("/info")
