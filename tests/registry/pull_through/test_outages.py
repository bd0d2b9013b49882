"""Another registry that is away, slow, failing, or asks to be left alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.client.liar import Reply, Request
from tests.registry.pull_through.support import Upstream, get, get_blob, state
from tests.support import RegistryServer, wait_until


def silence(_: Request) -> Reply:
    """Nothing, for longer than anybody waits."""
    time.sleep(8)
    return Reply(503)


def refused(status: int, **headers: str) -> Callable[[Request], Reply]:
    def trouble(_: Request) -> Reply:
        return Reply(status, b"{}", {name.replace("_", "-"): value for name, value in headers.items()})

    return trouble


TROUBLES = {
    "trouble1.test": (refused(500), "failing"),
    "trouble2.test": (refused(503), "failing"),
    "trouble3.test": (silence, "unreachable"),
    "trouble4.test": (refused(429, Retry_After="3600"), "rate-limited"),
}


@pytest.mark.long
@pytest.mark.parametrize("host", TROUBLES)
def test_a_tag_is_served_as_it_was_and_the_header_says_so(
    mirror: RegistryServer, hub: Upstream, name: str, host: str
) -> None:
    trouble, word = TROUBLES[host]
    digest = hub.image(name, "1")
    here = f"{host}/{name}"
    layer = hub.blob(name, b"layer")
    assert get_blob(mirror, here, layer).status == 200
    checked = get(mirror, here, "1").headers["digestry-upstream"].partition("checked=")[2]
    hub.troubles[name] = trouble
    for _ in range(6):  # of both workers
        answer = get(mirror, here, "1")
        assert answer.headers["docker-content-digest"] == str(digest)
        assert answer.headers["digestry-upstream"] == f"{word}; registry={host}; checked={checked}"
    # By digest nobody need be asked.
    answer = get(mirror, here, str(digest))
    assert answer.status == 200
    assert "digestry-upstream" not in answer.headers
    assert get_blob(mirror, here, layer).body == b"layer"
    # One of the two workers asked once, and then both left it alone (on a slow machine, asked again later).
    assert hub.asked(name).count("HEAD manifests/1") <= 5


def test_what_is_damaged_upstream_is_not_gone(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    """A digestry registry answers 404 to what it has damaged, so that it is pushed again."""
    here = f"trouble19.test/{name}"
    digest = hub.image(name, "1")
    assert get(mirror, here, "1").status == 200

    def damaged(_: Request) -> Reply:
        return Reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","detail":{"damaged":true}}]}')

    hub.troubles[name] = damaged
    answer = get(mirror, here, "1")
    assert answer.headers["docker-content-digest"] == str(digest)
    assert state(answer) == "failing"
    journal = mirror.request("GET", f"/v2/{here}/_digestry/journal").json()["entries"]
    assert [entry["event"] for entry in journal] == ["created"]


@pytest.mark.long
def test_it_is_asked_again_after_a_while(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"trouble5.test/{name}"
    hub.image(name, "1")
    get(mirror, here, "1")
    hub.troubles[name] = refused(500)
    assert state(get(mirror, here, "1")) == "failing"
    del hub.troubles[name]
    wait_until(lambda: state(get(mirror, here, "1")) == "current", what="another question")


@pytest.mark.long
def test_what_is_not_here_is_an_error_that_passes_and_not_a_404(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"trouble6.test/{name}"
    digest = hub.image(name, "1")
    hub.troubles[name] = silence
    began = time.monotonic()
    for path in ("manifests/1", f"manifests/{digest}", f"blobs/{hub.blob(name, b'layer')}", "tags/list"):
        for method in ("GET", "HEAD"):
            answer = mirror.request(method, f"/v2/{here}/{path}")
            assert answer.status == 503, path
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert method == "HEAD" or answer.code == "UNAVAILABLE"
    assert time.monotonic() - began < 12  # and not eight times as long as one question may take


def test_a_limit_of_the_rate_is_obeyed_and_told(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"trouble7.test/{name}"
    digest = hub.image(name, "1")
    hub.troubles[name] = refused(429, Retry_After="1000")
    for target in ("1", str(digest), "2", "1"):
        answer = get(mirror, here, target)
        assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
        assert 900 <= int(answer.headers["retry-after"]) <= 1000
    del hub.troubles[name]
    for _ in range(6):
        assert get(mirror, here, "1").status == 429
    assert len(hub.asked(name)) == 1  # one worker was told, and the other knows


@pytest.mark.long
def test_a_limit_ends(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"trouble8.test/{name}"
    hub.image(name, "1")
    hub.troubles[name] = refused(429, X_Retry_After=str(int(time.time()) + 2))
    assert get(mirror, here, "1").status == 429
    del hub.troubles[name]
    wait_until(lambda: get(mirror, here, "1").status == 200, what="the end of the limit")


def test_who_fails_and_says_for_how_long_is_believed(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"trouble16.test/{name}"
    hub.image(name, "1")
    hub.troubles[name] = refused(503, Retry_After="300")
    for _ in range(6):  # of both workers: one was told, and the other knows
        answer = get(mirror, here, "1")
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        assert 200 <= int(answer.headers["retry-after"]) <= 300
    assert len(hub.asked(name)) == 1


def test_a_limit_of_no_time_at_all(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"trouble17.test/{name}"
    hub.image(name, "1")
    hub.troubles[name] = refused(429, Retry_After="0")
    began = time.monotonic()
    for _ in range(20):
        answer = get(mirror, here, "1")
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert len(hub.asked(name)) <= 2 * (1 + time.monotonic() - began)


def test_where_nothing_may_be_stale(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"never-stale.test/{name}"
    digest = hub.image(name, "1")
    get(mirror, here, "1")
    hub.troubles[name] = refused(500)
    answer = get(mirror, here, "1")
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert get(mirror, here, str(digest)).status == 200


@pytest.mark.long
def test_one_upstream_that_does_not_answer_is_no_trouble_for_another(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    other = f"{name}-other"
    hub.image(other, "1")
    hub.troubles[name] = silence
    with pytest.raises(AssertionError):
        assert get(mirror, f"trouble9.test/{name}", "1").status == 200
    began = time.monotonic()
    assert get(mirror, f"asking2.test/{other}", "1").status == 200
    assert time.monotonic() - began < 6


def test_a_token_server_that_is_not_there(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    # What is wrong with a token server is told to who runs this registry, not to who pulls.
    hub.troubles[name] = refused(401, WWW_Authenticate='Bearer realm="http://127.0.0.1:1/token"')
    answer = get(mirror, f"trouble10.test/{name}", "1")
    assert answer.status == 503
    assert "127.0.0.1:1" not in answer.body.decode()
    assert "mirror trouble10.test: cannot reach 127.0.0.1:1" in mirror.log.read_text()
