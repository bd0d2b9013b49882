"""Refused requests: counted by why, and no more of their lines than a share; the rest is an exact number."""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import cast

import pytest

from digestry.registry.access.identity import ANONYMOUS, Identity
from digestry.registry.access.principal import Principal
from digestry.registry.access.rules import Rules
from digestry.registry.exchange import Exchange
from digestry.registry.observability import refusals
from digestry.registry.observability.refusals import Refusals
from digestry.registry.observability_config import LogConfig
from tests.registry.access.support import basic, guarded, of
from tests.registry.observability.support import Metrics, audited, lines
from tests.registry.support import raw_exchange
from tests.support import PATIENCE, RegistryServer, running_registry, start_registry, wait_until


def refused(server: RegistryServer, count: int, path: str, headers: dict[str, str]) -> None:
    """So many pushes on one connection, each refused."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        for _ in range(count):
            connection.request("PUT", path, b"", headers)
            answer = connection.getresponse()
            assert 400 <= answer.status < 500
            answer.read()
    finally:
        connection.close()


def files(server: RegistryServer, stem: str) -> list[Path]:
    return [file for file in server.root.iterdir() if file.name.startswith(f"{stem}.log")]


@pytest.mark.long
def test_strangers_cannot_put_the_lines_of_others_aside() -> None:
    """Very many refused requests: what they leave is bounded, counted, and in a file of its own."""
    log = '[log]\nrequests = "none"\naudit-size = 20000\naudit-files = 1\n'
    with guarded(log) as server:
        assert of(server, "alice").push_image("a/b", "1").status == 201
        before = (server.root / "audit.log").read_bytes()
        long = {"User-Agent": "y" * 2000}
        refused(server, 1000, f"/v2/{'x' * 2000}/manifests/1", long)
        refused(server, 200, "/v2/a/b/manifests/1", long | basic("alice", "wrong"))
        assert (server.root / "audit.log").read_bytes() == before
        assert sum(file.stat().st_size for file in files(server, "audit-refused")) < 200_000
        server.stop()
        assert (server.root / "audit.log").read_bytes() == before
        told = [entry for file in files(server, "audit-refused") for entry in lines(file)]
        summaries = [entry for entry in told if entry["action"] == "refused-requests"]
        own = len(told) - len(summaries)
        # One window, unless the machine is very slow.
        assert refusals.OF_AN_ADDRESS <= own <= refusals.OF_AN_ADDRESS * (len(summaries) + 1)
        assert sum(entry["count"] for entry in summaries) + own == 1200
        for entry in summaries:
            assert sum(entry["actions"].values()) == sum(entry["statuses"].values()) == entry["count"]
            assert (entry["user"], entry["address"]) == ("anonymous", "127.0.0.1")
            assert entry["since"] < entry["time"]


@pytest.mark.long
def test_a_user_has_a_share_too() -> None:
    rules = '[[rule]]\nwho = "alice"\nactions = "admin"\n[[rule]]\nwho = "bob"\nactions = "pull"\n'
    with guarded(rules) as server:
        assert of(server, "alice").push_image("a/b", "1").status == 201
        refused(server, 500, "/v2/a/b/manifests/1", basic("bob"))
        assert of(server, "alice").request("PUT", "/v2/a/b/manifests/2", b"{}").status == 400
        server.stop()
        told = lines(server.root / "audit.log")
        summaries = [entry for entry in told if entry["action"] == "refused-requests"]
        own = sum(entry["user"] == "bob" for entry in told) - len(summaries)
        assert refusals.OF_A_USER <= own <= refusals.OF_A_USER * (len(summaries) + 1)
        assert sum(entry["count"] for entry in summaries) + own == 500
        assert sum(entry["statuses"]["403"] for entry in summaries) + own == 500
        assert sum(entry["actions"]["push-manifest"] for entry in summaries) + own == 500
        # Who has a share of her own is not hidden by it.
        assert [entry["status"] for entry in told if entry["user"] == "alice"][-1] == 400


@pytest.mark.long
def test_what_was_refused_is_counted_by_why(tmp_path: Path) -> None:
    (tmp_path / "registry.toml").write_text(
        '[limits]\nupload = 1000\n[[quota]]\nrepository = "q/*"\nbytes = 10\n'
        '[[immutability]]\nrepository = "i/*"\nmode = "immutable"\n'
    )
    server = start_registry(tmp_path / "root", "--config", str(tmp_path / "registry.toml"))
    try:
        server.push_image("i/a", "1")
        assert server.request("DELETE", "/v2/i/a/manifests/1").status == 409
        digest = "sha256:" + "0" * 64
        for name, size, status in (("q/a", 20, 403), ("x", 2000, 413)):
            answer = server.request("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", b"x" * size)
            assert answer.status == status
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            assert server.request("POST", "/v2/x/blobs/uploads/", headers=headers).status == 403
        raw_exchange(server, b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")
        assert server.request("PATCH", "/v2/x/manifests/1").status == 405
        assert server.request("GET", "/v2/none/manifests/1").status == 404  # an answer, not a refusal
        expected = {"immutable": 1, "quota": 1, "size": 1, "page": 1, "host": 2, "method": 1}

        def counted() -> dict[str, float]:
            family = Metrics(server).families["digestry_refused_requests"]
            return {
                sample.labels["reason"]: sample.value
                for sample in family.samples
                if sample.name.endswith("_total")
            }

        wait_until(lambda: counted() == expected, what=f"{expected}")
    finally:
        server.stop()


def test_an_open_registry_has_them_too() -> None:
    with running_registry() as server:
        server.push_blob("a", b"x")
        assert server.request("PUT", "/v2/a/manifests/1", b"{").status == 400
        wait_until(lambda: len(audited(server)) == 2, what="both lines")
        assert [entry["status"] for entry in lines(server.root / "audit-refused.log")] == [400]


def test_a_pipe_has_no_other_beside_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/stdout"), Path("/proc/self/fd/1"), "stderr", "off"):
        config = LogConfig(audit=place)
        assert config.for_anonymous_refusals(tmp_path) == config
    assert (
        LogConfig(audit=tmp_path / "writes").for_anonymous_refusals(tmp_path).audit
        == tmp_path / "writes-refused"
    )
    assert LogConfig().for_anonymous_refusals(tmp_path).audit == tmp_path / "audit-refused.log"


# -- the shares ---------------------------------------------------------------------------------


def exchange(address: str = "", user: str | None = None) -> Exchange:
    async def nothing(*_: object) -> None: ...

    scope = {"type": "http", "client": (address, 1), "headers": [], "method": "PUT", "path": "/"}
    made = Exchange(scope, nothing, nothing)  # type: ignore[arg-type]
    identity = ANONYMOUS if user is None else Identity(user)
    made.principal = Principal(identity, Rules([]))
    return made


@pytest.fixture
def shares() -> Refusals:
    return Refusals(lambda: now[0])


now = [0.0]


def test_no_number_is_ever_lost(shares: Refusals) -> None:
    """From thousands of addresses, networks and users."""
    lines_written = total = 0
    for number in range(3000):
        for asking in (
            exchange(f"10.{number >> 8}.{number & 255}.1"),
            exchange(f"2001:db8:{number:x}::1"),
            exchange(user=f"u{number}"),
        ):
            for _ in range(3):
                lines_written += shares.admits(asking, "push-manifest", 403)
                total += 1
    of_users, of_strangers = shares.summaries(last=True)
    assert len(of_users) <= refusals.MOST_SOURCES + 1
    assert len(of_strangers) <= refusals.MOST_SOURCES + 1
    assert lines_written <= refusals.OF_STRANGERS + (refusals.MOST_SOURCES + 1) * refusals.OF_A_USER
    assert sum(cast("int", entry["count"]) for entry in of_users + of_strangers) + lines_written == total
    assert shares.summaries(last=True) == ([], [])


def test_a_network_is_one_source(shares: Refusals) -> None:
    admitted = sum(shares.admits(exchange(f"2001:db8::{n:x}"), "x", 401) for n in range(1000))
    assert admitted == refusals.OF_AN_ADDRESS
    assert shares.admits(exchange("2001:db8:0:1::1"), "x", 401)
    _, (entry,) = shares.summaries(last=True)
    assert entry["address"] == "2001:db8::/64"


def test_a_window_ends(shares: Refusals) -> None:
    def admitted() -> int:
        return sum(shares.admits(exchange("10.0.0.1"), "x", 401) for _ in range(50))

    assert (admitted(), admitted()) == (refusals.OF_AN_ADDRESS, 0)
    assert shares.summaries() == ([], [])
    now[0] += refusals.WINDOW_SECONDS
    (entry,) = shares.summaries()[1]
    assert entry["count"] == 100 - refusals.OF_AN_ADDRESS
    assert admitted() == refusals.OF_AN_ADDRESS
    assert json.dumps(entry)
