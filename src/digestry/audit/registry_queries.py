"""What the audit asks of registries: each distinct thing once, in parallel, and never without end.

:class:`Registries` and :class:`RegistryRepository` are what is used of the client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, Final, Protocol, TypeVar

from digestry.audit.bulk_answers import single_answers
from digestry.errors import DigestryError, RemoteDamaged, RemoteError, RemoteNotFound, Unreachable
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagEvent, TagSpan
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference
from digestry.model.resolution import MOST_QUERIES, Resolutions, ResolveQuery
from digestry.model.sightings import Noted, Sighted, batch

TIMEOUT: Final = 10.0
"""Seconds that one question to a registry may take, all of its requests together."""
PARALLEL: Final = 8
"""Questions to one registry at a time."""
MOST_SPANS: Final = 1000
"""Times that tags came to one digest that are asked for, the newest."""

_EACH: Final = 200  # digests of one query
_LARGEST_REMEMBERED: Final = 256 << 10  # bytes of a blob

_Answer = TypeVar("_Answer")


class RegistryRepository(Protocol):
    """One repository of a registry, as far as this package uses it. Its methods raise
    :class:`~digestry.errors.DigestryError`."""

    def resolve(self, target: str) -> Descriptor: ...

    def pull_manifest(self, target: str) -> Manifest: ...

    def read_blob(self, descriptor: Descriptor, *, limit: int = ...) -> bytes: ...

    def push_blob(self, descriptor: Descriptor, source: Callable[[], BinaryIO]) -> object: ...

    def push_manifest(self, raw: bytes, media_type: str) -> Digest: ...

    def tags(self) -> Iterator[str]: ...

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> Sequence[Descriptor]: ...

    def tag_history(self, tag: str) -> Sequence[TagEvent] | None: ...

    def holders(self, digest: Digest) -> Holders | None: ...

    def tags_for_digest(self, digest: Digest, limit: int | None = ...) -> Sequence[TagSpan] | None: ...


class Registries(Protocol):
    """Where repositories come from: the client's session."""

    def repository(self, reference: Reference) -> RegistryRepository: ...

    def resolve_many(
        self, host: str, queries: Sequence[ResolveQuery], *, contents: bool = False
    ) -> Resolutions | None: ...

    def authenticated(self, host: str) -> bool: ...

    def staleness(self, repository: Reference, target: str) -> str: ...

    def head_get_mismatch(self, repository: Reference, tag: str) -> str: ...

    def record_sightings(self, host: str, sightings: Sequence[Sighted]) -> Noted | None: ...


class _Lane:
    """One registry's questions: so many at a time, and none after it failed to answer.

    A registry that has answered something is only not asked again what it left unanswered: one
    endpoint that hangs does not hide what the others say.
    """

    def __init__(self) -> None:
        self.room = threading.Semaphore(PARALLEL)
        self.answered = False
        self.failure: Unreachable | None = None
        self._silent: dict[str, Unreachable] = {}

    def refusal(self, kind: str) -> Unreachable | None:
        """Return why a question of this kind is not asked; None if it is."""
        return self.failure or self._silent.get(kind)

    def fail(self, kind: str, error: Unreachable) -> None:
        """Note that a question of this kind was left unanswered. A second kind is one too many."""
        if not self.answered or self._silent.keys() - {kind}:
            self.failure = self.failure or error
        self._silent.setdefault(kind, error)

    @property
    def problem(self) -> Unreachable | None:
        """Why the registry, or one kind of question to it, was given up."""
        return self.failure or next(iter(self._silent.values()), None)


