"""Refused requests: counted by reason, with a bounded share of lines in the audit log.

Any client can cause refused requests, as many as the network carries. If each had a line, the lines of others
would soon be rotated away. So a client with more refused requests in a minute than its share gets one line
with the number of the others; and lines of anonymous clients go to a file of their own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from digestry.catalog import clock
from digestry.registry.exchange import Exchange
from digestry.registry.observability.audit_log import LogEntry
from digestry.registry.observability.counters import Family
from digestry.registry.proxies import share_of

REFUSED: Final = Family("digestry_refused_requests", "Requests that were refused, by why.", ("reason",))

WINDOW_SECONDS: Final = 60.0
OF_A_USER: Final = 60
"""Lines in a window of one user who has logged in."""
OF_AN_ADDRESS: Final = 20
"""Lines in a window of one address, in IPv6 one network of 64 bits, without a login."""
OF_STRANGERS: Final = 200
"""Lines in a window of all such addresses together."""
MOST_SOURCES: Final = 100
"""So many users, and so many addresses, are counted each for itself in a window; the others together."""

_REASONS: Final = {
    400: "malformed",
    401: "login",
    403: "rules",
    405: "method",
    408: "slow",
    409: "conflict",
    412: "precondition",
    413: "size",
    416: "range",
    429: "rate",
    431: "size",
    503: "busy",
    507: "disk-full",
}


def reason_of(exchange: Exchange, status: int) -> str | None:
    """Return why a request that is answered with ``status`` was refused, as one of a few words; None if it
    was not."""
    if status in _REASONS:
        return exchange.reason or _REASONS[status]
    return None


@dataclass(slots=True)
class _Share:
    """The refusals of one source in a window: ``lines`` were written, ``over`` were only counted."""

    user: str
    address: str
    since: int
    lines: int = 0
    over: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def summary(self) -> LogEntry:
        entry: LogEntry = {
            "time": clock.to_rfc3339(clock.now()),
            "user": self.user,
            "address": self.address,
            "action": "refused-requests",
            "count": self.over,
            "since": clock.to_rfc3339(self.since),
            "actions": dict(self.actions),
            "statuses": dict(self.statuses),
        }
        return {name: value for name, value in entry.items() if value != ""}


class Refusals:
    """The shares of one worker process. Used on the event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ends = now() + WINDOW_SECONDS
        self._users: dict[str, _Share] = {}
        self._strangers: dict[str, _Share] = {}
        self._strange_lines = 0

    def admits(self, exchange: Exchange, action: str, status: int) -> bool:
        """Return whether a refused write gets a line of its own, and count it if not."""
        identity = exchange.principal.identity
        if identity.anonymous:
            share = _share(self._strangers, identity.name, share_of(exchange.address))
            allowed = share.lines < OF_AN_ADDRESS and self._strange_lines < OF_STRANGERS
            self._strange_lines += allowed
        else:
            share = _share(self._users, identity.name, "")
            allowed = share.lines < OF_A_USER
        if allowed:
            share.lines += 1
        else:
            share.over += 1
            share.actions[action] += 1
            share.statuses[str(status)] += 1
        return allowed

    def summaries(self, *, last: bool = False) -> tuple[list[LogEntry], list[LogEntry]]:
        """Return lines that count the refusals without a line, of users and of anonymous clients, once a
        window has ended; and of the last one, however long it was."""
        if not last and self._now() < self._ends:
            return [], []
        found = [
            [share.summary() for share in shares.values() if share.over]
            for shares in (self._users, self._strangers)
        ]
        self._ends = self._now() + WINDOW_SECONDS
        self._users, self._strangers, self._strange_lines = {}, {}, 0
        return found[0], found[1]


def _share(shares: dict[str, _Share], user: str, address: str) -> _Share:
    key = address or user
    found = shares.get(key)
    if found is None:
        if len(shares) >= MOST_SOURCES:
            key = user = address = ""  # all that come from now on
            found = shares.get(key)
        if found is None:
            found = shares[key] = _Share(user, address, clock.now())
    return found
