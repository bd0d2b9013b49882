"""A cluster that is audited again and again: listed once, and then watched, and never shown as it was."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.inventory.gathering import TimeLimitedSource, keep
from digestry.inventory.kube import informer as kube_follow
from digestry.inventory.observation import Note, Observation
from digestry.inventory.sources.kubernetes import KubernetesSource, Where
from tests.inventory.kube import (
    TOKEN,
    Answer,
    Asked,
    Cluster,
    Handler,
    Papers,
    bookmark,
    kubeconfig,
    make_papers,
    problems,
    rows,
    running_cluster,
    status,
    tell,
)
from tests.inventory.test_pods import running

pytestmark = pytest.mark.peer("openssl")

PODS = "/api/v1/pods"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def cluster(papers: Papers) -> Iterator[Cluster]:
    with running_cluster(papers.server) as server:
        for name in ("a", "b"):
            server.change("ADDED", pod(name))
        yield server


@pytest.fixture
def environment(cluster: Cluster, papers: Papers, tmp_path: Path) -> dict[str, str]:
    user = {"server": cluster.url, "certificate-authority-data": papers.data("ca.pem")}
    return kubeconfig(tmp_path / "config", user)


@pytest.fixture
def source(environment: dict[str, str]) -> KubernetesSource:
    return kept(environment)


def kept(environment: dict[str, str], where: str = "", **options: Any) -> KubernetesSource:
    options = {"timeout": 2.0} | options
    made = KubernetesSource("kubernetes", Where.parse(where), environment=environment, **options)
    keep([TimeLimitedSource(made, label="prod")])
    return made


def pod(name: str, image: str = "app:1", *, uid: str = "", **more: Any) -> dict[str, Any]:
    made = running(image, **more)
    made["metadata"] = {"name": name, "namespace": "n", "uid": uid or f"uid-{name}"}
    return made


def names(seen: list[Observation]) -> list[str]:
    return sorted(name.partition("/")[0] for name in rows(seen))


def said(seen: list[Observation]) -> list[str]:
    """What is said beside the rows, whatever it is called."""
    return [one.message for one in seen if isinstance(one, Note)] + [one.message for one in problems(seen)]


def lists(cluster: Cluster) -> int:
    """How often all pods were asked for: not one of them, and no watch."""
    return sum(
        one.path.endswith("/pods") and "watch" not in one.query and one.query.get("limit") != "1"
        for one in cluster.asked
    )


def event(kind: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "object": value}


def versioned(value: dict[str, Any], version: int) -> dict[str, Any]:
    return {"kind": "Pod", **value, "metadata": {**value["metadata"], "resourceVersion": str(version)}}


# -- what a round sees --------------------------------------------------------------------------


def test_pods_are_listed_once_and_then_watched(cluster: Cluster, source: KubernetesSource) -> None:
    assert names(list(source.observe())) == ["a", "b"]
    began = cluster.version
    cluster.change("ADDED", pod("c"))
    cluster.change("MODIFIED", pod("a", "app:2"))
    cluster.change("DELETED", pod("b"))
    seen = list(source.observe())
    assert said(seen) == []
    assert {name: row.image.reference for name, row in rows(seen).items()} == {"a/c": "app:2", "c/c": "app:1"}
    assert lists(cluster) == 1
    [watch] = cluster.watched()
    assert watch.query["resourceVersion"] == str(began)
    assert watch.query["allowWatchBookmarks"] == "true"
    assert int(watch.query["timeoutSeconds"]) > 0


def test_an_audit_that_runs_once_watches_nothing(cluster: Cluster, environment: dict[str, str]) -> None:
    once = KubernetesSource("kubernetes", Where(), environment=environment)
    assert names(list(once.observe())) == names(list(once.observe())) == ["a", "b"]
    assert cluster.watched() == []
    assert lists(cluster) == 2


def test_a_watch_begins_where_a_bookmark_was(cluster: Cluster, source: KubernetesSource) -> None:
    list(source.observe())
    cluster.version += 50  # something else happened
    list(source.observe())
    cluster.version += 50
    list(source.observe())
    assert [one.query["resourceVersion"] for one in cluster.watched()] == ["102", "152"]


def test_where_nothing_happened_nothing_is_watched(cluster: Cluster, source: KubernetesSource) -> None:
    for _ in range(4):
        seen = list(source.observe())
        assert (names(seen), said(seen)) == (["a", "b"], [])
    assert len(cluster.watched()) == 1  # which showed that it may
    cluster.lists[PODS].pop()  # a version that stays though something changed is not believed
    seen = list(source.observe())
    assert names(seen) == ["a"]
    assert "the list has 1" in said(seen)[0]
    assert lists(cluster) == 2


def test_a_pod_that_came_and_went_and_one_that_came_again(cluster: Cluster, source: KubernetesSource) -> None:
    list(source.observe())
    cluster.change("ADDED", pod("brief"))
    cluster.change("DELETED", pod("brief"))
    cluster.change("DELETED", pod("a"))
    cluster.change("ADDED", pod("a", "app:2", uid="another"))
    seen = list(source.observe())
    assert names(seen) == ["a", "b"]
    assert rows(seen)["a/c"].image.reference == "app:2"


def test_some_namespaces_and_a_selector(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.lists[PODS].append({**pod("far"), "metadata": {"name": "far", "namespace": "m", "uid": "f"}})
    cluster.forgotten = 0
    some = kept(environment, "?namespace=n,m&selector=app%3Dx")
    list(some.observe())
    list(some.observe())
    watched = {one.path: one.query.get("labelSelector") for one in cluster.watched()}
    assert watched == {"/api/v1/namespaces/n/pods": "app=x", "/api/v1/namespaces/m/pods": "app=x"}


@pytest.mark.long
def test_a_round_has_few_requests_and_little_to_read(
    cluster: Cluster, source: KubernetesSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.page = 50
    for number in range(300):
        cluster.change("ADDED", pod(f"p{number:03}"))
    list(source.observe())
    listed = len([one for one in cluster.asked if one.path == PODS])
    cluster.asked.clear()
    assert len(names(list(source.observe()))) == 302
    assert listed == 7
    assert len([one for one in cluster.asked if one.path == PODS]) == 2  # the present version, and a watch


# -- what must not pass for the present ---------------------------------------------------------


def forget(cluster: Cluster, source: KubernetesSource) -> None:
    """The next watch begins at what the server has forgotten."""
    cluster.change("ADDED", pod("c"))
    cluster.forgotten = cluster.version


def refuse(code: int, message: str = "no") -> Answer:
    def answer(handler: Handler, asked: Asked) -> None:
        handler.say(code, status(code, message))

    return answer


def failing(code: int, message: str = "no") -> Answer:
    def answer(handler: Handler, asked: Asked) -> None:
        handler.stream(event("ERROR", status(code, message)))
        handler.end()

    return answer


@pytest.mark.parametrize("gone", [refuse(410), failing(410)], ids=["status", "event"])
def test_what_the_server_has_forgotten_is_listed_anew(
    cluster: Cluster, source: KubernetesSource, gone: Answer
) -> None:
    list(source.observe())
    cluster.change("ADDED", pod("c"))
    cluster.watches.append(gone)
    seen = list(source.observe())
    assert (names(seen), said(seen), lists(cluster)) == (["a", "b", "c"], [], 2)
    cluster.change("DELETED", pod("a"))
    assert names(list(source.observe())) == ["b", "c"]
    assert lists(cluster) == 2  # and watched again from there


def cut(handler: Handler, asked: Asked) -> None:
    """The connection ends in the middle of a line, after one that is whole."""
    [first, *_] = [one for version, one in handler.server.cluster.events if version > 102]
    handler.stream(first, json.dumps(event("ADDED", pod("half"))).encode()[:40])
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_with_an_end(handler: Handler, asked: Asked) -> None:
    [first, *_] = [one for version, one in handler.server.cluster.events if version > 102]
    handler.stream(first, json.dumps(event("ADDED", pod("half"))).encode()[:40])
    handler.end()


def cut_without_length(handler: Handler, asked: Asked) -> None:
    """As servers of HTTP/1.0 answer: the end of the connection is the end of the answer."""
    handler.send_response(200)
    handler.end_headers()
    [first, *_] = [one for version, one in handler.server.cluster.events if version > 102]
    handler.wfile.write(json.dumps(first).encode() + b"\n" + b'{"type":"ADDED","obj')
    handler.close_connection = True


@pytest.mark.parametrize("broken", [cut, cut_with_an_end, cut_without_length])
def test_a_watch_that_breaks_off_goes_on_after_the_last_whole_line(
    cluster: Cluster, source: KubernetesSource, broken: Answer
) -> None:
    list(source.observe())
    cluster.change("ADDED", pod("c"))
    cluster.change("ADDED", pod("d"))
    cluster.watches.append(broken)
    seen = list(source.observe())
    assert (names(seen), said(seen), lists(cluster)) == (["a", "b", "c", "d"], [], 1)
    assert [one.query["resourceVersion"] for one in cluster.watched()] == ["102", "103"]


@pytest.mark.parametrize("busy", [refuse(429), refuse(503), refuse(500), failing(500), failing(504)])
def test_a_busy_server_is_asked_again(cluster: Cluster, source: KubernetesSource, busy: Answer) -> None:
    list(source.observe())
    cluster.change("ADDED", pod("c"))
    cluster.watches.append(busy)
    seen = list(source.observe())
    assert (names(seen), said(seen), lists(cluster)) == (["a", "b", "c"], [], 1)
    assert len(cluster.watched()) == 2


@pytest.mark.long
def test_retry_after_is_waited_for(cluster: Cluster, source: KubernetesSource) -> None:
    list(source.observe())

    def wait(handler: Handler, asked: Asked) -> None:
        handler.say(429, status(429, "later"), Retry_After="2")

    cluster.watches.append(wait)
    begun = time.monotonic()
    assert said(list(source.observe())) == []
    assert time.monotonic() - begun >= 2


def test_one_that_ends_at_once_again_and_again_is_not_believed(
    cluster: Cluster, source: KubernetesSource
) -> None:
    list(source.observe())
    cluster.change("ADDED", pod("c"))

    def end(handler: Handler, asked: Asked) -> None:
        handler.stream()
        handler.end()

    cluster.watches += [end] * 9
    seen = list(source.observe())
    assert names(seen) == ["a", "b", "c"]
    assert "ends at once" in said(seen)[0]


def silent(handler: Handler, asked: Asked) -> None:
    handler.stream()
    time.sleep(30)


def mute(handler: Handler, asked: Asked) -> None:
    """It does not even say that it heard."""
    time.sleep(30)


def drip(handler: Handler, asked: Asked) -> None:
    handler.stream()
    for _ in range(100):
        handler.more(b" ")
        time.sleep(0.3)


@pytest.mark.long
@pytest.mark.parametrize("ill", [silent, mute, drip])
def test_one_that_falls_silent_is_not_believed(
    cluster: Cluster, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, ill: Answer
) -> None:
    monkeypatch.setattr(kube_follow, "SECONDS", 1)
    source = kept(environment, timeout=1.0)
    list(source.observe())
    cluster.change("ADDED", pod("c"))
    cluster.watches += [ill] * 3
    begun = time.monotonic()
    seen = list(source.observe())
    assert time.monotonic() - begun < 20
    assert names(seen) == ["a", "b", "c"]
    assert "fell silent" in said(seen)[0]
    assert lists(cluster) == 2


def test_a_silent_watch_before_a_dead_server_shows_nothing(
    cluster: Cluster, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known in the round before is not what is true now."""
    source = kept(environment, timeout=1.0)
    list(source.observe())

    def die(handler: Handler, asked: Asked) -> None:
        cluster.answers[PODS] = refuse(500, "etcd is away")
        handler.connection.shutdown(socket.SHUT_RDWR)

    cluster.watches += [die] * 3
    for _ in range(2):
        seen = list(source.observe())
        assert rows(seen) == {}
        assert "etcd is away" in problems(seen)[0].message
    cluster.answers.clear()
    cluster.change("ADDED", pod("c"))
    seen = list(source.observe())
    assert (names(seen), said(seen)) == (["a", "b", "c"], [])


