"""The webhook dispatcher: delivers queued events until each was accepted or expires.

It has threads in the worker process that holds the job's lock, so that one process at a time sends messages
and another takes over when it ends. A node that loses the lock aborts its deliveries: its last message may
arrive twice, which a receiver recognises by the event's number. Pushes never wait for deliveries: they only
write the queue's rows, in the transaction that they write anyway.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import http.client
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from digestry import dns
from digestry.catalog import clock
from digestry.catalog.delivery_queue import Delivery, DeliveryQueue, Event
from digestry.coordination.protocol import Coordination, Job, Lock
from digestry.errors import Conflict, DigestryError
from digestry.registry.webhooks import Webhook, trusting
from digestry.version import __version__

log: Final = logging.getLogger("digestry.registry")

_LOOK_SECONDS: Final = 0.25
_TAKE_OVER_SECONDS: Final = 1.0
_TROUBLE_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 3.0  # one that is still connecting ends with the process
_BATCH: Final = 50
_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 3600.0
_LONGEST_RETRY_AFTER: Final = 86400.0
_MOST_REDIRECTS: Final = 3
_READ: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a message was not accepted, and the seconds that the receiver asks to wait."""

    problem: str
    retry_after: float = 0.0


class WebhookDispatcher:
    """The sender of queued events. ``start`` returns at once; ``stop`` aborts deliveries under way."""

    def __init__(
        self,
        coordination: Coordination,
        delivery_queue: DeliveryQueue,
        webhooks: Sequence[Webhook],
        *,
        now: clock.Clock = clock.now,
    ) -> None:
        self._coordination = coordination
        self._delivery_queue = delivery_queue
        self._webhooks = webhooks
        self._now = now
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        """Start delivering as soon as no other process does."""
        if self._webhooks:
            self._keeper = threading.Thread(target=self._keep, name="webhooks", daemon=True)
            self._keeper.start()

    def stop(self) -> None:
        """Stop. A message under way is aborted; the next process sends it again."""
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join(_STOP_SECONDS)

    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                with self._coordination.only_one(Job.WEBHOOKS) as lock:
                    self._deliver(lock)
            except Conflict:
                self._stop.wait(_TAKE_OVER_SECONDS)
            except DigestryError as error:
                log.error("webhooks cannot be delivered: %s", error.message)
                self._stop.wait(_TROUBLE_SECONDS)

    def _deliver(self, lock: Lock) -> None:
        """Deliver until :meth:`stop`. Raises :class:`Conflict` if another process may deliver by now."""
        ended = threading.Event()
        senders = [Sender(webhook) for webhook in self._webhooks]
        # A thread each, so that a webhook that hangs delays no other.
        threads = [
            threading.Thread(
                target=self._serve,
                args=(sender, lock, ended),
                name=f"webhook {sender.webhook.name}",
                daemon=True,
            )
            for sender in senders
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._stop.wait(_LOOK_SECONDS):
                lock.check()
        finally:
            ended.set()
            for sender in senders:
                sender.cut()
            for thread in threads:
                thread.join()

    def _serve(self, sender: Sender, lock: Lock, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                batch = self._delivery_queue.due(sender.webhook.name, self._now(), limit=_BATCH)
                for delivery, event in batch:
                    lock.check()
                    if ended.is_set():
                        return
                    self._one(sender, delivery, event, ended)
            except Conflict:
                return
            except DigestryError as error:
                log.error("webhook %s: trying again: %s", sender.webhook.name, error.message)
                ended.wait(_TROUBLE_SECONDS)
                continue
            except Exception:
                log.exception("webhook %s: trying again in %d s", sender.webhook.name, _TROUBLE_SECONDS)
                ended.wait(_TROUBLE_SECONDS)
                continue
            if not batch:
                ended.wait(_LOOK_SECONDS)

    def _one(self, sender: Sender, delivery: Delivery, event: Event, ended: threading.Event) -> None:
        now = self._now()
        webhook = sender.webhook
        body = webhook.message(event)
        refusal = sender.send(body, webhook.headers(event, body, now // clock.SECOND))
        if refusal is None:
            self._delivery_queue.settle(delivery)
            return
        if ended.is_set():
            return  # cut off by us: not the receiver's failure
        now = self._now()
        if now - delivery.queued_at > webhook.patience * clock.SECOND:
            log.error(
                "webhook %s: event %d is given up: %s", webhook.name, delivery.sequence, refusal.problem
            )
            self._delivery_queue.give_up(delivery, now=now, problem=refusal.problem)
            return
        wait = max(delay(delivery.attempts), refusal.retry_after)
        due_at = now + int(wait * clock.SECOND)
        self._delivery_queue.postpone(delivery, due_at=due_at, problem=refusal.problem)


def delay(attempts: int, jitter: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after so many failures: doubled each time, with jitter."""
    longest = min(_LONGEST_DELAY, _FIRST_DELAY * float(1 << min(attempts, 20)))
    return longest * (0.5 + jitter() / 2)


class Sender:
    """Sends one message at a time to one webhook. ``cut`` may be called from another thread."""

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook
        self._tls = trusting(webhook.ca) if urlsplit(webhook.url).scheme == "https" else None
        self._socket: socket.socket | None = None

    def cut(self) -> None:
        """Abort the message under way, if any, without waiting for its answer."""
        open_socket = self._socket
        if open_socket is not None:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)

    def send(self, body: bytes, headers: Mapping[str, str]) -> Refusal | None:
        """Post the message; return None if it was accepted. Takes no longer than about the timeout."""
        url = self.webhook.url
        # A receiver that sends its answer byte by byte never triggers the socket's own timeout.
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.cut()

        watch = threading.Timer(self.webhook.timeout, give_up)
        watch.daemon = True
        watch.start()
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                status, answer = self._post(urlsplit(url), body, headers, late)
                if late.is_set():
                    raise TimeoutError  # the answer may have been cut anywhere, and still look like one
                if 200 <= status < 300:
                    return None
                location = answer.get("Location")
                if status not in {307, 308} or location is None:
                    return Refusal(f"it answers {status}", _retry_after(answer.get("Retry-After")))
                following = urljoin(url, location)
                if _origin(following) != _origin(self.webhook.url):
                    return Refusal(f"it answers {status}, and redirects to another host")
                url = following
            return Refusal(f"it redirects more than {_MOST_REDIRECTS} times")
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, TimeoutError) or late.is_set():
                return Refusal(f"no answer within {self.webhook.timeout:g} s")
            return Refusal(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        finally:
            watch.cancel()

    def _post(
        self, url: SplitResult, body: bytes, headers: Mapping[str, str], late: threading.Event
    ) -> tuple[int, http.client.HTTPMessage]:
        host, port, timeout = url.hostname or "", url.port, self.webhook.timeout
        connection = (
            http.client.HTTPConnection(host, port, timeout=timeout)
            if self._tls is None
            else http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        )
        try:
            self._connect(connection)
            if late.is_set():
                raise TimeoutError  # there was nothing to cut yet
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            ours = {"User-Agent": f"digestry/{__version__}", "Connection": "close"}
            connection.request("POST", path, body, {**ours, **headers})
            with connection.getresponse() as answer:
                answer.read(_READ)
                return answer.status, answer.headers
        finally:
            self._socket = None
            connection.close()

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        opened = _opened(connection.host, connection.port, self.webhook)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            # A receiver may drip its half of the handshake as well.
            opened = self._tls.wrap_socket(
                opened, server_hostname=connection.host, do_handshake_on_connect=False
            )
        # Kept here: the connection forgets it as soon as the answer has begun.
        connection.sock = self._socket = opened
        if isinstance(opened, ssl.SSLSocket):
            opened.do_handshake()


def _opened(host: str, port: int, webhook: Webhook) -> socket.socket:
    """Connect to the first of the host's addresses that takes it. Raises OSError."""
    ends = time.monotonic() + webhook.timeout
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in dns.look_up(
        host, port, seconds=webhook.timeout, owner=f"webhook {webhook.name}"
    ):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(max(0.001, ends - time.monotonic()))
            opened.connect(address)
            opened.settimeout(webhook.timeout)
        except OSError as error:
            opened.close()
            failure = error
        else:
            return opened
    raise failure


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _retry_after(text: str | None) -> float:
    """Return the seconds of a ``Retry-After`` (RFC 9110, 10.2.3), at most a day; 0 if it is invalid."""
    if text is None:
        return 0.0
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), _LONGEST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        seconds = (moment - datetime.datetime.now(moment.tzinfo)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER)
