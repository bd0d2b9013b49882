"""No answer of an upstream's takes longer than there is time for it, however it comes in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from digestry.errors import RemoteError
from digestry.model.digest import Digest
from digestry.upstream.http_upstream import LISTS, ClientUpstream, UpstreamOptions
from tests.client.dripping import FAST, SLOW, Drip, dripping, empty_pages, silent, slow_pages

PATIENCE = 0.5
MARGIN = 10.0
"""For a machine that has other work to do: two dozen servers, of which some send as fast as they can."""
LIMIT = 4 << 20
DIGEST = Digest.of(b"content")
DRIPS = {
    **{f"slow: {name}": drip for name, drip in SLOW.items()},
    **{f"fast: {name}": drip for name, drip in FAST.items()},
}


def asking(host: str) -> ClientUpstream:
    return ClientUpstream(UpstreamOptions("a.test", f"http://{host}", timeout=60, patience=PATIENCE))


def _whole(upstream: ClientUpstream) -> None:
    with upstream.blob("a", DIGEST, 0) as stream:
        while stream.read(1 << 16):
            pass


QUESTIONS: dict[str, tuple[Callable[[ClientUpstream], object], float]] = {
    "manifest": (lambda upstream: upstream.manifest("a", "1", LIMIT), PATIENCE),
    "tag": (lambda upstream: upstream.resolve("a", "1", LIMIT), PATIENCE),
    "size": (lambda upstream: upstream.blob_size("a", DIGEST), PATIENCE),
    "blob": (_whole, 2 * PATIENCE),
    "tags": (lambda upstream: upstream.tags("a", 1000), PATIENCE * LISTS),
    "referrers": (lambda upstream: upstream.referrers("a", DIGEST), PATIENCE * LISTS),
}


def _ends(drip: Drip) -> dict[str, float]:
    """The seconds that each question took too long."""
    late: dict[str, float] = {}
    with dripping(drip) as server:
        upstream = asking(server.host)
        for what, (ask, most) in QUESTIONS.items():
            began = time.monotonic()
            with contextlib.suppress(RemoteError):
                ask(upstream)
            took = time.monotonic() - began
            if took > most + MARGIN:
                late[what] = took
        upstream.close()
    return late


@pytest.mark.long
def test_every_answer_ends() -> None:
    with ThreadPoolExecutor(len(DRIPS)) as pool:
        late = dict(zip(DRIPS, pool.map(_ends, DRIPS.values()), strict=True))
    assert {drip: questions for drip, questions in late.items() if questions} == {}


@pytest.mark.long
@pytest.mark.parametrize("drip", [empty_pages(), slow_pages()], ids=["empty", "slow"])
def test_a_list_of_pages_ends(drip: Drip) -> None:
    with dripping(drip) as server:
        upstream = asking(server.host)
        began = time.monotonic()
        with pytest.raises(RemoteError):
            upstream.tags("a", 1_000_000)
        assert time.monotonic() - began < PATIENCE * LISTS + MARGIN
        upstream.close()


def test_a_connection_on_which_nothing_comes_ends() -> None:
    with silent() as host:
        upstream = asking(host)
        began = time.monotonic()
        with pytest.raises(RemoteError):
            upstream.resolve("a", "1", LIMIT)
        assert time.monotonic() - began < PATIENCE + MARGIN
        upstream.close()


def test_a_handshake_on_which_nothing_comes_ends() -> None:
    with silent() as host:
        upstream = ClientUpstream(UpstreamOptions("a.test", f"https://{host}", timeout=60, patience=PATIENCE))
        began = time.monotonic()
        with pytest.raises(RemoteError):
            upstream.resolve("a", "1", LIMIT)
        assert time.monotonic() - began < PATIENCE + MARGIN
        upstream.close()
