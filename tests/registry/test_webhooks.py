"""Webhooks: every event arrives, whatever the receiver and the server do in between."""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.catalog.catalog import Catalog
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.tag_moves import TagRefused
from digestry.catalog.tag_policy import TagPolicy, TagRule
from digestry.cli import exit_codes
from digestry.coordination.files import FileCoordination
from digestry.coordination.protocol import FencedLock, Job
from digestry.errors import Conflict, InvalidConfiguration
from digestry.registry.config import load
from digestry.registry.webhook_dispatcher import Sender, WebhookDispatcher, delay
from digestry.registry.webhooks import Webhook
from tests.backends import open_catalog, open_coordination
from tests.catalog.support import pushed
from tests.registry.support import events
from tests.registry.webhook_receiver import SECRET, Handler, Receiver, running_receiver
from tests.support import PATIENCE, RegistryServer, run_digestry, start_registry, wait_until


def answering(status: int, times: int = 10**9, **headers: str) -> Callable[[Any, int], bool]:
    """Answers ``status`` to the first ``times`` messages."""

    def behave(handler: Handler, number: int) -> bool:
        if number <= times:
            handler.answer(status, **headers)
        return number <= times

    return behave


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as server:
        yield server


@pytest.fixture
def deliver(tmp_path: Path) -> Iterator[Callable[..., Catalog]]:
    """A catalog, and a dispatcher that brings its events to a webhook."""
    couriers: list[WebhookDispatcher] = []
    catalogs: list[Catalog] = []

    def deliver(*webhooks: Webhook) -> Catalog:
        catalog = open_catalog(tmp_path, subscriptions=tuple(webhook.subscription for webhook in webhooks))
        catalog.migrate()
        dispatcher = WebhookDispatcher(open_coordination(tmp_path), catalog.delivery_queue, webhooks)
        catalogs.append(catalog)
        couriers.append(dispatcher)
        dispatcher.start()
        return catalog

    yield deliver
    for dispatcher in couriers:
        dispatcher.stop()
    for catalog in catalogs:
        catalog.close()


def hook(receiver: Receiver, name: str = "h", **more: Any) -> Webhook:
    return Webhook(name, receiver.url, SECRET.encode(), **more)


def arrived(receiver: Receiver, count: int) -> None:
    wait_until(lambda: len(set(receiver.ids())) >= count, what=f"the arrival of {count}")


def settled(catalog: Catalog) -> None:
    wait_until(lambda: not catalog.delivery_queue.listed(limit=1), what="an empty queue")


def test_a_message(receiver: Receiver, deliver: Callable[..., Catalog]) -> None:
    catalog = deliver(hook(receiver, source="https://registry.example.com"))
    manifest = pushed(catalog, "team/app", ["1.5"])
    arrived(receiver, 1)
    (entry,) = catalog.journal("team/app", limit=1)
    (message,) = receiver.taken
    assert message["specversion"] == "1.0"
    assert message["id"] == "1"
    assert message["source"] == "https://registry.example.com/v2/team/app"
    assert message["type"] == "digestry.tag.created.v1"
    assert message["subject"] == "1.5"
    assert datetime.datetime.fromisoformat(message["time"]) == entry.at
    assert message["datacontenttype"] == "application/json"
    assert message["data"]["toDigest"] == str(manifest.digest)
    assert (message["data"]["hash"], message["data"]["actor"]) == (entry.hash, "tester")
    assert message["path"] == "/hook?x=1"
    settled(catalog)


def test_only_what_is_wanted(receiver: Receiver, deliver: Callable[..., Catalog]) -> None:
    catalog = deliver(hook(receiver, repositories=("team/*",), events=frozenset(("moved",))))
    for name in ("team/a", "other", "team/a/b"):
        pushed(catalog, name)
        pushed(catalog, name)
    arrived(receiver, 1)
    settled(catalog)
    assert [(one["subject"], one["source"], one["type"]) for one in receiver.taken] == [
        ("t", "/v2/team/a", "digestry.tag.moved.v1")
    ]


