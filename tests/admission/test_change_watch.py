"""Which remembered answers are asked for again, by what a registry says changed."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from digestry.admission.change_watch import EVERYTHING_SECONDS, ChangeWatch
from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.inquiry import parse_image
from digestry.errors import Unreachable
from digestry.model.changes import Changes
from tests.admission.support import pod, review, running_webhook
from tests.support import run_digestry, running_registry, wait_until

AT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def known(image: str, **more: Any) -> ImageKnowledge:
    found = ImageKnowledge(image, parse_image(image), AT, assessment="not_assessed", own=True)
    return replace(found, **more)


class Feed:
    """A registry that says what changed, and notes the tokens that it gets."""

    def __init__(self) -> None:
        self.answer: Changes | Exception | None = Changes("t1", everything=True)
        self.tokens: list[str] = []
        self.now = 1000.0

    def __call__(self, _: str, token: str) -> Changes | None:
        self.tokens.append(token)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def watch(feed: Feed) -> ChangeWatch:
    """A watch that has looked once."""
    watch = ChangeWatch(feed, lambda: feed.now)
    images = {"r.example/a:1": known("r.example/a:1")}
    look = watch.look("r.example", images)
    assert look.suspected == ["r.example/a:1"]
    watch.settle("r.example", look)
    return watch


IMAGES = {
    "r.example/a:1": known("r.example/a:1"),
    "r.example/b:1": known("r.example/b:1"),
    "r.example/c:1": known("r.example/c:1", assessment="unknown"),
    "r.example/d:1": known("r.example/d:1", age_unknown="it failed"),
    "r.example/e:1": known("r.example/e:1", behind="its upstream is away"),
    "r.example/f:1": known("r.example/f:1", own=False),
}
UNSURE = ["r.example/c:1", "r.example/d:1", "r.example/e:1", "r.example/f:1"]


def test_images_of_changed_repositories_and_those_not_known_are_asked_about(
    feed: Feed, watch: ChangeWatch
) -> None:
    feed.answer = Changes("t2", ("b", "other"))
    look = watch.look("r.example", IMAGES)
    assert look.suspected == ["r.example/b:1", *UNSURE]
    assert look.unchanged == ("r.example/a:1",)
    # Not answered: the same token again.
    watch.look("r.example", IMAGES)
    watch.settle("r.example", look)
    feed.answer = Changes("t3")
    assert watch.look("r.example", IMAGES).suspected == UNSURE
    assert feed.tokens == ["", "t1", "t1", "t2"]


@pytest.mark.parametrize(
    "answer", [Changes("t", parts=True), Changes("t", everything=True), None, Unreachable("away")]
)
def test_whatever_is_not_known_is_everything(
    feed: Feed, watch: ChangeWatch, answer: Changes | Exception | None
) -> None:
    feed.answer = answer
    look = watch.look("r.example", IMAGES)
    assert look.suspected == list(IMAGES)
    assert look.unchanged == ()


def test_now_and_then_it_is_everything(feed: Feed, watch: ChangeWatch) -> None:
    feed.answer = Changes("t2")
    feed.now += EVERYTHING_SECONDS
    look = watch.look("r.example", IMAGES)
    assert look.suspected == list(IMAGES)
    watch.settle("r.example", look)
    assert watch.look("r.example", IMAGES).suspected == UNSURE


@pytest.mark.long
def test_an_idle_webhook_asks_what_changed_and_hears_of_it(tmp_path: Path) -> None:
    with running_registry() as own:
        images = []
        for number in range(5):
            digest = own.push_image(f"idle/app{number}", "1", b"idle %d" % number)
            images.append(f"{own.host}/idle/app{number}:1@{digest}")
        policy = f'registries = ["{own.host}"]\n[answers]\nrefresh = "200ms"\n'
        with running_webhook(tmp_path, policy) as webhook:

            def counted(route: str) -> int:
                lines = own.request("GET", "/metrics").body.decode().splitlines()
                mine = [one for one in lines if one.startswith("digestry_requests_total{")]
                return sum(int(float(one.split()[-1])) for one in mine if f'route="{route}"' in one)

            assert webhook.ask(review(pod(*images)))["allowed"]

            def idle() -> bool:
                """Whether no image was asked about in five looks at what changed."""
                asked, looked = counted("resolve"), counted("changes")
                wait_until(lambda: counted("changes") >= looked + 5, what="questions", log=webhook.log)
                return counted("resolve") == asked

            # What was pushed a moment ago may change, for half a minute.
            wait_until(idle, what="an idle webhook", log=webhook.log)
            words = ("advisory", "add", images[3], "--status", "affected", "--id", "CVE-2026-9")
            assert run_digestry(*words).returncode == 0
            wait_until(
                lambda: not webhook.ask(review(pod(images[3])))["allowed"],
                what="the advisory",
                log=webhook.log,
            )
            own.push_image("idle/app1", "1", b"idle moved")
            tag = images[1].partition("@")[0]
            wait_until(
                lambda: "moved" in str(webhook.ask(review(pod(tag))).get("warnings")),
                what="the move",
                log=webhook.log,
            )
