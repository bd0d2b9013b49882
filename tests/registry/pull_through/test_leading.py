"""An upstream that leads elsewhere: inside, to a storage, to somebody else's token server."""

from __future__ import annotations

import contextlib
import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from digestry.model.digest import Digest
from tests import certificates
from tests.client.liar import Liar, Reply, Request, lying, not_found
from tests.registry.pull_through.support import get, get_blob, mirroring
from tests.support import RegistryServer, Response

SECRET = "INTERNAL-WORDS"
DIGEST = Digest.of(b"content")


@pytest.fixture
def inside() -> Iterator[Liar]:
    """Somebody at another address of this machine, who would say something to everybody."""
    body = json.dumps({"token": SECRET, "errors": [{"code": SECRET, "message": SECRET}]}).encode()
    with lying(lambda _: Reply(200, body), address="127.0.0.2") as liar:
        yield liar


@dataclass
class Led:
    """A mirror of one upstream among others; what it is called here."""

    server: RegistryServer
    liar: Liar
    host: str

    @property
    def name(self) -> str:
        return f"{self.host}/own/x"


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Led]]:
    """Mirrors that no test has used."""
    with contextlib.ExitStack() as running:
        liars = {f"m{number}.test": running.enter_context(lying()) for number in range(48)}
        tables = (
            f'[mirror."{host}"]\nurl = "http://{liar.host}"\ntag-ttl = 0\ntimeout = "2s"'
            for host, liar in liars.items()
        )
        directory = tmp_path_factory.mktemp("led")
        server = running.enter_context(mirroring(directory / "mirror", "\n".join(tables)))
        yield (Led(server, liar, host) for host, liar in liars.items())


@pytest.fixture
def led(unused: Iterator[Led]) -> Led:
    return next(unused)


def everything(led: Led) -> list[Response]:
    """The answers to each kind of question."""
    return [
        get(led.server, led.name, "1"),
        get(led.server, led.name, str(DIGEST)),
        get_blob(led.server, led.name, DIGEST),
        get_blob(led.server, led.name, DIGEST, "HEAD"),
        led.server.request("GET", f"/v2/{led.name}/tags/list"),
        led.server.request("GET", f"/v2/{led.name}/referrers/{DIGEST}"),
    ]


def told(answers: list[Response]) -> str:
    return "".join(f"{answer.headers}{answer.body!r}" for answer in answers)


@pytest.mark.long
def test_a_redirect_inside_is_not_followed(led: Led, inside: Liar) -> None:
    led.liar.answer = lambda request: Reply(307, b"", {"Location": f"http://{inside.host}{request.path}"})
    answers = everything(led)
    assert [answer.status for answer in answers] == [502, 502, 502, 502, 502, 200]
    assert f"{led.host} refers to 127.0.0.2, a loopback address" in led.server.log.read_text()
    assert inside.seen == []
    assert SECRET not in told(answers)


def test_another_service_beside_the_upstream_is_asked_for_content_alone(led: Led) -> None:
    body = json.dumps({"tags": [SECRET], "token": SECRET}).encode()
    with lying(lambda request: Reply(200, b"content" if "/blobs/" in request.path else body)) as beside:

        def registry(request: Request) -> Reply:
            if "manifests" in request.path:
                return Reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{led.liar.host}/token"'})
            return Reply(307, b"", {"Location": f"http://{beside.host}{request.path}"})

        led.liar.answer = registry
        answers = everything(led)
        assert [answer.status for answer in answers[:4]] == [502, 502, 200, 200]
        assert SECRET not in told(answers)
        assert not any(request.path.endswith(("/list", "/token")) for request in beside.seen)


@pytest.mark.parametrize("through", ["the challenge", "a redirect of the token server"])
def test_a_token_server_inside_is_not_asked(led: Led, inside: Liar, through: str) -> None:
    def registry(request: Request) -> Reply:
        if request.path == "/token":
            return Reply(307, b"", {"Location": f"http://{inside.host}/token"})
        host = inside.host if through == "the challenge" else led.liar.host
        return Reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{host}/token",service="x"'})

    led.liar.answer = registry
    answers = everything(led)
    assert inside.seen == []
    assert SECRET not in told(answers)
    assert not any(SECRET in request.headers.get("Authorization", "") for request in led.liar.seen)


@pytest.mark.long
def test_what_is_configured_may_be_led_to(tmp_path: Path) -> None:
    content = b"content"
    with lying(lambda _: Reply(200, content), address="127.0.0.2") as storage:

        def registry(request: Request) -> Reply:
            if request.path == "/token":
                return Reply(200, b'{"token":"abc"}')
            if request.headers.get("Authorization") != "Bearer abc":
                realm = f"http://{tokens.host}/token"
                return Reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}"'})
            return Reply(307, b"", {"Location": f"http://{storage.host}/signed"})

        with lying(registry) as liar, lying(registry, address="127.0.0.3") as tokens:
            keys = (f'realm = "http://{tokens.host}"', f'internal = ["{storage.host}"]')
            table = "\n".join((f'[mirror."a.test"]\nurl = "http://{liar.host}"', *keys))
            with mirroring(tmp_path / "mirror", table) as server:
                assert get_blob(server, "a.test/own/x", DIGEST).body == content
    assert [request.headers.get("Authorization") for request in storage.seen] == [None]


