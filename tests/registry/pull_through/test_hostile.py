"""Ten hostile upstreams at once, beside a good one."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.client.dripping import FAST, SLOW, dripping
from tests.client.liar import Reply, lying
from tests.registry.pull_through.support import Upstream, get, get_blob, mirroring
from tests.support import RegistryServer

HOSTILE = dict(list(SLOW.items())[:10])
CLIENTS = 20
"""Of each hostile upstream at once, half of them for tags, half for blobs: each asks for another."""
ASKED = 20
DIGEST = Digest.of(b"content")


def _served(server: RegistryServer, hub: Upstream, batch: str) -> list[float]:
    """The seconds that images of the good upstream take that are not here yet: tag, manifest, layer."""
    took = []
    for number in range(ASKED):
        name = f"own/{batch}{number}"
        layer = f"layer {batch} {number}".encode() * 10_000
        digest = hub.image(name, "1", layer=layer)
        began = time.monotonic()
        assert get(server, f"good.test/{name}", "1").headers["docker-content-digest"] == str(digest)
        assert get_blob(server, f"good.test/{name}", Digest.of(layer)).body == layer
        took.append(time.monotonic() - began)
    return took


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_ten_hostile_upstreams_do_not_slow_a_good_one(tmp_path: Path, workers: int) -> None:
    with contextlib.ExitStack() as running:
        liar = running.enter_context(lying())
        hub = Upstream(liar)
        liar.answer = hub.answer
        hosts = {
            f"bad{number}.test": running.enter_context(dripping(drip)).host
            for number, drip in enumerate(HOSTILE.values())
        }
        tables = "\n".join(
            f'[mirror."{name}"]\nurl = "http://{host}"\ntimeout = "20s"\ntag-ttl = 0'
            for name, host in {**hosts, "good.test": liar.host}.items()
        )
        server = running.enter_context(mirroring(tmp_path / "mirror", f"workers = {workers}\n{tables}"))
        alone = _served(server, hub, "alone")

        clients = [_ask(server, host, number) for host in hosts for number in range(CLIENTS)]
        for client in clients:
            running.enter_context(client)
        time.sleep(1)
        beside = _served(server, hub, "beside")
        answered, _, _ = select.select(clients, [], [], 0)
        server.kill()
    assert len(answered) < len(clients) // 2  # the others were held all the while
    assert statistics.median(beside) < 5 * statistics.median(alone) + 0.2


def _ask(server: RegistryServer, host: str, number: int) -> socket.socket:
    """A client that waits for something that nobody else wants."""
    path = f"manifests/t{number}" if number % 2 else f"blobs/{Digest.of(b'%d' % number)}"
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(
        f"GET /v2/{host}/own/x/{path} HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\n\r\n".encode()
    )
    return client


@pytest.mark.long
def test_no_client_waits_for_ever(tmp_path: Path) -> None:
    with contextlib.ExitStack() as running:
        hosts = {
            f"bad{number}.test": running.enter_context(dripping(drip)).host
            for number, drip in enumerate([*SLOW.values(), *FAST.values()])
        }
        tables = "\n".join(
            f'[mirror."{name}"]\nurl = "http://{host}"\ntimeout = "0.3s"' for name, host in hosts.items()
        )
        server = running.enter_context(mirroring(tmp_path / "mirror", tables))
        clients = {
            running.enter_context(_ask(server, host, number)): (host, number)
            for host in hosts
            for number in range(2)
        }
        end = time.monotonic() + _PATIENCE
        waiting = set(clients)
        while waiting and time.monotonic() < end:
            for client in select.select(list(waiting), [], [], 1)[0]:
                if not client.recv(1 << 16):  # the answer, and then the end
                    waiting.remove(client)
        assert {clients[client] for client in waiting} == set()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < _PATIENCE


@pytest.mark.long
def test_large_answers_are_held_one_at_a_time(tmp_path: Path) -> None:
    tags = json.dumps({"tags": [f"{number:x}" for number in range(1_000_000)]}).encode()
    with lying(lambda _: Reply(200, tags)) as liar:
        table = f'[mirror."a.test"]\nurl = "http://{liar.host}"\ntimeout = "60s"'
        with mirroring(tmp_path / "mirror", table) as server:
            before = largest = _memory(server)
            with ThreadPoolExecutor(8) as pool:
                answers = [
                    pool.submit(server.request, "GET", f"/v2/a.test/own/x{number}/tags/list")
                    for number in range(8)
                ]
                while not all(answer.done() for answer in answers):
                    largest = max(largest, _memory(server))
                    time.sleep(0.02)
            assert {answer.result().status for answer in answers} == {502}
            assert largest - before < 350  # eight at once had 600


def _memory(server: RegistryServer) -> int:
    """MiB of all processes."""
    status = "".join(Path(f"/proc/{process}/status").read_text() for process in server.processes())
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) >> 10


_PATIENCE = 30.0
"""Ten times as long as three tries take of three times a timeout of 0.3 s each."""
