"""A cache of queries to registries: each is sent once, a few at a time, with a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Final, TypeAlias, TypeVar

from digestry.errors import DigestryError, RemoteError, Unreachable

TIMEOUT: Final = 10.0
"""Seconds that one question to a registry may take, all of its requests together."""
PARALLEL: Final = 8
"""Questions to one registry at a time."""

Question: TypeAlias = tuple[str, *tuple[Hashable, ...]]
"""A question: its kind, and its parameters."""

_Answer = TypeVar("_Answer")


class QueryCache:
    """Questions to registries and their answers. Thread-safe.

    After the first question that a registry leaves unanswered for ``timeout`` seconds, or that finds it
    unreachable, it is asked no other, or, if it has answered some, no other of that kind: :meth:`unreachable`
    lists such registries. An error is cached like an answer, and raised again.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        # Any: the question says which type its answer has.
        self._answers: dict[Question, Future[Any]] = {}
        self._lanes: dict[str, _Lane] = {}

    def __contains__(self, question: Question) -> bool:
        return question in self._answers

    def store(self, question: Question, answer: object) -> None:
        """Store an answer, unless there is one already."""
        with self._lock:
            if question not in self._answers:
                future = self._answers[question] = Future()
                future.set_result(answer)

    def ask_once(self, host: str, question: Question, ask: Callable[[], _Answer]) -> _Answer:
        """Return the answer to ``question``; ``ask`` asks ``host`` for it if it is not cached."""
        with self._lock:
            future = self._answers.get(question)
            mine = future is None
            if future is None:
                future = self._answers[question] = Future()
        if mine:
            # No question waits for another one, so that waiting here cannot deadlock.
            self._ask(host, question[0], ask, future)
        answer: _Answer = future.result()
        return answer

    def ask_uncached(self, host: str, kind: str, ask: Callable[[], _Answer]) -> _Answer:
        """Return the answer of ``ask``, without caching it."""
        future: Future[_Answer] = Future()
        self._ask(host, kind, ask, future)
        return future.result()

    def unreachable(self) -> list[tuple[str, Unreachable]]:
        """Return the registries that did not answer, by name."""
        with self._lock:
            return sorted(
                ((host, problem) for host, lane in self._lanes.items() if (problem := lane.problem)),
                key=lambda pair: pair[0],
            )

    def _ask(self, host: str, kind: str, ask: Callable[[], _Answer], future: Future[_Answer]) -> None:
        with self._lock:
            lane = self._lanes.setdefault(host, _Lane())
        with lane.room:
            refusal = lane.refusal(kind)
            if refusal is not None:
                future.set_exception(refusal)
            else:
                self._answer(host, lane, kind, ask, future)

    def _answer(
        self, host: str, lane: _Lane, kind: str, ask: Callable[[], _Answer], future: Future[_Answer]
    ) -> None:
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
            silence = Unreachable(
                f"{host} did not answer within {self._timeout:g} s, or said each time to ask later"
            )
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


class _Lane:
    """One registry's questions: a limited number at a time, and none after it failed to answer.

    A registry that has answered something is only spared the kinds of questions that it left unanswered: one
    endpoint that hangs does not hide the answers of the others.
    """

    def __init__(self) -> None:
        self.room = threading.Semaphore(PARALLEL)
        self.answered = False
        self.failure: Unreachable | None = None
        self._silent: dict[str, Unreachable] = {}

    def refusal(self, kind: str) -> Unreachable | None:
        """Return why questions of this kind are no longer asked; None if they are."""
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
