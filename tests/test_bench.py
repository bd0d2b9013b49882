"""The benchmarks measure what they say: their loads arrive, and their figures are read right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench import content, listing
from bench.compare import Line, Result
from bench.content import IMAGE, Repository
from bench.large import Body, Growth, pull, push
from bench.load import Flow, Load, drive, parse_wrk
from bench.requests import Loads
from bench.servers import MemoryWatch, megabytes, processor_seconds

from digestry.errors import RemoteError
from digestry.model.digest import Digest
from tests.support import RegistryServer, running_registry

_WRK = """Running 2s test @ http://127.0.0.1:5000
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   640.12us    1.02ms  20.11ms   96.50%
  Latency Distribution
     50%  467.00us
     75%    0.62ms
     90%    1.01ms
     99%    1.22s
  60231 requests in 2.00s, 60.11MB read
  Non-2xx or 3xx responses: 602
Requests/sec:  30011.74
Transfer/sec:     29.95MB
"""


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


def test_what_wrk_prints() -> None:
    load = parse_wrk(_WRK)
    assert (load.rate, load.p50, load.p99) == (30011.74, 0.467, 1220.0)
    assert load.refused == pytest.approx(0.01, abs=1e-4)


@pytest.mark.long
def test_a_filled_repository_has_its_tags(registry: RegistryServer) -> None:
    repository = Repository("bench/many", 250)
    content.fill_ours(registry, repository)
    walked = listing.walk(registry, repository)
    assert (len(walked.pages), walked.tags) == (3, 250)
    for path in (*repository.tag_paths()[:3], *repository.digest_paths()[-3:], *repository.blob_paths()):
        assert registry.request("GET", path).status == 200
    assert registry.request("HEAD", repository.tag_paths()[-1]).status == 200


@pytest.mark.parametrize("patch", [False, True])
def test_pushed_blobs_and_manifests_are_there(registry: RegistryServer, patch: bool) -> None:
    blob = b"of its own %d" % patch
    pieces = iter([content.put_blob("bench/x", one, patch=patch) for one in (blob, *IMAGE.layers)])
    load = drive(registry.port, lambda _: next(pieces), clients=3, seconds=60.0, most=5)
    assert load.rate > 0
    assert registry.request("GET", f"/v2/bench/x/blobs/{Digest.of(blob)}").body == blob


def test_heads_are_counted_and_manifests_move_tags(registry: RegistryServer) -> None:
    repository = Repository("bench/moved", 10)
    content.fill_ours(registry, repository)
    loads = Loads(repository, 0.2)
    for load in (loads.head(2)(registry), loads.put_manifests(2)(registry)):
        assert load.rate > 0
        assert load.p99 >= load.p50 > 0
    assert registry.request("HEAD", "/v2/bench/moved/manifests/client-1").status == 200


def test_a_refusal_is_no_figure(registry: RegistryServer) -> None:
    flow = content.put_manifest("bench/empty", "t", IMAGE.manifest(1))  # its blobs are not there
    with pytest.raises(AssertionError, match="status=400"):
        drive(registry.port, lambda _: flow, clients=1, seconds=60.0, most=1)


def test_a_server_that_closes_is_told(registry: RegistryServer) -> None:
    def nonsense() -> Flow:
        yield b"nonsense\r\n\r\n"
        yield b"more\r\n\r\n"

    with pytest.raises(RemoteError):
        drive(registry.port, lambda _: nonsense(), clients=1, seconds=60.0, most=1)


def test_large_blobs_go_up_and_down(registry: RegistryServer) -> None:
    body = Body((3 << 20) + 5)
    assert sum(len(part) for part in body) == body.size
    with MemoryWatch(registry, 0.02) as memory:
        assert push(registry, body, patch=True) > 0
    assert memory.peak > 20
    assert pull(registry, body) > 0
    assert megabytes(registry) > 20
    assert processor_seconds(registry) > 0


def test_ratios_and_verdicts() -> None:
    ours, theirs = (
        Result([Load(rate, 1.0, 2.0) for rate in rates])
        for rates in ((130.0, 260.0, 1300.0), (10.0, 10.0, 200.0))
    )
    line = Line("GET", "16 clients", "/s", ours, theirs, 13.0)
    assert (line.ratio, line.ratios, line.verdict) == (26.0, [13.0, 26.0, 6.5], "met")
    assert Line("GET", "1", "/s", ours, theirs, 27.0).verdict == "NOT MET"
    assert Growth(50.0, (100.0, 120.0, 110.0, 132.0, 90.0), 1.0, 1).ratio == pytest.approx(1.1)
    pages = listing.Listing((listing.Walk((1.0, 9.0, 2.0), 3), listing.Walk((5.0, 2.0, 1.0), 3)))
    assert (pages.pages, pages.median, pages.slowest) == ([1.0, 2.0, 1.0], 1.0, 2.0)
