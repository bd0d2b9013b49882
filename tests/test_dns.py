"""Look-ups of names end within their time, whatever the system's resolver does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from digestry import dns
from digestry.errors import RemoteError
from digestry.model.digest import Digest
from digestry.registry.access.fetch import fetch
from digestry.registry.webhook_dispatcher import Sender
from digestry.registry.webhooks import Webhook
from digestry.upstream.http_upstream import ClientUpstream, UpstreamOptions
from tests.support import wait_until

SECONDS = 0.4
MARGIN = 5.0


class Resolver:
    """Answers of ``*.silent.test`` wait until ``answers``; all other names are this machine's."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[str] = []

    def look_up(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        if host.endswith("silent.test"):
            self.answers.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    found = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", found.look_up)
    yield found
    found.answers.set()
    wait_until(lambda: look_ups() == 0, what="the end of all look-ups")


def look_ups() -> int:
    return sum(thread.name.startswith("look-up ") for thread in threading.enumerate())


@contextlib.contextmanager
def in_time(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + MARGIN


def test_who_waits_gives_up(resolver: Resolver) -> None:
    with in_time(SECONDS), pytest.raises(TimeoutError, match="in time"):
        dns.look_up("silent.test", 80, seconds=SECONDS, owner="a")


def test_one_question_for_all_who_ask_the_same(resolver: Resolver) -> None:
    def ask(_: int) -> int:
        with contextlib.suppress(TimeoutError):
            return len(dns.look_up("silent.test", 80, seconds=SECONDS, owner="a"))
        return 0

    with ThreadPoolExecutor(30) as pool, in_time(SECONDS):
        assert sum(pool.map(ask, range(30))) == 0
    assert resolver.asked == ["silent.test"]
    assert look_ups() == 1
    resolver.answers.set()
    assert dns.look_up("silent.test", 80, seconds=10, owner="a")[0][4] == ("127.0.0.1", 80)


def test_an_owner_holds_so_many_threads_and_nobody_else(resolver: Resolver) -> None:
    for number in range(50):
        with in_time(0), pytest.raises(TimeoutError):
            dns.look_up(f"{number}.silent.test", 80, seconds=0, owner="a")
    assert look_ups() == dns.MOST_OF_AN_OWNER
    with in_time(0):
        assert dns.look_up("good.test", 80, seconds=30, owner="b")
        assert dns.look_up("127.0.0.1", 80, seconds=0, owner="a")  # an address is no question
    resolver.answers.set()
    wait_until(lambda: look_ups() == 0, what="the end of all look-ups")
    assert dns.look_up("51.silent.test", 80, seconds=30, owner="a")


def test_what_the_resolver_says_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(socket.gaierror, match="no such name"):
        dns.look_up("none.test", 80, seconds=10, owner="a")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(socket.gaierror):
        dns.look_up("none.test", 80, seconds=10, owner="a")


def test_an_upstream(resolver: Resolver) -> None:
    options = UpstreamOptions("a.test", "http://silent.test", timeout=60, patience=SECONDS)
    upstream = ClientUpstream(options)
    try:
        with in_time(SECONDS), pytest.raises(RemoteError, match=r"silent\.test"):
            upstream.blob_size("a", Digest.of(b"content"))
    finally:
        upstream.close()


def test_the_proxy_of_an_upstream(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.silent.test:3128")
    monkeypatch.setenv("no_proxy", "")
    upstream = ClientUpstream(UpstreamOptions("a.test", "http://a.test", timeout=60, patience=SECONDS))
    try:
        with in_time(SECONDS), pytest.raises(RemoteError):
            upstream.blob_size("a", Digest.of(b"content"))
    finally:
        upstream.close()
    assert "proxy.silent.test" in resolver.asked


def test_an_issuer_of_tokens(resolver: Resolver) -> None:
    with in_time(SECONDS), pytest.raises(TimeoutError):
        fetch("http://silent.test/keys", seconds=SECONDS, most=1000)


def test_a_webhook(resolver: Resolver) -> None:
    webhook = Webhook("h", "http://silent.test/", b"secret", timeout=SECONDS)
    with in_time(SECONDS):
        refusal = Sender(webhook).send(b"{}", {})
    assert refusal is not None
    assert refusal.problem == "no answer within 0.4 s"
