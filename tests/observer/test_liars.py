"""Registries that say one thing and send another, that are slow, or that have many tags."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.client.liar import Reply, Request
from tests.observer.support import observing, spans
from tests.registry.pull_through.support import KIND, upstream
from tests.support import wait_until


@pytest.mark.long
def test_a_digest_that_is_not_there_is_no_observation(tmp_path: Path) -> None:
    """HEAD names it, GET sends another image: nobody knows where the tag points."""
    false = "sha256:" + "ab" * 32
    with upstream() as up, observing(tmp_path, up.url) as observer:
        first = up.image("own/app", "1.5")
        observer.wait_for("1.5", first)

        def lie(request: Request) -> Reply | None:
            if request.method != "HEAD" or not request.path.endswith("/1.5"):
                return None
            raw = up.manifests["own/app", str(first)]
            return Reply(200, raw, {"Content-Type": KIND, "Docker-Content-Digest": false})

        up.troubles["own/app"] = lie

        def failed() -> bool:
            return "names a digest that it does not have" in spans(observer, "1.5")[-1].get("reason", "")

        wait_until(failed, what="a failed observation", log=observer.server.log)
        del up.troubles["own/app"]
        wait_until(lambda: not failed(), what="seen again", log=observer.server.log)
        assert observer.moves("1.5") == [("created", str(first))]


@pytest.mark.long
def test_one_that_is_slow_keeps_the_moves_of_no_other_waiting(tmp_path: Path) -> None:
    with upstream() as slow, upstream() as fast:
        for number in range(70):
            slow.image("own/app", f"1.{number}", layer=b"%d" % number, annotations={"n": str(number)})

        def wait(request: Request) -> Reply | None:
            if "/referrers/" in request.path:
                time.sleep(3)
            return None

        slow.troubles["own/app"] = wait
        more = f'[observe-registry."fast.test"]\nurl = "{fast.url}"\n'
        more += '[observe."fast.test/own/app"]\nevery = "1s"\n'
        with observing(tmp_path, slow.url, more=more) as observer:

            def seen() -> bool:
                return len({one["tag"] for one in observer.entries()}) == 70

            wait_until(seen, what="all tags of the slow one", log=observer.server.log)
            fast.image("own/app", "2.0")
            line = "observed fast.test/own/app:2.0: created"
            wait_until(lambda: line in observer.server.log.read_text(), what=line, log=observer.server.log)
            told = observer.server.log.read_text().count("observed up.test/own/app")
            assert told < 70


@pytest.mark.long
def test_the_pages_of_a_list_are_asked_for_at_the_pace_of_all_requests(tmp_path: Path) -> None:
    asked: list[float] = []

    def pages(request: Request) -> Reply | None:
        if "/tags/list" not in request.path:
            return None
        number = int(request.query.get("last", ["0"])[0])
        if number == 0:
            asked.clear()
        asked.append(time.monotonic())
        link = {} if number == 5 else {"Link": f'</v2/own/app/tags/list?last={number + 1}>; rel="next"'}
        body = json.dumps({"name": "own/app", "tags": [f"t{number}"]}).encode()
        return Reply(200, body, {"Content-Type": "application/json", **link})

    with upstream() as up:
        up.troubles["own/app"] = pages
        with observing(tmp_path, up.url, 'every = "1h"', "[observe]\nrequests-per-second = 4\n") as observer:
            wait_until(lambda: len(asked) == 6, what="all pages", log=observer.server.log)
    assert asked[-1] - asked[0] > 0.8  # five gaps of at least 0.2 seconds
