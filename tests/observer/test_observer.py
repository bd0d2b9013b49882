"""An observer sees what moves in another registry, once and in order, while nobody pulls."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.client.liar import Reply, Request
from tests.fleet.support import SimulatedAgent
from tests.observer.support import Observing, observing, report, spans
from tests.registry.pull_through.support import KIND, Upstream
from tests.registry.webhook_receiver import SECRET, running_receiver
from tests.support import wait_until


def outcomes(observer: Observing, tag: str) -> list[str]:
    return [one["outcome"] for one in spans(observer, tag)]


def wait_for_failure(observer: Observing, tag: str, reason: str) -> None:
    def failed() -> bool:
        return any(reason in one.get("reason", "") for one in spans(observer, tag))

    wait_until(failed, what=f"a failed observation: {reason}", log=observer.server.log)


@pytest.mark.long
def test_moves_are_in_the_journal_once_and_in_order(up: Upstream, observer: Observing) -> None:
    first = up.image("own/app", "1.5", layer=b"one")
    observer.wait_for("1.5", first)
    second = up.image("own/app", "1.5", layer=b"two")
    observer.wait_for("1.5", first, second)
    up.tags["own/app", "1.5"] = str(first)
    observer.wait_for("1.5", first, second, first)
    del up.tags["own/app", "1.5"]
    observer.wait_for("1.5", first, second, first, None)
    up.tags["own/app", "1.5"] = str(second)
    observer.wait_for("1.5", first, second, first, None, second)
    entries = observer.entries("1.5")
    assert all(one["notBefore"] < one["at"] for one in entries[1:])
    assert {one["actor"] for one in entries} == {"mirror:up.test"}
    times = [one["notBefore"] for one in entries[1:]]
    assert times == sorted(set(times))

    def told() -> bool:
        found = report(observer)["moves"]
        return len(found) >= 4 and all("facts" in one for one in found)

    wait_until(told, what="the moves are told", log=observer.server.log)
    moves = [one for one in reversed(report(observer)["moves"]) if one["event"] != "created"]
    assert [one["event"] for one in moves] == ["moved", "moved", "deleted"]
    assert moves[1]["facts"]["concerns"] == ["moved-back"]


@pytest.mark.long
def test_an_upstream_that_is_away_leaves_a_gap(up: Upstream, observer: Observing) -> None:
    first = up.image("own/app", "1.5")
    observer.wait_for("1.5", first)
    # Not its blobs: a failed fetch of the content that is still under way would be the host's first failure.
    up.troubles["own/app"] = lambda request: Reply(503, b"") if "/manifests/" in request.path else None
    wait_for_failure(observer, "1.5", "503")
    del up.troubles["own/app"]
    wait_until(lambda: outcomes(observer, "1.5")[-1] == "seen", what="seen again", log=observer.server.log)
    assert outcomes(observer, "1.5")[0] == "seen"
    assert observer.moves("1.5") == [("created", str(first))]
    gaps = [one for one in report(observer)["gaps"] if one["tag"] == "1.5"]
    assert gaps
    assert all(one["since"] < one["until"] and "503" in one["reason"] for one in gaps)


@pytest.mark.long
def test_a_limit_is_obeyed(up: Upstream, observer: Observing) -> None:
    observer.wait_for("1.5", up.image("own/app", "1.5"))
    up.troubles["own/app"] = lambda _: Reply(429, b"", {"Retry-After": "3"})
    wait_for_failure(observer, "1.5", "rate-limited")
    asked = len(up.asked("own/app"))
    time.sleep(1.5)
    assert len(up.asked("own/app")) <= asked + 1
    del up.troubles["own/app"]
    wait_until(lambda: outcomes(observer, "1.5")[-1] == "seen", what="seen again", log=observer.server.log)


@pytest.mark.long
def test_a_digest_with_other_content_is_no_move(up: Upstream, observer: Observing) -> None:
    first = up.image("own/app", "1.5")
    observer.wait_for("1.5", first)
    claimed = Digest.of(b"something else")

    def lie(request: Request) -> Reply | None:
        if "/manifests/" not in request.path:
            return None
        raw = up.manifests["own/app", str(first)]
        size = {"Content-Length": str(len(raw))} if request.method == "HEAD" else {}
        return Reply(200, raw, {"Content-Type": KIND, "Docker-Content-Digest": str(claimed), **size})

    up.troubles["own/app"] = lie
    wait_for_failure(observer, "1.5", "sends other content")
    del up.troubles["own/app"]
    wait_until(lambda: outcomes(observer, "1.5")[-1] == "seen", what="seen again", log=observer.server.log)
    assert observer.moves("1.5") == [("created", str(first))]


@pytest.mark.long
def test_a_page_for_people_is_no_answer(up: Upstream, observer: Observing) -> None:
    first = up.image("own/app", "1.5")
    observer.wait_for("1.5", first)
    up.troubles["own/app"] = lambda _: Reply(200, b"<html>log in</html>", {"Content-Type": "text/html"})
    wait_for_failure(observer, "1.5", "no manifest")
    assert observer.moves("1.5") == [("created", str(first))]


@pytest.mark.long
def test_a_404_from_something_else_is_not_believed(up: Upstream, observer: Observing) -> None:
    first = up.image("own/app", "1.5")
    observer.wait_for("1.5", first)
    up.troubles["own/app"] = lambda _: Reply(404, b"<html>not here</html>", {"Content-Type": "text/html"})
    wait_for_failure(observer, "1.5", "404")
    assert observer.moves("1.5") == [("created", str(first))]


@pytest.mark.long
def test_without_a_digest_a_get_is_conditional(up: Upstream, observer: Observing) -> None:
    validated: list[str] = []

    def without_digest(request: Request) -> Reply | None:
        tag = request.path.rpartition("/")[2]
        digest = up.tags.get(("own/app", tag))
        if "/manifests/" not in request.path or digest is None:
            return None
        raw = up.manifests["own/app", digest]
        etag = f'"{digest[-8:]}"'
        if request.method == "GET" and request.headers.get("If-None-Match") == etag:
            validated.append(tag)
            return Reply(304, b"", {"ETag": etag})
        return Reply(200, raw, {"Content-Type": KIND, "ETag": etag})

    up.troubles["own/app"] = without_digest
    first = up.image("own/app", "1.5", layer=b"one")
    observer.wait_for("1.5", first)
    wait_until(lambda: len(validated) >= 2, what="conditional requests", log=observer.server.log)
    second = up.image("own/app", "1.5", layer=b"two")
    observer.wait_for("1.5", first, second)
    assert spans(observer, "1.5")[0]["count"] >= 2


@pytest.mark.long
def test_the_manifests_of_an_old_image_are_still_here(up: Upstream, observer: Observing) -> None:
    """Its registry has dropped it, and of an index each platform is here."""
    child = up.image("own/app")
    listed = {
        "mediaType": KIND,
        "digest": str(child),
        "size": len(up.manifests["own/app", str(child)]),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    kind = "application/vnd.oci.image.index.v1+json"
    first = up.manifest("own/app", {"schemaVersion": 2, "mediaType": kind, "manifests": [listed]}, "1.5")
    observer.wait_for("1.5", first)
    here = f"/v2/{observer.name}/manifests/"
    wait_until(
        lambda: observer.server.request("GET", f"{here}{child}").status == 200,
        what="the child is fetched",
        log=observer.server.log,
    )
    second = up.image("own/app", "1.5", layer=b"two")
    del up.manifests["own/app", str(first)]
    del up.manifests["own/app", str(child)]
    observer.wait_for("1.5", first, second)
    assert observer.server.request("GET", f"{here}{first}").status == 200
    wait_until(lambda: "facts" in report(observer)["moves"][0], what="facts", log=observer.server.log)
    facts = report(observer)["moves"][0]["facts"]
    assert "kind-changed" in facts["concerns"]
    assert facts.get("unknown", []) == []


@pytest.mark.long
def test_new_tags_were_absent_before_and_a_vanished_one_is_deleted(up: Upstream, observer: Observing) -> None:
    first = up.image("own/app", "1.0")
    observer.wait_for("1.0", first)
    time.sleep(1.5)
    up.tags["own/app", "2.0"] = str(first)
    observer.wait_for("2.0", first)
    (made,) = observer.entries("2.0")
    assert made["notBefore"] < made["at"]
    del up.tags["own/app", "2.0"]
    observer.wait_for("2.0", first, None)
    wait_until(
        lambda: report(observer)["repositories"][0]["tags"] == 1,
        what="it is forgotten",
        log=observer.server.log,
    )


def test_clients_do_not_push_to_what_is_observed(observer: Observing) -> None:
    raw = json.dumps({"schemaVersion": 2}).encode()
    answer = observer.server.request("PUT", f"/v2/{observer.name}/manifests/1.5", raw, {"Content-Type": KIND})
    assert answer.status == 405


@pytest.mark.long
def test_all_content_is_kept(up: Upstream, tmp_path: Path) -> None:
    first = up.image("own/app", "1.5", layer=b"the old layer")
    with observing(tmp_path, up.url, 'every = "1s"\nkeep = true\ntags = "1.*"') as observer:
        observer.wait_for("1.5", first)
        layer = f"/v2/{observer.name}/blobs/{Digest.of(b'the old layer')}"
        wait_until(
            lambda: observer.server.request("GET", layer).body == b"the old layer",
            what="the layer is fetched",
            log=observer.server.log,
        )
        up.image("own/app", "latest")
        second = up.image("own/app", "1.5", layer=b"the new layer")
        up.blobs.clear()
        observer.wait_for("1.5", first, second)
        assert observer.server.request("GET", layer).body == b"the old layer"
        assert observer.moves("latest") == []


@pytest.mark.long
def test_who_runs_the_old_image_is_told(up: Upstream, observer: Observing) -> None:
    """Under the name that its own registry has."""
    first = up.image("own/app", "1.5", layer=b"one")
    observer.wait_for("1.5", first)
    SimulatedAgent(observer.server, "h1").start({"c1": f"up.test/own/app:1.5@{first}"})
    second = up.image("own/app", "1.5", layer=b"two")
    observer.wait_for("1.5", first, second)
    (move,) = [one for one in report(observer)["moves"] if one["event"] == "moved"]
    assert [(one["place"], one["containers"]) for one in move["runningBefore"]] == [("h1", 1)]
    assert "runningAfter" not in move


@pytest.mark.long
def test_a_signature_that_went(up: Upstream, observer: Observing) -> None:
    first = up.image("own/app", "1.5.2", layer=b"one")
    up.image("own/app", f"sha256-{first.encoded}.sig", layer=b"signature")
    observer.wait_for("1.5.2", first)

    def known() -> bool:
        found = observer.server.log.read_text()
        return f"{observer.name}:1.5.2: created" in found

    wait_until(known, what="the first look", log=observer.server.log)
    second = up.image("own/app", "1.5.2", layer=b"two")
    observer.wait_for("1.5.2", first, second)

    def move() -> dict[str, object]:
        found = [one for one in report(observer)["moves"] if one["tag"] == "1.5.2"]
        return dict(found[0].get("facts", {})) if found else {}

    wait_until(lambda: bool(move()), what="facts", log=observer.server.log)
    assert move()["attachmentsLost"] == ["cosign signature"]
    assert move()["concerns"] == ["version-tag-moved", "attachments-lost"]


@pytest.mark.long
def test_a_webhook_hears_of_a_move_once(up: Upstream, tmp_path: Path) -> None:
    first = up.image("own/app", "1.5.2", layer=b"one")
    with running_receiver() as receiver:
        hook = (
            f'[[webhook]]\nname = "h"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n'
            'events = ["upstream-moved", "moved"]\n'
        )
        with observing(tmp_path, up.url, more=hook) as observer:
            observer.wait_for("1.5.2", first)
            second = up.image("own/app", "1.5.2", layer=b"two")
            observer.wait_for("1.5.2", first, second)
            wait_until(lambda: len(receiver.taken) >= 2, what="both events", log=observer.server.log)
            kinds = {one["type"]: one for one in receiver.taken}
            assert set(kinds) == {"digestry.tag.moved.v1", "digestry.observe.upstream-moved.v1"}
            told = kinds["digestry.observe.upstream-moved.v1"]
            assert told["subject"] == "up.test/own/app:1.5.2"
            assert told["data"]["toDigest"] == str(second)
            assert "version-tag-moved" in told["data"]["facts"]["concerns"]
