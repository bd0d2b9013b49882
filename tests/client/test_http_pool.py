"""Connections: used again, through proxies, with the certificates that are trusted."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from digestry.client.bounded_http import BoundedConnection, ResponseTimeouts
from digestry.client.headers import Headers
from digestry.client.http_connection import Proxy
from digestry.client.http_pool import HttpPool, HttpResponse, InvalidAddress
from digestry.client.transport_errors import CertificateChanged, ConnectFailed, ProxyFailed, unreachable
from digestry.client.trust import Trust
from digestry.client.wait_budget import WaitBudget
from tests import certificates
from tests.certificates import Certificates
from tests.client.liar import Liar, Reply, lying
from tests.support import PATIENCE, free_port


def pool(trust: Trust | None = None, proxy: Proxy | None = None, *, timeout: float = PATIENCE) -> HttpPool:
    timeouts = ResponseTimeouts(None, timeout, WaitBudget(None, 60))
    return HttpPool(
        lambda scheme, host, port, trust, proxy: BoundedConnection(
            scheme, host, port, trust, proxy, timeouts=timeouts
        ),
        trust or Trust(),
        proxy,
        4,
    )


def get(from_: HttpPool, url: str, method: str = "GET") -> HttpResponse:
    return from_.request(method, url, headers={}, body=None, connect_timeout=PATIENCE, timeout=PATIENCE)


def read_all(response: HttpResponse) -> bytes:
    parts = []
    while part := response.read1(1 << 16):
        parts.append(part)
    return b"".join(parts)


@contextmanager
def raw_server(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes one connection, gives each head on it the next answer, and closes it."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                for answer in answers:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        if not (part := sock.recv(65536)):
                            return
                        head += part
                    heads.append(head)
                    sock.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", heads
        thread.join(PATIENCE)


def test_header_fields_have_their_values_in_any_case() -> None:
    headers = Headers([("Link", "a"), ("LINK", "b"), ("X", "1")])
    assert headers["link"] == "a, b"
    assert headers.getlist("Link") == ["a", "b"]
    assert "x" in headers
    assert headers.get("Y", "none") == "none"
    assert sorted(headers) == ["link", "x"]


def test_a_connection_is_used_again() -> None:
    answers = (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 204 No\r\n\r\n")
    with raw_server(*answers) as (host, heads):
        asked = pool()
        assert read_all(get(asked, f"http://{host}/a")) == b"ok"
        assert get(asked, f"http://{host}/b").status == 204
        asked.close_idle()
    assert [head.split()[1] for head in heads] == [b"/a", b"/b"]


def test_a_connection_with_half_a_body_is_not_used_again() -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"never") as (host, heads):
        asked = pool()
        response = get(asked, f"http://{host}/a")
        assert response.read1(4) == b"half"
        response.close()
        with pytest.raises(ConnectFailed):
            get(asked, f"http://127.0.0.1:{free_port()}/b")
    assert len(heads) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 9\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0_3\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 5000 + b"3\r\nabc\r\n0\r\n\r\n",
    ],
    ids=["length", "chunk", "negative", "underscore", "unended", "long"],
)
def test_a_body_that_breaks_off_is_no_body(body: bytes) -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\n" + body) as (host, _):
        response = get(pool(), f"http://{host}/")
        with pytest.raises(http.client.HTTPException):
            read_all(response)
        response.close()


def test_a_target_that_no_request_line_can_have_is_escaped(liar: Liar) -> None:
    get(pool(), f"http://{liar.host}/a b?c=\xe9&d=%2F|").close()
    assert liar.paths() == ["GET /a%20b?c=%C3%A9&d=%2F|"]


@pytest.mark.parametrize("url", ["http://", "ftp://a/", "http://a:99999999/", "http://[::1/", "nothing"])
def test_what_is_no_web_address(url: str) -> None:
    with pytest.raises(InvalidAddress):
        get(pool(), url)


def test_nobody_listens() -> None:
    with pytest.raises(ConnectFailed) as caught:
        get(pool(), f"http://127.0.0.1:{free_port()}/")
    assert "connection refused" in unreachable("h", caught.value).message
    with pytest.raises(ConnectFailed) as caught:
        get(pool(), f"http://{'a' * 64}.invalid/")
    assert "no such host" in unreachable("h", caught.value).message


# -- proxies and TLS ---------------------------------------------------------------------------


@pytest.fixture
def secure(pki: Certificates) -> Iterator[Liar]:
    with lying(tls=pki.context()) as server:
        server.answer = lambda _: Reply(200, b"ok")
        yield server


@contextmanager
def tunnelling(
    target: str, answer: bytes, wrap: Callable[[socket.socket], socket.socket]
) -> Iterator[tuple[Proxy, list[bytes]]]:
    """A proxy that opens tunnels to ``target``, whatever is asked for."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def copy(source: socket.socket, sink: socket.socket) -> None:
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        def serve() -> None:
            sock, _ = listener.accept()
            with wrap(sock) as near, socket.create_connection(target.split(":")) as far:  # type: ignore[arg-type]
                head = b""
                while b"\r\n\r\n" not in head:
                    head += near.recv(65536)
                heads.append(head)
                near.sendall(answer)
                back = threading.Thread(target=copy, args=(far, near), daemon=True)
                back.start()
                copy(near, far)
                back.join(PATIENCE)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        yield Proxy("http", "localhost", port, "Basic c2VjcmV0"), heads
        thread.join(PATIENCE)


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("encrypted", [False, True], ids=["proxy", "proxy over TLS"])
def test_tls_goes_through_a_tunnel(secure: Liar, pki: Certificates, encrypted: bool) -> None:
    context = pki.context()

    def wrap(sock: socket.socket) -> socket.socket:
        return context.wrap_socket(sock, server_side=True) if encrypted else sock

    established = b"HTTP/1.1 200 Connection established\r\n\r\n"
    with tunnelling(secure.host, established, wrap) as (proxy, heads):
        way = Proxy("https", proxy.host, proxy.port, proxy.authorization) if encrypted else proxy
        asked = pool(Trust([pki.authority]), way)
        assert read_all(get(asked, "https://registry.example/v2/a")) == b"ok"
        asked.close_idle()
    assert heads[0].startswith(b"CONNECT registry.example:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic c2VjcmV0\r\n" in heads[0]
    assert "Proxy-Authorization" not in secure.seen[0].headers


@pytest.mark.peer("openssl")
def test_a_proxy_is_verified_whatever_the_host_may_show(secure: Liar, pki: Certificates) -> None:
    host, _, port = secure.host.partition(":")
    way = Proxy("https", host, int(port))
    with pytest.raises(ProxyFailed, match="the certificate of the proxy"):
        get(pool(Trust(verify=False), way), "https://registry.example/v2/a")
    get(pool(Trust([pki.authority], verify=False), way), "http://registry.example/v2/a").close()


def test_a_proxy_gets_the_whole_address_of_a_plain_request(liar: Liar) -> None:
    host, _, port = liar.host.partition(":")
    proxy = Proxy("http", host, int(port), "Basic c2VjcmV0")
    get(pool(proxy=proxy), "http://far.example/v2/x?y").close()
    assert liar.paths() == ["GET http://far.example/v2/x?y"]
    assert liar.seen[0].headers["Host"] == "far.example"
    assert liar.seen[0].headers["Proxy-Authorization"] == "Basic c2VjcmV0"


def test_a_proxy_that_refuses_or_is_not_there_is_named_as_the_reason() -> None:
    with raw_server(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as (host, _):
        proxy = Proxy("http", "127.0.0.1", int(host.partition(":")[2]))
        with pytest.raises(ProxyFailed) as caught:
            get(pool(proxy=proxy), "https://registry.example/")
        assert "the proxy answers 407" in unreachable("h", caught.value).message
    absent = Proxy("http", "127.0.0.1", free_port())
    with pytest.raises(ProxyFailed) as caught:
        get(pool(proxy=absent), "https://registry.example/")
    error = unreachable("h", caught.value)
    assert "the proxy does not answer" in error.message
    assert "HTTPS_PROXY" in error.hint


@pytest.mark.peer("openssl")
def test_the_first_certificate_that_is_not_verified_is_the_only_one(
    secure: Liar, pki: Certificates, tmp_path: Path
) -> None:
    any_ = Trust(verify=False)
    assert read_all(get(pool(any_), f"https://{secure.host}/")) == b"ok"
    assert read_all(get(pool(any_), f"https://{secure.host}/")) == b"ok"
    other = certificates.make(tmp_path / "other")
    with lying(tls=other.context()) as changed, pytest.raises(CertificateChanged) as caught:
        get(pool(any_), f"https://{changed.host}/")
    assert "has changed" in unreachable("h", caught.value).message
    with pytest.raises(ssl.SSLCertVerificationError):
        get(pool(), f"https://{secure.host}/")


@pytest.mark.peer("openssl")
def test_the_name_in_the_certificate_counts(tmp_path: Path) -> None:
    named = certificates.make(tmp_path / "pki", "DNS:localhost")
    with lying(lambda _: Reply(200, b"ok"), tls=named.context()) as server:
        port = server.host.partition(":")[2]
        assert read_all(get(pool(Trust([named.authority])), f"https://localhost:{port}/")) == b"ok"
        with pytest.raises(ssl.SSLCertVerificationError):
            get(pool(Trust([named.authority])), f"https://127.0.0.1:{port}/")


@contextmanager
def stepping(body: int) -> Iterator[tuple[str, Callable[[int], None]]]:
    """A server that sends so much of a body as it is told to, and then a small answer on the connection."""
    steps: SimpleQueue[int] = SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1 << 16)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % body)
                left = body
                while left:
                    count = steps.get()
                    sock.sendall(bytes(count))
                    left -= count
                sock.recv(1 << 16)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", steps.put
        thread.join()