ODD: dict[str, Any] = {
    "unknown type": event("RENAMED", versioned(pod("c"), 103)),
    "no type": {"object": versioned(pod("c"), 103)},
    "type of no words": event(["ADDED"], versioned(pod("c"), 103)),  # type: ignore[arg-type]
    "a list": {"kind": "PodList", "items": [pod("c")]},
    "no object": {"type": "ADDED"},
    "null": event("ADDED", None),
    "no name": event("ADDED", {"kind": "Pod", "metadata": {"resourceVersion": "103"}}),
    "no version": event("ADDED", {**pod("c"), "kind": "Pod"}),
    "another kind": event("ADDED", versioned(pod("c"), 103) | {"kind": "Secret"}),
    "a status": event("ADDED", status(500, "no")),
    "an error without a code": event("ERROR", {"message": "no"}),
    "a bookmark of nothing": event("BOOKMARK", {}),
    "a number": 7,
    "not JSON": b"<html>\n",
    "cut in the middle, and on": b'{"type":"ADDED","object":{"meta\n',
    "deep": b"[" * 100_000 + b"\n",
    "not UTF-8": b'{"type":"\xff"}\n',
    "the end of another": event("DELETED", versioned(pod("a", uid="another"), 103)),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_what_is_not_understood_is_said_and_listed(
    cluster: Cluster, source: KubernetesSource, odd: Any
) -> None:
    list(source.observe())
    cluster.change("ADDED", pod("c"))

    def answer(handler: Handler, asked: Asked) -> None:
        handler.stream(odd, bookmark(cluster.version))
        handler.end()

    cluster.watches.append(answer)
    seen = list(source.observe())
    assert names(seen) == ["a", "b", "c"]
    [problem] = problems(seen)
    assert "watch" in problem.message
    assert problems(list(source.observe())) == []


def test_a_line_without_an_end_is_not_read_on(
    cluster: Cluster, source: KubernetesSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digestry.inventory.kube.watch.LONGEST_LINE", 4096)
    list(source.observe())

    def answer(handler: Handler, asked: Asked) -> None:
        handler.stream(b" " * 4000, b" " * 4000)
        time.sleep(5)

    cluster.watches.append(answer)
    seen = list(source.observe())
    assert names(seen) == ["a", "b"]
    assert "does not end" in said(seen)[0]


def test_who_may_list_and_not_watch_lists_and_is_told_so_once(
    cluster: Cluster, source: KubernetesSource
) -> None:
    list(source.observe())
    cluster.change("ADDED", pod("c"))
    cluster.watches.append(refuse(403, "pods is forbidden"))
    seen = list(source.observe())
    assert problems(seen) == []
    assert '"watch" on "pods" (403)' in said(seen)[0]
    assert names(seen) == ["a", "b", "c"]
    cluster.change("ADDED", pod("d"))
    seen = list(source.observe())
    assert (names(seen), said(seen)) == (["a", "b", "c", "d"], [])
    assert len(cluster.watched()) == 1


def test_who_may_not_list_any_more_sees_nothing(cluster: Cluster, source: KubernetesSource) -> None:
    list(source.observe())
    cluster.forbidden.add(PODS)
    seen = list(source.observe())
    assert rows(seen) == {}
    assert any('"list" on "pods" (403)' in one.message for one in problems(seen))


def test_a_token_that_was_replaced_is_read_again(cluster: Cluster, papers: Papers, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    server = {"server": cluster.url, "certificate-authority-data": papers.data("ca.pem")}
    source = kept(kubeconfig(tmp_path / "config", server, {"tokenFile": "token"}))
    list(source.observe())
    cluster.change("ADDED", pod("c"))

    def replace(handler: Handler, asked: Asked) -> None:
        token.write_text("newer")
        cluster.users = {"Bearer newer"}
        handler.say(401, status(401, "Unauthorized"))

    cluster.watches.append(replace)
    seen = list(source.observe())
    assert (names(seen), said(seen), lists(cluster)) == (["a", "b", "c"], [], 1)
    assert [one.headers["Authorization"] for one in cluster.watched()] == [f"Bearer {TOKEN}", "Bearer newer"]


def test_a_token_that_is_refused_for_good(cluster: Cluster, source: KubernetesSource) -> None:
    list(source.observe())
    cluster.users.clear()
    seen = list(source.observe())
    assert rows(seen) == {}
    assert ["does not accept the user" in one.message for one in problems(seen)] == [True]


def lost(cluster: Cluster) -> None:
    cluster.change("ADDED", pod("c"), lose=True)


def lost_end(cluster: Cluster) -> None:
    cluster.change("DELETED", pod("a"), lose=True)


@pytest.mark.parametrize("lose", [lost, lost_end])
def test_a_watch_that_kept_something_back_is_found_out_by_the_number(
    cluster: Cluster, source: KubernetesSource, lose: Callable[[Cluster], None]
) -> None:
    list(source.observe())
    lose(cluster)
    seen = list(source.observe())
    assert names(seen) == sorted(one["metadata"]["name"] for one in cluster.lists[PODS])
    assert "the list has" in said(seen)[0]


def test_a_server_that_was_set_up_anew_is_listed_anew(cluster: Cluster, source: KubernetesSource) -> None:
    list(source.observe())
    cluster.lists[PODS], cluster.events, cluster.version = [pod("new")], [], 7
    seen = list(source.observe())
    assert (names(seen), said(seen), lists(cluster)) == (["new"], [], 2)


def test_another_cluster_under_the_same_name_is_listed_anew(
    cluster: Cluster, source: KubernetesSource, papers: Papers, tmp_path: Path
) -> None:
    list(source.observe())
    with running_cluster(papers.server) as other:
        other.change("ADDED", pod("elsewhere"))
        other.version = cluster.version
        server = {"server": other.url, "certificate-authority-data": papers.data("ca.pem")}
        kubeconfig(tmp_path / "config", server)
        assert names(list(source.observe())) == ["elsewhere"]
        assert other.watched() == []


def test_a_list_without_a_version_is_listed_each_time(cluster: Cluster, source: KubernetesSource) -> None:
    def bare(handler: Handler, asked: Asked) -> None:
        handler.say(200, {"kind": "PodList", "metadata": {}, "items": cluster.lists[PODS]})

    cluster.answers[PODS] = bare
    for _ in range(2):
        assert names(list(source.observe())) == ["a", "b"]
    assert cluster.watched() == []


def test_a_pod_without_a_name_is_said_in_each_round(cluster: Cluster, source: KubernetesSource) -> None:
    cluster.lists[PODS].append({"metadata": {"namespace": "n"}})
    for _ in range(2):
        seen = list(source.observe())
        assert names(seen) == ["a", "b"]
        assert "not a pod with a name" in problems(seen)[0].message


@pytest.mark.long
def test_versions_that_are_no_numbers_are_waited_out(
    cluster: Cluster, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing tells that all was said but the end of the watch's own time."""
    monkeypatch.setattr(kube_follow, "SECONDS", 1)
    source = kept(environment)

    def listed(handler: Handler, asked: Asked) -> None:
        if "watch" in asked.query:
            assert asked.query["resourceVersion"] == "one"
            handler.stream(event("ADDED", {"kind": "Pod", **pod("c"), "metadata": {
                "name": "c", "namespace": "n", "resourceVersion": "two"}}))  # fmt: skip
            time.sleep(1)
            handler.end()
            return
        handler.say(200, {"metadata": {"resourceVersion": "one"}, "items": cluster.lists[PODS]})

    cluster.answers[PODS] = listed
    list(source.observe())
    seen = list(source.observe())
    assert (names(seen), said(seen)) == (["a", "b", "c"], [])


def test_a_round_that_begins_while_one_still_runs(source: KubernetesSource) -> None:
    still = source.observe()
    next(still)
    [problem] = list(source.observe())
    assert "has not answered the request of the round before" in getattr(problem, "message", "")
    list(still)
    assert names(list(source.observe())) == ["a", "b"]


def test_what_is_true_is_told_by_the_stand_in(cluster: Cluster, source: KubernetesSource) -> None:
    """A watch of a server that has forgotten where it began, by the stand-in's own word."""
    list(source.observe())
    forget(cluster, source)
    cluster.watches.append(tell)
    assert names(list(source.observe())) == ["a", "b", "c"]
    assert lists(cluster) == 2