class RegistryQueries:
    """Questions to registries, remembered for the length of one audit. Safe for threads.

    The first question that a registry leaves unanswered for ``timeout`` seconds, or that finds it
    unreachable, is the last that it is asked, or, if it has answered others, the last of its kind:
    :meth:`unreachable` lists such registries. An answer that is an error is remembered and raised
    again.
    """

    def __init__(self, registries: Registries, *, timeout: float = TIMEOUT) -> None:
        self._registries = registries
        self._timeout = timeout
        self._lock = threading.Lock()
        self._answers: dict[Hashable, Future[Any]] = {}
        self._lanes: dict[str, _Lane] = {}

    def resolve(self, repository: Reference, tag: str) -> Descriptor | None:
        """Return what ``tag`` points to now; None if there is no such tag."""

        def ask() -> Descriptor | None:
            try:
                return self._registries.repository(repository).resolve(tag)
            except RemoteNotFound:
                return None

        return self._once(repository, ("resolve", repository, tag), ask)

    def manifest(self, repository: Reference, digest: Digest) -> Manifest | None:
        """Return the manifest or index; None if the repository has it not, or not whole."""
        try:
            return self.listed(repository, digest)
        except RemoteDamaged:
            return None

    def listed(self, repository: Reference, digest: Digest) -> Manifest | None:
        """As :meth:`manifest`, of what the registry says that there is. Raises :class:`RemoteDamaged` if
        it cannot give it out: it may be all that speaks against an image."""

        def ask() -> Manifest | None:
            try:
                return self._registries.repository(repository).pull_manifest(str(digest))
            except RemoteDamaged:
                raise
            except RemoteNotFound:
                return None

        return self._once(repository, ("manifest", repository, digest), ask)

    def blob(self, repository: Reference, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob's verified bytes. Raises :class:`~digestry.errors.TooLarge` over ``limit``."""

        def ask() -> bytes:
            return self._registries.repository(repository).read_blob(descriptor, limit=limit)

        if descriptor.size > _LARGEST_REMEMBERED:
            return self._now(repository.host, "blob", ask)
        return self._once(repository, ("blob", repository, descriptor.digest, descriptor.size), ask)

    def tags(self, repository: Reference, *, most: int) -> tuple[str, ...]:
        """Return the repository's tags, up to ``most`` of them; empty if there is no such repository."""

        def ask() -> tuple[str, ...]:
            try:
                return tuple(islice(self._registries.repository(repository).tags(), most))
            except RemoteNotFound:
                return ()

        return self._once(repository, ("tags", repository, most), ask)

    def referrers(self, repository: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what is attached to ``digest``; empty if nothing is."""

        def ask() -> tuple[Descriptor, ...]:
            try:
                found = tuple(self._registries.repository(repository).referrers(digest))
            except RemoteNotFound:
                return ()
            stale = self._registries.staleness(repository, str(digest))
            if stale:
                raise RemoteError(f"{repository.host} could not ask the registry that it mirrors: {stale}")
            return found

        return self._once(repository, ("referrers", repository, digest), ask)

    def tag_history(self, repository: Reference, tag: str) -> tuple[TagEvent, ...] | None:
        """Return where ``tag`` has pointed, newest first; None if the registry keeps no history."""

        def ask() -> tuple[TagEvent, ...] | None:
            try:
                events = self._registries.repository(repository).tag_history(tag)
            except RemoteNotFound:
                return None
            return None if events is None else tuple(events)

        return self._once(repository, ("history", repository, tag), ask)

    def whose(self, repository: Reference, digest: Digest) -> tuple[TagSpan, ...] | None:
        """Return when tags came to ``digest``, or to what holds it, newest first; None if the registry cannot
        say."""

        def ask() -> tuple[TagSpan, ...] | None:
            try:
                spans = self._registries.repository(repository).tags_for_digest(digest, MOST_SPANS)
            except RemoteNotFound:
                return None
            return None if spans is None else tuple(spans)

        return self._once(repository, ("whose", repository, digest), ask)

    def holders(self, repository: Reference, digest: Digest) -> Holders | None:
        """Return which manifests are or hold ``digest``; None if the registry cannot say."""

        def ask() -> Holders | None:
            try:
                return self._registries.repository(repository).holders(digest)
            except RemoteNotFound:
                return None

        return self._once(repository, ("holders", repository, digest), ask)

    def beginning_with(self, repository: Reference, encoded: str) -> tuple[Digest, ...] | None:
        """Return a few of the digests that begin with these hex digits; None if the registry cannot say."""
        query = ResolveQuery(repository.repository, prefixes=(encoded,))

        def ask() -> tuple[Digest, ...] | None:
            found = self._registries.resolve_many(repository.host, [query])
            return None if found is None else found.resolutions[0].prefixes.get(encoded)

        return self._once(repository, ("prefix", repository, encoded), ask)

    def stale(self, repository: Reference, tag: str) -> str:
        """Return why what :meth:`resolve` told of a tag may be out of date; empty if nothing is known that
        speaks against it."""
        return self._registries.staleness(repository, tag)

    def contradiction(self, repository: Reference, tag: str) -> str:
        """Return why the registry cannot be believed about the tag; empty if nothing speaks against it."""

        def ask() -> str:
            return self._registries.head_get_mismatch(repository, tag)

        return self._once(repository, ("contradiction", repository, tag), ask)

    def shows(self, repository: Reference) -> bool:
        """Return whether the registry shows the repository, or would if there were one. To an account that
        may not read it, a registry answers as if it were not there. Raises what the questions raise."""
        if not self._registries.authenticated(repository.host):
            return True
        return bool(self.tags(repository, most=1))

    def learn_digests(self, repository: Reference, digests: Sequence[Digest]) -> None:
        """As :meth:`learn`, about many digests of one repository."""
        unasked = [one for one in dict.fromkeys(digests) if ("holders", repository, one) not in self._answers]
        if len(unasked) > 1:
            queries = [
                ResolveQuery(repository.repository, tuple(unasked[start : start + _EACH]))
                for start in range(0, len(unasked), _EACH)
            ]
            self.learn(repository.host, queries)

    def learn(self, host: str, queries: Sequence[ResolveQuery]) -> None:
        """Ask ``host`` all of this with as few requests as it takes, for later questions.

        Raises nothing: what was not answered, or cannot be asked so, is asked when it is needed.
        """
        left = list(queries)
        while left:
            try:
                found = self._now(host, "many", partial(self._ask_many, host, left[:MOST_QUERIES]))
            except DigestryError:
                return
            if found is None:
                return
            for resolution in found.resolutions:
                for key, value in single_answers(host, resolution, found.contents):
                    self._tell(key, value)
            left = left[len(found.resolutions) :]

    def record(self, host: str, sightings: Sequence[Sighted]) -> Noted | None:
        """Tell ``host`` what runs where, of its repositories; None if it keeps no sightings."""
        result = Noted()
        left = list(sightings)
        while left:
            some = left[: batch(left)]
            noted = self._now(host, "record", partial(self._registries.record_sightings, host, some))
            if noted is None:
                return None
            result += noted
            left = left[len(some) :]
        return result

    def _ask_many(self, host: str, queries: Sequence[ResolveQuery]) -> Resolutions | None:
        return self._registries.resolve_many(host, queries, contents=True)

    def _tell(self, key: Hashable, value: object) -> None:
        """Note an answer, unless there is one: what was said first stays."""
        with self._lock:
            if key not in self._answers:
                future = self._answers[key] = Future()
                future.set_result(value)

    def _lane(self, host: str) -> _Lane:
        with self._lock:
            return self._lanes.setdefault(host, _Lane())

    def unreachable(self) -> list[tuple[str, Unreachable]]:
        """Return the registries that did not answer, by name."""
        with self._lock:
            return sorted(
                ((host, problem) for host, lane in self._lanes.items() if (problem := lane.problem)),
                key=lambda pair: pair[0],
            )

    def _once(
        self, repository: Reference, key: tuple[str, *tuple[Hashable, ...]], ask: Callable[[], _Answer]
    ) -> _Answer:
        with self._lock:
            future = self._answers.get(key)
            lane = self._lanes.setdefault(repository.host, _Lane())
            mine = future is None
            if future is None:
                future = self._answers[key] = Future()
        if mine:
            # Nothing that is asked waits for another question, so that waiting here cannot deadlock.
            with lane.room:
                refusal = lane.refusal(key[0])
                if refusal is not None:
                    future.set_exception(refusal)
                else:
                    self._answer(repository.host, key[0], ask, future)
        answer: _Answer = future.result()
        return answer

    def _now(self, host: str, kind: str, ask: Callable[[], _Answer]) -> _Answer:
        """Ask what is not remembered."""
        lane = self._lane(host)
        future: Future[_Answer] = Future()
        with lane.room:
            refusal = lane.refusal(kind)
            if refusal is not None:
                raise refusal
            self._answer(host, kind, ask, future)
        return future.result()

    def _answer(self, host: str, kind: str, ask: Callable[[], _Answer], future: Future[_Answer]) -> None:
        lane = self._lane(host)
        outcome: Future[_Answer] = Future()

        def run() -> None:
            try:
                outcome.set_result(ask())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                outcome.set_exception(error)

        # A thread of its own, and a daemon: one that hangs must not keep the program from ending.
        threading.Thread(target=run, name=f"ask {host}", daemon=True).start()
        try:
            future.set_result(outcome.result(self._timeout))
            lane.answered = True
        except TimeoutError:
            silence = Unreachable(f"{host} did not answer within {self._timeout:g} s")
            lane.fail(kind, silence)
            future.set_exception(silence)
        except Unreachable as error:
            lane.fail(kind, error)
            future.set_exception(error)
        except BaseException as error:
            lane.answered = lane.answered or isinstance(error, RemoteError)
            future.set_exception(error)
            if not isinstance(error, DigestryError):
                raise