def test_bytes_are_waited_for_together_and_no_longer_than_they_may_take() -> None:
    connections = pool()
    with stepping(300_000) as (url, send):
        response = get(connections, url)
        buffer = memoryview(bytearray(1 << 20))
        send(1_000)
        assert response.is_ready(PATIENCE)
        response.gather(100_000, 0.05)  # they do not come: what is here is had all the same
        assert response.readinto1(buffer) == 1_000
        for _ in range(100):
            send(1_000)
        response.gather(100_000, PATIENCE)
        assert response.readinto1(buffer) == 100_000
        send(199_000)
        got = 0
        while got < 199_000:
            got += response.readinto1(buffer)
        assert response.readinto1(buffer) == 0
        # The next answer on the connection is smaller than what was waited for.
        assert read_all(get(connections, url)) == b"ok"
    connections.close_idle()


def test_reads_gather_what_fills_their_buffer_or_comes_in_time() -> None:
    connections = pool()
    with stepping(900_000) as (url, send):
        response = get(connections, url)
        assert response.gather_reads(0.05)
        buffer = memoryview(bytearray(200_000))
        send(1_000)
        assert response.is_ready(PATIENCE)
        assert response.readinto1(buffer) == 1_000  # no more come in time: what is here is had
        for step in (50_000, 100_000, 50_000):
            send(step)
        got = response.readinto1(buffer)
        while got < 200_000:  # a busy machine takes longer than 0.05 s for them
            got += response.readinto1(buffer[got:])
        assert got == 200_000
        for _ in range(100):
            send(6_990)
        got = 0
        while got < 699_000:
            got += response.readinto1(buffer)
        assert response.readinto1(buffer) == 0
        # The connection's next answer is read as ever.
        assert read_all(get(connections, url)) == b"ok"
    connections.close_idle()


