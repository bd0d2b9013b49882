"""One budget of requests for each registry, which all threads of a session share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from digestry.client.wait_budget import WaitBudget, retry_after, seconds
from digestry.errors import Refused

_LIMITS: Final = frozenset({429, 503})
_TOO_MANY: Final = 429
_REFUSED: Final = 400
_STATED_IN: Final = ("RateLimit", "RateLimit-Remaining", "X-RateLimit-Remaining")
_WORTH_SAYING: Final = 1.0


class _Hold(msgspec.Struct, frozen=True):
    """No request is sent to a registry before ``until`` (of the monotonic clock), because it answered
    ``status``."""

    until: float
    status: int


class RequestLimits:
    """The times before which registries must not get another request. Thread-safe.

    One thread's response holds back all of them. Their wait counts against ``waiting``; ``tell`` is called
    with a sentence about a wait, and about a limit that is used up.
    """

    def __init__(self, waiting: WaitBudget, tell: Callable[[str], None] | None) -> None:
        self._waiting = waiting
        self._tell = tell or (lambda _: None)
        self._lock = threading.Lock()
        self._holds: dict[str, _Hold] = {}
        self._reported: set[str] = set()

    def note(self, host: str, status: int, headers: Mapping[str, str]) -> float | None:
        """Record the limits in a response of ``host``; return for how many seconds it asks to wait.

        None if it does not ask for that.
        """
        pause = retry_after(headers) if status in _LIMITS else None
        if pause is None and any(name in headers for name in _STATED_IN):
            pause = self._note_limit(host, status, headers)
        elif pause is not None:
            self._hold(host, pause, status, "")
        return pause

    def _note_limit(self, host: str, status: int, headers: Mapping[str, str]) -> float | None:
        from digestry.client.rate_limits import stated_limit  # noqa: PLC0415 - few registries state one

        limit = stated_limit(headers)
        if limit is None or limit.remaining != 0:
            return None
        if status == _TOO_MANY:
            if limit.reset is not None:
                self._hold(host, limit.reset, status, limit.used_up())
            return limit.reset
        if status < _REFUSED:
            if limit.reset and not self._waiting.too_long(limit.reset):
                self._hold(host, limit.reset, _TOO_MANY, limit.used_up())
            else:
                self._report_once(host, f"{host} says that {limit.used_up()}")
        return None

    def _hold(self, host: str, pause: float, status: int, why: str) -> None:
        until = time.monotonic() + pause
        with self._lock:
            before = self._holds.get(host)
            longer = until - (0.0 if before is None else before.until)
            if longer > 0:
                self._holds[host] = _Hold(until, status)
        if min(longer, pause) >= _WORTH_SAYING and not self._waiting.too_long(pause):
            said = f"says that {why}" if why else f"asks to wait {seconds(pause)} (Retry-After)"
            self._tell(f"{host} {said}: waiting")

    def _report_once(self, host: str, sentence: str) -> None:
        with self._lock:
            if host in self._reported:
                return
            self._reported.add(host)
        self._tell(sentence)

    def wait(self, host: str) -> None:
        """Sleep until a request to ``host`` is allowed. Raises :class:`Refused` if that takes longer than is
        allowed."""
        while (hold := self._holds.get(host)) is not None:
            left = hold.until - time.monotonic()
            if left <= 0:
                return
            if self._waiting.too_long(left):
                raise Refused(
                    f"{host} has answered {hold.status}, and asks to wait {seconds(left)} (Retry-After) "
                    "before it is asked again",
                    status=hold.status,
                    hint="try again later; --timeout SECONDS waits longer",
                    retry_after=left,
                )
            self._waiting.pause(host, left)
