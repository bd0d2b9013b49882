"""The time that a client may wait for registries: in all, and at once when they ask for it."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from digestry.errors import Unreachable

SLOWEST: Final = 1024
"""Bytes per second: at a lower rate the time counts as waiting."""
_PROMPT: Final = 1.0  # seconds within which the begin of an answer does not count as waiting
_LONGEST_NUMBER: Final = 19
# Compiled when the first pause is asked for: that takes longer than the rest of this module.
_SECONDS: Final = r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
_DURATION: Final = r"(?:[0-9]{1,15}(?:\.[0-9]{1,15})?(?:ns|us|\xb5s|\u03bcs|ms|s|m|h))+"
_PART: Final = r"([0-9.]+)(ns|us|\xb5s|\u03bcs|ms|s|m|h)"
_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "\xb5s": 1e-6,
    "\u03bcs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which a response allows another request; None if it states none.

    ``Retry-After`` is seconds or a date (RFC 9110, 10.2.3); some registries write ``0.5`` or Go's
    ``880.092µs``. Docker Hub's ``X-Retry-After`` is a time in seconds since 1970.
    """
    text = headers.get("Retry-After", "").strip()
    with contextlib.suppress(UnicodeEncodeError, UnicodeDecodeError):
        text = text.encode("latin-1").decode()  # http.client reads headers as Latin-1
    if len(text) <= _LONGEST_NUMBER and re.fullmatch(_SECONDS, text, re.ASCII):
        return float(text)
    if len(text) <= 4 * _LONGEST_NUMBER and re.fullmatch(_DURATION, text, re.ASCII):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text, re.ASCII))
    try:
        if text and "," in text:
            at = parsedate_to_datetime(text)
            moment = at.timestamp() if at.tzinfo is not None else at.timestamp() - time.timezone
            return max(0.0, moment - time.time())
    except (ValueError, OverflowError, TypeError):
        pass
    text = headers.get("X-Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return max(0.0, float(text) - time.time())
    return None


def seconds(count: float) -> str:
    """Return a number of seconds as messages write it: ``3600 s``, ``0.5 s``."""
    return f"{count:.0f} s" if count >= 10 else f"{count:.1f} s".replace(".0 s", " s")


class WaitBudget:
    """The time spent waiting for registries, at most ``limit`` seconds unless that is None. Thread-safe.

    Parallel waits count once.

    ``longest`` is the longest single pause, in seconds, that a registry may ask for. ``longest_command``
    seconds from now everything ends, at any rate of transfer.
    """

    def __init__(
        self,
        limit: float | None,
        longest: float,
        *,
        longest_command: float | None = None,
    ) -> None:
        self._limit = limit
        self._longest_command = longest_command
        self._end = None if longest_command is None else time.monotonic() + longest_command
        self._longest = longest
        self._lock = threading.Lock()
        self._spent = 0.0
        self._until = time.monotonic()

    def left(self) -> float | None:
        """Return how many seconds are left; None without a limit."""
        left = None if self._limit is None else max(0.0, self._limit - self._spent)
        if self._end is None:
            return left
        until_end = max(0.0, self._end - time.monotonic())
        return until_end if left is None else min(left, until_end)

    def check(self, host: str) -> None:
        """Raise :class:`Unreachable` if all of the time was spent."""
        if self._end is not None and time.monotonic() >= self._end:
            raise Unreachable(
                f"gave up on {host}: this command has taken {seconds(self._longest_command or 0)}, the most "
                "that it may",
                hint="--time-limit SECONDS allows more",
            )
        if self._limit is not None and self._spent >= self._limit:
            raise Unreachable(
                f"gave up on {host}: registries have kept this command waiting for {seconds(self._limit)}",
                hint="--timeout SECONDS waits longer",
            )

    def answered(self, host: str, began: float) -> None:
        """Count a response that has begun after a wait since ``began`` (of the monotonic clock)."""
        self._spend(began + _PROMPT, time.monotonic())
        self.check(host)

    def failed(self, host: str, began: float) -> None:
        """Count a wait since ``began`` in which no response came."""
        self._spend(began, time.monotonic())
        self.check(host)

    def received(self, host: str, began: float, count: int) -> None:
        """Count ``count`` bytes that came since ``began``."""
        self._spend(began + count / SLOWEST, time.monotonic())
        self.check(host)

    def too_long(self, pause: float) -> bool:
        """Return whether ``pause`` seconds are more than may be waited now."""
        left = self.left()
        return pause > self._longest or (left is not None and pause > left)

    def pause(self, host: str, pause: float) -> None:
        """Sleep before another request to ``host``."""
        began = time.monotonic()
        time.sleep(pause)
        self._spend(began, time.monotonic())
        self.check(host)

    def _spend(self, began: float, ended: float) -> None:
        with self._lock:
            if ended > began:
                self._spent += max(0.0, ended - max(began, self._until))
                self._until = max(self._until, ended)