def test_a_gathering_read_ends_with_the_connection_and_with_its_time() -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(100_000)) as (host, _):
        response = get(pool(), f"http://{host}/")
        assert response.gather_reads(PATIENCE)
        buffer = memoryview(bytearray(300_000))
        got = 0
        began = time.monotonic()
        while got < 100_000:
            got += response.readinto1(buffer)
        assert time.monotonic() - began < PATIENCE / 2
        with pytest.raises(http.client.HTTPException):
            response.readinto1(buffer)
        response.close()


def test_a_silent_side_times_out_though_reads_gather() -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(1_000)
    with raw_server(begun, b"never") as (host, _):  # which waits for another request
        response = get(pool(timeout=0.3), f"http://{host}/")
        assert response.gather_reads(0.05)
        buffer = memoryview(bytearray(300_000))
        got = 0
        while got < 1_000:
            got += response.readinto1(buffer)
        with pytest.raises(TimeoutError):
            response.readinto1(buffer)
        response.close()


@pytest.mark.peer("openssl")
def test_reads_over_tls_do_not_gather(secure: Liar, pki: Certificates) -> None:
    asked = pool(Trust([pki.authority]))
    response = get(asked, f"https://{secure.host}/")
    assert not response.gather_reads(0.05)
    assert read_all(response) == b"ok"
    asked.close_idle()


def test_the_end_of_a_connection_ends_the_wait() -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(1_000)) as (host, _):
        response = get(pool(), f"http://{host}/")
        began = time.monotonic()
        response.gather(200_000, PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2
        assert len(response.read1(1 << 16)) == 1_000
        with pytest.raises(http.client.HTTPException):
            response.read1(1 << 16)
        response.close()