@pytest.mark.long
def test_a_receiver_that_fails_is_tried_again(receiver: Receiver, deliver: Callable[..., Catalog]) -> None:
    receiver.behave = answering(503, times=2)
    catalog = deliver(hook(receiver))
    pushed(catalog, "x")
    wait_until(lambda: catalog.delivery_queue.listed(limit=1)[0].attempts == 1, what="a failure")
    (waiting,) = catalog.delivery_queue.listed(limit=1)
    assert waiting.problem == "it answers 503"
    assert waiting.due_at > waiting.queued_at
    arrived(receiver, 1)
    assert receiver.asked == 3
    settled(catalog)


@pytest.mark.long
def test_one_that_hangs_is_waited_for_by_nobody_else(
    receiver: Receiver, deliver: Callable[..., Catalog]
) -> None:
    slow = Receiver()
    thread = threading.Thread(target=slow.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def hang(_: Any, number: int) -> bool:
        if number == 1:
            slow.released.wait(PATIENCE)
        return number == 1

    slow.behave = hang
    try:
        catalog = deliver(hook(slow, "slow", timeout=PATIENCE), hook(receiver, "fast"))
        pushed(catalog, "x")
        wait_until(lambda: slow.asked == 1, what="the first attempt")
        pushed(catalog, "y")
        arrived(receiver, 2)
        assert (slow.asked, slow.taken) == (1, [])  # it hangs still
        slow.released.set()
        arrived(slow, 2)
        settled(catalog)
    finally:
        slow.released.set()
        slow.shutdown()
        thread.join()
        slow.server_close()


@pytest.mark.long
def test_an_answer_that_drips_is_cut(receiver: Receiver) -> None:
    def drip(handler: Any, _: int) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(1200):
            try:
                handler.wfile.write(b"X-%d: y\r\n" % number)
                handler.wfile.flush()
            except OSError:
                break
            if handler.server.released.wait(0.1):
                break
        return True

    receiver.behave = drip
    refusal = Sender(hook(receiver, timeout=1.0)).send(b"{}", {})
    assert refusal is not None
    assert refusal.problem == "no answer within 1 s"


def test_redirects(receiver: Receiver) -> None:
    elsewhere = Receiver()
    thread = threading.Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        for status, location, problem in (
            (307, elsewhere.url, "it answers 307, and redirects to another host"),
            (308, "//localhost/", "it answers 308, and redirects to another host"),
            (302, "/hook", "it answers 302"),
            (307, "/hook?x=1", "it redirects more than 3 times"),
        ):
            receiver.behave = answering(status, Location=location)
            refusal = Sender(hook(receiver)).send(b"{}", {})
            assert refusal is not None
            assert refusal.problem == problem
        assert elsewhere.asked == 0
    finally:
        elsewhere.shutdown()
        thread.join()
        elsewhere.server_close()
    webhook = hook(receiver)
    receiver.behave = answering(307, times=receiver.asked + 1, Location="/other")
    refusal = Sender(webhook).send(b'{"id": "1"}', {"Webhook-Id": "1", "Webhook-Timestamp": "0"})
    assert refusal is not None  # the message is not signed; but it came to where it was led
    assert refusal.problem.startswith("RemoteDisconnected")


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("7", 7, 7), ("99999999", 86400, 86400), ("soon", 0, 0), ("-1", 0, 0), (None, 0, 0), ("date", 50, 60)],
)
def test_retry_after(receiver: Receiver, text: str | None, least: float, most: float) -> None:
    if text == "date":
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
        text = email.utils.format_datetime(moment, usegmt=True)
    receiver.behave = answering(429) if text is None else answering(429, Retry_After=text)
    refusal = Sender(hook(receiver)).send(b"{}", {})
    assert refusal is not None
    assert least <= refusal.retry_after <= most


def test_nobody_there() -> None:
    webhook = Webhook("h", "http://127.0.0.1:1/", SECRET.encode())
    refusal = Sender(webhook).send(b"{}", {})
    assert refusal is not None
    assert "refused" in refusal.problem


def test_delays_grow_to_an_hour() -> None:
    assert [delay(attempts, lambda: 1.0) for attempts in (0, 1, 5, 11)] == [1, 2, 32, 2048]
    assert delay(10_000, lambda: 1.0) == 3600
    assert delay(3, lambda: 0.0) == 4


