"""One mirror in one worker process: its freshness, back-off, and shared questions to the upstream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from digestry.catalog.journal import Origin
from digestry.coordination.files import TURNS_DIRECTORY
from digestry.coordination.protocol import Coordination
from digestry.errors import ContentError, ProtocolViolation, RemoteError
from digestry.model.digest import Digest
from digestry.model.history import observer
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.config import MirrorConfig
from digestry.registry.pull_through.upstream import PATIENCE, Upstream
from digestry.registry.pull_through.upstream_errors import BackingOff

log: Final = logging.getLogger("digestry.registry")

DIRECTORY: Final = TURNS_DIRECTORY
"""The folder of the scratch directory in which worker processes share the state of mirrors."""

_ASKING: Final = 24
_LISTING: Final = 2
_LONGEST_BACKOFF: Final = 60.0
_MARGIN: Final = 5.0
_MOST_LISTS: Final = 10_000
_LONGEST_LISTS: Final = 500_000

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Counts:
    """Counts of a mirror since its worker process started."""

    hits: int = 0
    """Answers from the cache."""
    misses: int = 0
    """Answers that needed a request to upstream."""
    stale: int = 0
    """Tags that were served while upstream was unreachable."""
    fetched_bytes: int = 0
    errors: int = 0
    """Questions that upstream did not answer, or not as it should."""


@dataclass(frozen=True, slots=True)
class UpstreamRepository:
    """A repository of an upstream: its name here, its name there, and the name that this client used.

    Without ``may_fetch`` no request goes to upstream: only cached content is served. ``by_default``: the name
    has no mirror's prefix, and the mirror is the default one. ``withheld``: a repository of this registry,
    which the client must not see, has the same name; upstream is asked as usual, and its content is not
    served. ``before_login``: the client has not logged in, and may see a repository of this name after a
    login; for content that upstream does not have, it gets a 401.
    """

    mirror: Mirror
    local_name: str
    upstream_name: str
    requested_name: str
    may_fetch: bool = True
    by_default: bool = False
    withheld: bool = False
    before_login: bool = False


class Mirror:
    """A registry that this one caches.

    After a failure no request is sent to upstream for some seconds, more each time; after a 429, for as long
    as upstream says. Clients do not wait meanwhile. Then one request is sent, and other clients are answered
    as before until it has ended. All workers share this back-off.
    """

    def __init__(
        self, config: MirrorConfig, upstream: Upstream, scratch: Path, coordination: Coordination
    ) -> None:
        self.config = config
        self.upstream = upstream
        self.origin = Origin(actor=observer(config.host))
        self.counts = Counts()
        self.stopping = threading.Event()
        self.downloading = ThreadPoolExecutor(config.downloads, thread_name_prefix="mirror-download")
        self._asking = ThreadPoolExecutor(_ASKING, thread_name_prefix="mirror-ask")
        self._listing = ThreadPoolExecutor(_LISTING, thread_name_prefix="mirror-list")
        # Any: calls of every result share this table; its key says which type one has.
        self._asked: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        self._lists: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}
        self._list_weight = 0
        self.downloads: dict[tuple[str, Digest], Any] = {}
        """Downloads under way, by repository and digest (:class:`.upstream_download.Download`)."""
        self.stale_reasons: dict[tuple[str, str], str] = {}
        """By repository and tag or digest: why the answer of upstream, a mirror itself, may be out of
        date."""
        self._coordination = coordination
        self._backoff = coordination.backoff(config.host, longest=upstream_errors.LONGEST_LIMIT)
        self._lock = threading.Lock()
        self._backoff_reason = ""
        self._backoff_until = 0.0
        self._failures = 0
        self._probing = False

    def count(self, what: str, by: int = 1) -> None:
        """Add to one of the counts. Thread-safe."""
        with self._lock:
            setattr(self.counts, what, getattr(self.counts, what) + by)

    def stop(self) -> None:
        """Stop downloads; the next request for the content resumes them."""
        self.stopping.set()
        self._asking.shutdown(wait=True, cancel_futures=True)
        self._listing.shutdown(wait=True, cancel_futures=True)
        self.downloading.shutdown(wait=True, cancel_futures=True)
        self.upstream.close()

    async def single_flight(
        self, key: tuple[str, ...], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call ``function`` in a thread that may wait for upstream; concurrent calls with the same ``key``
        share one call and its result."""
        return await self._once(self._asking, key, lambda: function(*args, **kwargs))

    async def single_flight_list(
        self, key: tuple[str, ...], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call ``function`` as :meth:`single_flight` does, for lists, which may be long: few run at a time,
        and nothing else waits for them."""
        return await self._once(self._listing, key, lambda: function(*args, **kwargs))

    async def _once(self, pool: ThreadPoolExecutor, key: tuple[str, ...], function: Callable[[], T]) -> T:
        task: asyncio.Task[T] | None = self._asked.get(key)
        if task is None:
            task = asyncio.create_task(_call(pool, function))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        # A client that leaves does not cancel the answer of the others.
        return await asyncio.shield(task)

    # -- lists, for a while --------------------------------------------------------------------

    def cache_list(self, kind: str, name: str, value: tuple[str, ...], *, weight: int = 0) -> None:
        """Cache a list as long as a tag is fresh, if there is room for it."""
        until = time.monotonic() + self.config.tag_ttl
        with self._lock:
            if len(self._lists) >= _MOST_LISTS or self._list_weight + weight > _LONGEST_LISTS:
                self._lists.clear()
                self._list_weight = 0
            self._lists[kind, name] = until, value
            self._list_weight += weight

    def cached_list(self, kind: str, name: str) -> tuple[str, ...] | None:
        """Return the cached list, if it is fresh."""
        until, value = self._lists.get((kind, name), (0.0, ()))
        return value if time.monotonic() < until else None

    def _answered(self, key: tuple[str, ...], task: asyncio.Task[object]) -> None:
        del self._asked[key]
        if not task.cancelled():
            task.exception()  # a request may wait for it, or none any longer

    def record_staleness(self, repository: UpstreamRepository, target: str) -> None:
        """Record the staleness headers of the upstream for a tag, or for the referrers of a digest."""
        reason, key = (
            self.upstream.staleness(repository.upstream_name, target),
            (repository.local_name, target),
        )
        with self._lock:
            if not reason:
                self.stale_reasons.pop(key, None)
                return
            if len(self.stale_reasons) >= _MOST_LISTS:
                self.stale_reasons.clear()
            self.stale_reasons[key] = reason

    def is_fresh(self, checked_at: int, now: int) -> bool:
        """Return whether an answer of that time is still fresh. Times in microseconds."""
        # A clock that was set back must not keep a tag for ever.
        return 0 <= now - checked_at < self.config.tag_ttl * 1e6

    def may_be_stale(self, checked_at: int, now: int) -> bool:
        """Return whether an answer of that time may be served while the upstream is unreachable."""
        return self.config.stale is None or now - checked_at <= self.config.stale * 1e6

    # -- asking upstream -----------------------------------------------------------------------

    @contextlib.contextmanager
    def requesting(self, *, insist: bool = False) -> Iterator[None]:
        """Guard one request to upstream, and count how it ends. Raises :class:`BackingOff` during a back-off.

        With ``insist`` the request is sent after a failure too, to continue a response.
        """
        if not insist or self._backoff_reason == upstream_errors.RATE_LIMITED:
            self._wait_or_probe()
        try:
            yield
        except RemoteError as error:
            outage = upstream_errors.is_outage(error)
            self.count("errors", int(outage or isinstance(error, ProtocolViolation)))
            if outage:
                self._back_off(error)
            else:
                self._recover()
            raise
        except ContentError:
            self.count("errors")
            self._recover()
            raise
        self._recover()

    def _wait_or_probe(self) -> None:
        with self._lock:
            now = time.monotonic()
            if not self._backoff_reason or self._backoff_until <= now:
                left, why = self._backoff.remaining()
                if left > 0:
                    # Another worker got the 429, or this one before it was restarted.
                    self._backoff_reason, self._backoff_until = (
                        why or upstream_errors.RATE_LIMITED,
                        now + left,
                    )
                elif not self._backoff_reason:
                    return
            left = self._backoff_until - now
            if left > 0:
                raise BackingOff(
                    f"it was {self._backoff_reason} and is left alone for {left:.0f} s",
                    word=self._backoff_reason,
                    seconds=left,
                )
            # This one asks. Until it has an answer, the others are answered as before.
            self._probing = True
            self._backoff_until = now + self.config.timeout * PATIENCE + _MARGIN

    def _back_off(self, error: RemoteError) -> None:
        word = upstream_errors.word(error)
        with self._lock:
            first = self._probing or not self._backoff_reason
            self._failures += first  # many that fail at once are one failure
            seconds = upstream_errors.backoff_seconds(error)
            if word != upstream_errors.RATE_LIMITED:
                if not first:
                    return
                seconds *= min(2 ** min(self._failures - 1, 10), max(1, _LONGEST_BACKOFF / seconds))
            if not self._backoff_reason or word != self._backoff_reason:
                log.warning(
                    "mirror %s is left alone for %.0f s: %s", self.config.host, seconds, error.message
                )
            self._probing = False
            self._backoff_reason, self._backoff_until = word, time.monotonic() + seconds
            if (
                word == upstream_errors.RATE_LIMITED
                or self._backoff.remaining()[1] != upstream_errors.RATE_LIMITED
            ):
                self._backoff.start(seconds, word)

    def _recover(self) -> None:
        if not self._backoff_reason:
            return
        with self._lock:
            # An answer to a request from before the limit does not lift it.
            if self._backoff_reason and (
                self._probing or self._backoff_reason != upstream_errors.RATE_LIMITED
            ):
                log.warning("mirror %s answers again", self.config.host)
                self._backoff_reason, self._failures, self._probing = "", 0, False
                if self._backoff.remaining()[1] != upstream_errors.RATE_LIMITED:
                    self._backoff.end()

    # -- one at a time -------------------------------------------------------------------------

    def turn(self, *key: str) -> contextlib.AbstractContextManager[object]:
        """Exclude other calls for the same ``key``, in all workers. Blocks.

        Mirrors have locks of their own: a call that waits for one upstream does not wait for another.
        """
        return self._coordination.turn(self.config.host, *key)


async def _call(pool: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, function)