@pytest.mark.long
def test_a_proxy_is_not_asked_for_what_is_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leads = [
        "10.0.0.1",
        "169.254.169.254",
        "localhost.",
        "2130706433",
        "[::ffff:10.0.0.1]",
        "storage.invalid",
    ]

    def pass_on(request: Request) -> Reply:
        host = urlsplit(request.target).netloc
        if host == "reg.invalid":
            return Reply(307, b"", {"Location": f"http://{leads[int(request.path[5])]}/signed"})
        return Reply(200, b"content" if host == "storage.invalid" else SECRET.encode())

    with lying(pass_on) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        with mirroring(tmp_path / "mirror", '[mirror."reg.test"]\nurl = "http://reg.invalid"') as server:
            answers = [get_blob(server, f"reg.test/r{n}/x", DIGEST) for n in range(len(leads))]
        assert [answer.status for answer in answers] == [502] * (len(leads) - 1) + [200]
        asked = {urlsplit(request.target).netloc for request in proxy.seen}
        assert asked == {"reg.invalid", "storage.invalid"}


@pytest.mark.long
@pytest.mark.peer("openssl")
def test_nothing_goes_from_tls_to_plain_http(tmp_path: Path) -> None:
    made = certificates.make(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made.server)
    with lying(lambda _: Reply(200, b'{"token":"abc"}')) as plain:

        def registry(request: Request) -> Reply:
            if "/blobs/" in request.path:
                return Reply(307, b"", {"Location": f"http://{plain.host}/signed"})
            return Reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{plain.host}/token"'})

        with (
            lying(registry, tls=context) as liar,
            mirroring(
                tmp_path / "mirror",
                f'[mirror."a.test"]\nurl = "https://{liar.host}"\nca = "{made.authority}"',
            ) as server,
        ):
            assert get_blob(server, "a.test/own/x", DIGEST).status == 502
            assert get(server, "a.test/own/x", "1").status == 502
            log = server.log.read_text()
            assert "sends from TLS to plain HTTP" in log
            assert "names a token server without TLS" in log
    assert plain.seen == []


# -- a storage -----------------------------------------------------------------------------------


@contextlib.contextmanager
def storing(
    led: Led, refuse: Callable[[int], Reply | None], *, apart: bool = True
) -> Iterator[list[Request]]:
    """What a storage is asked that the registry leads to, at an address of its own if ``apart``. It answers
    the request of a number as ``refuse`` says."""
    asked: list[Request] = []

    def store(request: Request) -> Reply:
        asked.append(request)
        refused = refuse(len(asked))
        if refused is not None:
            return refused
        return Reply(200, b"content") if "fresh" in request.target else Reply(403, b"<Expired/>")

    def registry(request: Request) -> Reply:
        if request.path.startswith("/storage/"):
            return store(request)
        if "/blobs/" not in request.path:
            return not_found(request)
        host = storage.host if apart else led.liar.host
        where = f"http://{host}/storage/{request.path[-64:]}?fresh={len(led.liar.seen)}"
        return Reply(307, b"", {"Location": where})

    with lying(store) as storage:
        led.liar.answer = registry
        yield asked


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_a_storage_refuses_is_asked_of_the_registry_once_more(
    led: Led, status: int, *, apart: bool
) -> None:
    refuse = lambda number: Reply(status, b"<Error/>") if number == 1 else None  # noqa: E731
    with storing(led, refuse, apart=apart) as asked:
        answer = get_blob(led.server, led.name, DIGEST)
        assert (answer.status, answer.body) == (200, b"content")
        assert len({request.target for request in asked}) == 2


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("status", "answered"), [(401, 502), (403, 502), (404, 502), (410, 502), (429, 503), (503, 503)]
)
def test_what_a_storage_refuses_is_not_what_the_registry_refuses(
    led: Led, status: int, answered: int, *, apart: bool
) -> None:
    error = b"<Error><Code>AccessDenied</Code><Message>" + SECRET.encode() + b"</Message></Error>"
    with storing(led, lambda _: Reply(status, error), apart=apart) as asked:
        other = Digest.of(b"%d" % status)
        head = get_blob(led.server, led.name, other, "HEAD")
        assert (head.status, head.body) == (answered, b"")
        answer = get_blob(led.server, led.name, other)
        assert answer.status == answered
        if answered == 502:
            assert f"it refers to a storage service that answers {status}" in answer.body.decode()
        assert SECRET not in told([answer])
        assert len(asked) <= 6


