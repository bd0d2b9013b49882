"""One budget of requests for each registry: its limits hold back every thread, and are said."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.client.headers import Headers
from digestry.client.options import ClientOptions
from digestry.client.rate_limits import RateLimit, stated_limit
from digestry.client.session import Session
from digestry.errors import Refused
from digestry.images.pull import pull
from digestry.images.store import ImageStore
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request
from tests.client.test_hostile import DIGEST, manifest_reply
from tests.client.test_wait_budget import repository
from tests.images.test_platform_selection import Shelf


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        # Docker Hub
        ({"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}, RateLimit(100, 21600, 76)),
        # the drafts, from 03 to 10
        (
            {"RateLimit-Limit": "10, 10;w=1;burst=10", "RateLimit-Remaining": "9", "RateLimit-Reset": "4"},
            RateLimit(10, 1, 9, 4),
        ),
        (
            {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=60"},
            RateLimit(100, 60, 50, 5),
        ),
        (
            {
                "RateLimit": '"burst";r=9;t=1,"daily, all";r=3;t=3600',
                "RateLimit-Policy": '"burst";q=10;w=1,"daily, all";q=1000;w=86400;pk=:abc=:',
            },
            RateLimit(1000, 86400, 3, 3600),
        ),
        ({"RateLimit": '"default";r=0;t=30'}, RateLimit(None, None, 0, 30)),
        ({"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0"}, RateLimit(60, None, 0)),
        # nonsense
        ({"RateLimit": "soon"}, None),
        ({"RateLimit": '"' * 5000}, None),
        ({"RateLimit": '"a";r=-1;t=x'}, None),
        ({"RateLimit": "remaining=" + "9" * 30}, None),
        ({"RateLimit-Remaining": "\x1b[31m"}, RateLimit()),
        ({"RateLimit-Remaining": "1" + ";w=1" * 5000}, RateLimit()),
    ],
)
def test_what_the_headers_say(headers: dict[str, str], expected: RateLimit | None) -> None:
    assert stated_limit(Headers(headers.items())) == expected


def test_a_reset_that_is_a_time_of_day() -> None:
    at = str(int(time.time()) + 100)
    found = stated_limit(Headers([("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", at)]))
    assert found is not None
    assert found.reset == pytest.approx(100, abs=5)


def test_a_limit_in_words() -> None:
    assert str(RateLimit(100, 21600, 0)) == "its limit of 100 requests in 6 hours"
    assert RateLimit(1, 60, 0).used_up() == "its limit of 1 request in 1 minute is used up"
    assert RateLimit(None, None, 0, 30).used_up().startswith("its limit of requests is used up until 2")


@pytest.mark.long
def test_a_pause_is_everybody_s(liar: Liar) -> None:
    """What one thread is told holds for all of them."""
    at: list[float] = []
    lock = threading.Lock()

    def answer(_: Request) -> Reply:
        with lock:
            at.append(time.monotonic())
            first = len(at) == 1
        return Reply(429, headers={"Retry-After": "1"}) if first else manifest_reply()

    liar.answer = answer
    told: list[str] = []
    remote = repository(liar, told, waiting=30.0)

    def ask(number: int) -> None:
        time.sleep(number and 0.3)  # the first one is told
        assert remote.pull_manifest("1").digest == DIGEST

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))
    assert len(at) == 7
    assert min(at[1:]) - at[0] > 0.9
    assert told == [f"{liar.host} asks to wait 1 s (Retry-After): waiting"]


def test_one_registry_s_pause_is_not_another_s(liar: Liar) -> None:
    liar.answer = lambda _: Reply(429, headers={"Retry-After": "20"})
    remote = repository(liar, waiting=5.0)
    with pytest.raises(Refused):
        remote.pull_manifest("1")
    began = time.monotonic()
    with pytest.raises(Refused, match=r"asks to wait (19|20) s \(Retry-After\) before") as caught:
        remote.pull_manifest("1")
    assert (caught.value.status, len(liar.seen)) == (429, 1)
    other = Reference(liar.host.replace("127.0.0.1", "localhost"), "team/app")
    liar.answer = lambda _: manifest_reply()
    assert Session(connection=remote.connection).repository(other).pull_manifest("1").digest == DIGEST
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [408, 500, 502, 522])
def test_a_failure_that_passes_is_not_told(liar: Liar, status: int) -> None:
    liar.answer = lambda _: Reply(status) if len(liar.seen) < 2 else manifest_reply()
    assert repository(liar).pull_manifest("1").digest == DIGEST
    assert [request.method for request in liar.seen] == ["GET", "GET"]


def test_a_failure_that_stays_is_told_after_a_few_attempts(liar: Liar) -> None:
    liar.answer = lambda _: Reply(500)
    with pytest.raises(Refused, match="answers 500"):
        repository(liar, retries=2).pull_manifest("1")
    assert len(liar.seen) == 3


def test_a_head_that_fails_is_followed_by_a_get(liar: Liar) -> None:
    liar.answer = lambda request: Reply(500) if request.method == "HEAD" else manifest_reply()
    assert repository(liar).resolve("1").digest == DIGEST
    assert [request.method for request in liar.seen] == ["HEAD", "GET"]


@pytest.mark.long
def test_pauses_that_are_asked_for_are_no_failures(liar: Liar) -> None:
    liar.answer = lambda _: (
        Reply(503, headers={"Retry-After": "1"}) if len(liar.seen) < 4 else manifest_reply()
    )
    assert repository(liar, waiting=20.0, retries=1).pull_manifest("1").digest == DIGEST
    assert len(liar.seen) == 4


@pytest.mark.long
@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit": '"default";r=0;t=1', "RateLimit-Policy": '"default";q=5;w=1'},
        {"RateLimit-Limit": "5", "RateLimit-Remaining": "0", "RateLimit-Reset": "1"},
    ],
)
@pytest.mark.parametrize("status", [200, 429])
def test_the_next_request_waits_for_a_limit_that_is_used_up(
    liar: Liar, headers: dict[str, str], status: int
) -> None:
    def answer(_: Request) -> Reply:
        if len(liar.seen) > 1:
            return manifest_reply()
        reply = manifest_reply()
        return Reply(status, reply.body, {**reply.headers, **headers})

    liar.answer = answer
    told: list[str] = []
    remote = repository(liar, told, waiting=30.0)
    began = time.monotonic()
    remote.pull_manifest("1")
    remote.pull_manifest("1")
    assert time.monotonic() - began > 0.9
    assert len(told) == 1
    assert "is used up until" in told[0]


def test_a_limit_that_is_used_up_for_hours_is_said_once(liar: Liar) -> None:
    reply = manifest_reply()
    liar.answer = lambda _: Reply(
        200,
        reply.body,
        {**reply.headers, "RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"},
    )
    told: list[str] = []
    remote = repository(liar, told, waiting=30.0)
    for _ in range(3):
        remote.pull_manifest("1")  # it may still be answered: only some requests count
    assert told == [f"{liar.host} says that its limit of 100 requests in 6 hours is used up"]


def test_a_refusal_says_which_limit(liar: Liar) -> None:
    headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
    liar.answer = lambda _: Reply(429, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', headers)
    with pytest.raises(Refused, match="its limit of 100 requests in 6 hours is used up"):
        repository(liar, retries=0).pull_manifest("1")


@pytest.mark.long
def test_a_pull_of_many_layers_shares_the_budget(liar: Liar, tmp_path: Path) -> None:
    """A registry that takes five requests a second gets no more, and the pull ends well."""
    shelf = Shelf(liar)
    images = [shelf.image(os="linux", architecture="amd64", number=n) for n in range(6)]
    shelf.index(images, "1")
    times: list[float] = []
    refused: list[float] = []
    lock = threading.Lock()
    usual = shelf.answer

    def answer(request: Request) -> Reply:
        with lock:
            now = time.monotonic()
            if len([one for one in times if one > now - 1]) >= 5:
                refused.append(now)
                return Reply(429, headers={"Retry-After": "1"})
            times.append(now)
        return usual(request)

    liar.answer = answer
    store = ImageStore(tmp_path / "images")
    with Session(ClientOptions(waiting=60.0, retries=1)) as session:
        result = pull(session, Reference(liar.host, "app", "1"), store, all_platforms=True)
    assert len(result.images) == 6
    assert len(refused) <= 12