def test_what_is_given_up_can_be_retried(
    receiver: Receiver, deliver: Callable[..., Catalog], tmp_path: Path
) -> None:
    receiver.behave = answering(500)
    catalog = deliver(hook(receiver, patience=0.0))
    pushed(catalog, "x")
    wait_until(lambda: catalog.delivery_queue.listed(limit=1)[0].dead_at, what="giving up")
    asked = receiver.asked

    def run(*arguments: str) -> str:
        done = run_digestry("webhook", *arguments, "--root", tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    lines = run("list").splitlines()
    assert lines[0].split()[:3] == ["WEBHOOK", "DELIVERY", "EVENT"]
    assert lines[1].split()[:2] == ["h", "1"]
    assert "DEAD" in lines[1].split()
    assert lines[1].endswith("it answers 500")
    (row,) = json.loads(run("list", "--format", "json"))
    assert (row["webhook"], row["sequence"], row["attempts"], row["due_at"]) == ("h", 1, 1, None)
    assert row["dead_at"] is not None
    assert receiver.asked == asked  # it is left alone
    receiver.behave = lambda *_: False
    assert catalog.delivery_queue.revive(webhook="other", now=0) == 0
    unknown = run_digestry("webhook", "retry", "--sequence", "2", "--root", tmp_path)
    assert unknown.returncode == exit_codes.NOT_FOUND
    assert "no undelivered event has that number" in unknown.stderr
    assert run("retry", "--name", "h") == "1 due now\n"
    arrived(receiver, 1)
    settled(catalog)


def test_one_courier_at_a_time(receiver: Receiver, tmp_path: Path, deliver: Callable[..., Catalog]) -> None:
    """Two, as in two worker processes: each message is sent once, and the second takes over."""
    catalog = deliver(hook(receiver))
    second = WebhookDispatcher(open_coordination(tmp_path), catalog.delivery_queue, [hook(receiver)])
    second.start()
    try:
        for _ in range(10):
            pushed(catalog, "x")
        arrived(receiver, 10)
        settled(catalog)
        assert receiver.ids() == list(range(1, 11))
    finally:
        second.stop()


class Losing(FileCoordination):
    """A coordination whose locks another node takes once ``lost`` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lost = threading.Event()
        self.refused = threading.Event()

    @contextlib.contextmanager
    def only_one(self, job: Job, *, wait: bool = False, held: str = "") -> Iterator[FencedLock]:
        if self.lost.is_set():
            self.refused.set()
        self.check()
        with super().only_one(job, wait=wait, held=held):
            yield self

    def check(self) -> None:
        if self.lost.is_set():
            raise Conflict("another node has the lock")

    def require_held(self, _connection: object) -> None:
        self.check()


@pytest.mark.long
def test_who_loses_the_lock_sends_no_more(receiver: Receiver, tmp_path: Path) -> None:
    coordination = Losing(tmp_path)
    webhook = hook(receiver, timeout=PATIENCE)
    catalog = open_catalog(tmp_path, subscriptions=(webhook.subscription,))
    catalog.migrate()
    dispatcher = WebhookDispatcher(coordination, catalog.delivery_queue, [webhook])

    def hang(_: Any, __: int) -> bool:
        return receiver.released.wait(PATIENCE)

    receiver.behave = hang
    dispatcher.start()
    try:
        pushed(catalog, "x")
        pushed(catalog, "y")
        wait_until(lambda: receiver.asked == 1, what="the first attempt")
        coordination.lost.set()
        assert coordination.refused.wait(PATIENCE)  # it let go of what hung, and asks for the lock again
        waiting = catalog.delivery_queue.listed(limit=10)
        assert [(delivery.attempts, delivery.problem) for delivery in waiting] == [(0, ""), (0, "")]
        assert receiver.asked == 1
    finally:
        dispatcher.stop()
        catalog.close()


def test_no_event_of_a_refused_push(tmp_path: Path) -> None:
    """The queue's rows are written with the move, or not at all."""
    policy = TagPolicy((TagRule("immutable", tags=("v*",)),))
    catalog = open_catalog(tmp_path, policy=policy, subscriptions=(Subscription("h"),))
    catalog.migrate()
    pushed(catalog, "x", ["v1"])
    with pytest.raises(TagRefused):
        pushed(catalog, "x", ["new", "v1"])
    assert [one.sequence for one in catalog.delivery_queue.listed(limit=10)] == [1]
    catalog.close()


# -- the server -----------------------------------------------------------------------------------


def configured(tmp_path: Path, receiver: Receiver) -> Path:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    file = tmp_path / "registry.toml"
    file.write_text(
        f'[[webhook]]\nname = "h"\nurl = "{receiver.url}"\nsecret-file = "secret"\nrepository = "hooked/*"\n'
    )
    return file


@pytest.mark.long
def test_a_killed_server_delivers_after_its_restart(tmp_path: Path, receiver: Receiver) -> None:
    """SIGKILL with messages in every state: under way, failed, not begun. All of them arrive."""
    receiver.behave = answering(500)
    file = configured(tmp_path, receiver)
    arguments = ("--config", str(file), "--workers", "2")
    server = start_registry(tmp_path / "root", *arguments)
    wanted: set[int] = set()

    def push(server: RegistryServer, count: int) -> None:
        for _ in range(count):
            server.push_image("hooked/app", "t", os.urandom(8))
        wanted.update(event["sequence"] for event in events(server, "hooked/app"))

    try:
        push(server, 10)
        wait_until(lambda: receiver.asked > 2, what="a first attempt")

        def hang(*_: Any) -> bool:
            receiver.released.wait(PATIENCE)
            return True

        receiver.behave = hang
        push(server, 5)
        server.kill()
        receiver.behave = lambda *_: False
        server = start_registry(tmp_path / "root", *arguments)
        push(server, 2)
        arrived(receiver, 17)
        assert set(receiver.ids()) == wanted == set(range(1, 18))
    finally:
        receiver.released.set()
        server.stop()


# -- the configuration ----------------------------------------------------------------------------


def read(tmp_path: Path, text: str) -> tuple[Webhook, ...]:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    return load(file, {"root": tmp_path}).webhooks


def test_webhooks_are_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("whsec_" + base64.b64encode(b"k" * 32).decode() + "\n")
    first, second = read(
        tmp_path,
        """
        [[webhook]]
        name = "a"
        url = "https://hooks.example.com/x"
        secret = "0123456789abcdef"
        repository = ["team/**", "x"]
        events = ["moved", "deleted"]
        source = "https://registry.example.com/"
        timeout-seconds = 3
        give-up-days = 1

        [[webhook]]
        name = "b"
        url = "http://127.0.0.1:8000"
        secret-file = "key"
        """,
    )
    assert first == Webhook(
        "a",
        "https://hooks.example.com/x",
        b"0123456789abcdef",
        repositories=("team/**", "x"),
        events=frozenset(("moved", "deleted")),
        source="https://registry.example.com",
        timeout=3.0,
        patience=86400.0,
    )
    assert second == Webhook("b", "http://127.0.0.1:8000", b"k" * 32)
    assert "0123456789abcdef" not in repr(first)


GOOD = '[[webhook]]\nname = "a"\nurl = "http://x/"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD, "either secret or secret-file"),
        (f'{GOOD}secret = "short"', "too short"),
        (f'{GOOD}secret = "whsec_%"', "not base64"),
        (f'{GOOD}secret-file = "nowhere"', "cannot read"),
        (f'{GOOD}secret = "{SECRET}"\nevents = ["pushed"]', "some of created, moved, deleted"),
        (f'{GOOD}secret = "{SECRET}"\nrepository = "a b"', "matches no name"),
        (f'{GOOD}secret = "{SECRET}"\n' * 2, "a webhook a already"),
        ('[[webhook]]\nname = "a/b"\nurl = "http://x/"', "name: up to 64"),
        ('[[webhook]]\nname = "a"\nurl = "ftp://x/"', "url: a URL is required"),
        ('[[webhook]]\nname = "a"\nurl = "http://user:pass@x/"', "url: a URL is required"),
        ('[[webhook]]\nname = "a"\nurl = "http://x:99999/"', "url: a URL is required"),
        ("[[webhook]]", "name is missing"),
    ],
)
def test_webhooks_that_are_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidConfiguration, match=complaint):
        read(tmp_path, text)