def test_a_storage_at_the_registrys_own_address_may_take_no_token(led: Led) -> None:
    def registry(request: Request) -> Reply:
        given = request.headers.get("Authorization")
        if request.path == "/token":
            return Reply(200, b'{"token":"abc"}')
        if request.path == "/storage":
            return Reply(200, b"content") if given is None else Reply(400, b"<Error/>")
        if given != "Bearer abc":
            return Reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{led.liar.host}/token"'})
        return Reply(307, b"", {"Location": "/storage?signed=yes"})

    led.liar.answer = registry
    assert get_blob(led.server, led.name, DIGEST).body == b"content"


@pytest.mark.parametrize("asked", [f"manifests/{DIGEST}"])
def test_a_storage_of_manifests_is_a_storage_too(led: Led, asked: str) -> None:
    with lying(lambda _: Reply(403, b"<Error/>")) as storage:
        led.liar.answer = lambda _: Reply(307, b"", {"Location": f"http://{storage.host}/signed"})
        answer = led.server.request("GET", f"/v2/{led.name}/{asked}")
        assert (answer.status, answer.code) == (502, "UNKNOWN")
        assert len([request for request in storage.seen if request.method == "GET"]) == 2


@pytest.mark.long
def test_what_a_registry_refuses_to_which_another_leads_is_what_it_says(led: Led) -> None:
    # registry.k8s.io leads to a registry of its cloud's.
    with lying(not_found) as other:
        led.liar.answer = lambda request: Reply(307, b"", {"Location": f"http://{other.host}{request.path}"})
        assert get(led.server, led.name, "1").status == 404
        answer = get_blob(led.server, led.name, DIGEST)
        assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


# -- words ---------------------------------------------------------------------------------------


WORDS = {
    "an error": b"HTTP/1.1 %d X\r\nContent-Length: 14\r\nConnection: close\r\n\r\n" + SECRET.encode(),
    "a reason": b"HTTP/1.1 %d " + SECRET.encode() + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "an error code": b'HTTP/1.1 %d X\r\nConnection: close\r\n\r\n{"errors":[{"code":"INTERNAL-WORDS",'
    b'"message":"INTERNAL-WORDS","detail":"INTERNAL-WORDS"}]}',
    "a known code": b'HTTP/1.1 %d X\r\nConnection: close\r\n\r\n{"errors":[{"code":"DENIED",'
    b'"message":"INTERNAL-WORDS"}]}',
    "a header": b"HTTP/1.1 %d X\r\nWWW-Authenticate: Bearer realm=INTERNAL-WORDS\r\n"
    b"Location: INTERNAL-WORDS\r\nRetry-After: INTERNAL-WORDS\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n",
    "no HTTP": SECRET.encode() + b" %d\r\n\r\n",
    "a digest": b"HTTP/1.1 %d X\r\nDocker-Content-Digest: INTERNAL-WORDS\r\nContent-Type: INTERNAL-WORDS\r\n"
    b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
    "a manifest": b"HTTP/1.1 %d X\r\nContent-Length: 36\r\nConnection: close\r\n\r\n"
    b'{"schemaVersion":"INTERNAL-WORDS"   }',
    "a range": b"HTTP/1.1 %d X\r\nContent-Range: INTERNAL-WORDS\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n",
    "an encoding": b"HTTP/1.1 %d X\r\nContent-Encoding: INTERNAL-WORDS\r\nContent-Length: 2\r\n"
    b"Connection: close\r\n\r\n{}",
}


@contextlib.contextmanager
def raw(answer: bytes) -> Iterator[str]:
    """The host of a server that answers everything so."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.long
@pytest.mark.parametrize(
    "statuses",
    [
        pytest.param((200, 301, 401, 500), id="few"),
        pytest.param((200, 206, 301, 401, 404, 418, 429, 500), id="many", marks=pytest.mark.long),
    ],
)
def test_nobody_who_pulls_is_told_a_strangers_words(tmp_path: Path, statuses: Sequence[int]) -> None:
    with contextlib.ExitStack() as running:
        hosts = [
            (f"m{number}-{status}.test", running.enter_context(raw(answer.replace(b"%d", b"%d" % status))))
            for number, answer in enumerate(WORDS.values())
            for status in statuses
        ]
        tables = "\n".join(f'[mirror."{name}"]\nurl = "http://{host}"\ntag-ttl = 0' for name, host in hosts)
        server = running.enter_context(mirroring(tmp_path / "mirror", tables))
        for name, _ in hosts:
            for path in (f"manifests/{DIGEST}", "manifests/1", f"blobs/{DIGEST}", "tags/list"):
                answer = server.request("GET", f"/v2/{name}/own/x/{path}")
                assert path == "tags/list" or answer.status in {403, 404, 429, 502, 503}, (name, answer)
                assert SECRET not in told([answer]), (name, path, answer)
        assert "Traceback" not in server.log.read_text()
