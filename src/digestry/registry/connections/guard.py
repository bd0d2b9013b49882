"""The guard: a thread that closes connections that are silent, slow, stalled, or too many.

A thread of each worker process that walks the process's own sockets several times a second. The server's own
limits begin with a request's headers; they do not cover the time before, TLS included, nor the time after an
answer. Only the kernel knows how much of an answer a client has read.
"""

from __future__ import annotations

import functools
import logging
import resource
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from digestry.registry.connections import kernel
from digestry.registry.connections.config import ConnectionLimits
from digestry.registry.connections.kernel import Peer
from digestry.registry.connections.table import STALLED, Connection, Connections
from digestry.registry.proxies import share_of

log: Final = logging.getLogger("digestry.registry")

SILENT: Final = "silent"
SLOW_HEAD: Final = "slow-head"
LONG_HEAD: Final = "long-head"
IDLE: Final = "idle"
CROWDED: Final = "too-many"
ADDRESS: Final = "too-many-of-one-address"
REASONS: Final = (SILENT, SLOW_HEAD, LONG_HEAD, IDLE, STALLED, "slow-body", CROWDED, ADDRESS)

_LONGEST_HEAD: Final = 16 << 10
_INTERVAL: Final = 0.25
_SHORT_INTERVAL: Final = 0.1
"""While a long head may have to be ended: until then it is held in memory."""
_BUSY: Final = 0.1
"""The share of its time that it may take, at most, of the process."""
_GRACE: Final = 1.0
"""A connection so young is not ended only because there are many."""
_BEHIND: Final = 0.3
"""The event loop notes its turns every tenth of a second, unless it has too much to do."""
_SAMPLE_SECONDS: Final = 5.0
_CROWDED_SECONDS: Final = 2.0
_FULL_SECONDS: Final = 1.0
_FAULT_SECONDS: Final = 1.0
"""So long an answer that says why may take to the client."""
_LOG_SECONDS: Final = 10.0
_SPARE: Final = 512
"""Descriptors that are not for clients: files, the catalog, other registries."""
_WAITING: Final = 2048
"""Connections that may come in between two looks."""
_OVERHEAD: Final = 64 << 10
"""The bytes that headers and TLS add to a connection's answers, beside a 64th of them."""
_PASSING_SECONDS: Final = 2.0
"""A connection that no look has found for so long came and went between two of them."""


@dataclass(slots=True)
class _Socket:
    """An open socket of this process. One without a ``peer`` is no client's connection."""

    inode: int
    since: float
    peer: Peer | None = None
    group: str = ""
    connection: Connection = field(default_factory=Connection)
    seen: int = 0
    idle: float = 0.0
    """Since when it has sent no request, and has read all answers."""
    answered: float = 0.0
    """The end of the last request that was noticed, when ``received`` bytes had come."""
    received: int = 0
    taking: bool = False
    """Whether the client has yet to take some of an answer, whose request has ended."""
    long: float = 0.0
    """When a round first found that it had sent a long head without an end; 0 if it has not."""
    mark: float = 0.0
    """When ``moved`` was measured last."""
    moved: int = 0
    slow: float = 0.0
    """Since when it has moved fewer bytes than it must; 0 if it has not."""
    fault: float = 0.0
    counted: bool = False
    """Whether it is one of the connections that were ended for a reason."""


class ConnectionGuard:
    """Watches the connections of one worker process that come in at ``address``, and closes the bad ones."""

    def __init__(
        self,
        limits: ConnectionLimits,
        table: Connections,
        address: tuple[str, int],
        *,
        exempt: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """``exempt``: addresses that may have any number of connections, such as a proxy's, behind which are
        many clients."""
        self._limits = limits
        self._table = table
        self._address = address
        self._exempt = functools.lru_cache(1024)(exempt)
        self._sockets: dict[int, _Socket] = {}
        self._round = 0
        self._sample = _SAMPLE_SECONDS
        self._logged_at = 0.0
        self._unlogged: Counter[str] = Counter()
        self._stop = threading.Event()
        self._suspects = False
        self.total = most_connections(limits)
        """Connections that there may be."""
        self.open = 0
        """Connections that there are."""
        self.ended: Counter[str] = Counter()
        """How many were ended, by reason."""

    def start(self) -> None:
        """Start the guard's thread, where the system provides the information."""
        if kernel.available():
            self._table.guarded = True
            threading.Thread(target=self._run, name="guard", daemon=True).start()

    def stop(self) -> None:
        """Stop the guard's thread."""
        self._stop.set()

    def _run(self) -> None:
        took = 0.0
        while not self._stop.wait(max(_SHORT_INTERVAL if self._suspects else _INTERVAL, took / _BUSY)):
            began = time.thread_time()  # not the time in which others had the interpreter
            try:
                self.check_all()
            except Exception:
                log.exception("looking after connections failed; trying again")
            took = time.thread_time() - began

    def check_all(self) -> None:
        """Check all connections once."""
        now = time.perf_counter()
        self._suspects = False
        self._find(now)
        clients = [(number, socket) for number, socket in self._sockets.items() if socket.peer is not None]
        self.open = len(clients)
        if self.open >= self.total:
            self._sample = _FULL_SECONDS
        else:
            self._sample = _CROWDED_SECONDS if self.open > self.total * 3 // 4 else _SAMPLE_SECONDS
        left = [(number, socket) for number, socket in clients if not self._ends(number, socket, now)]
        self._thin(self._thin_addresses(left), now)
        self._table.drop_passing(now - _PASSING_SECONDS)
        self._log(now)

    # -- which there are -----------------------------------------------------------------------

    def _find(self, now: float) -> None:
        self._round += 1
        for number, inode in kernel.sockets():
            socket = self._sockets.get(number)
            if socket is None or socket.inode != inode:
                if socket is not None:
                    self._forget(socket)
                socket = self._sockets[number] = self._new(number, inode, now)
            socket.seen = self._round
        for number in [number for number, socket in self._sockets.items() if socket.seen != self._round]:
            self._forget(self._sockets.pop(number))

    def _new(self, number: int, inode: int, now: float) -> _Socket:
        peer = kernel.peer(number, inode, self._address)
        socket = _Socket(inode, now, peer, idle=now, mark=now)
        if peer is not None:
            socket.group = share_of(peer[0])
            # The application may know it by its first request already.
            socket.connection = self._table.is_fresh.get(peer) or socket.connection
            socket.connection.descriptor, socket.connection.inode = number, inode
            self._table.known[peer] = socket.connection
            self._table.is_fresh.pop(peer, None)
        return socket

    def _forget(self, socket: _Socket) -> None:
        """Drop a socket that is closed. A connection that had to end may have been closed by the server."""
        socket.connection.descriptor = -1
        if socket.connection.fault:
            self._count(socket, socket.connection.fault)
        if socket.peer is not None and self._table.known.get(socket.peer) is socket.connection:
            del self._table.known[socket.peer]

    # -- the limits on each of them ----------------------------------------------------------------

    def _ends(self, number: int, socket: _Socket, now: float) -> bool:
        """Close the connection if it breaks a limit, and return whether it did."""
        connection, limits = socket.connection, self._limits
        if connection.fault:
            socket.fault = socket.fault or now
            if now - socket.fault < _FAULT_SECONDS and connection.fault != STALLED:
                return False
            return self._cut(number, socket, connection.fault)
        if connection.active:
            socket.idle, socket.taking, socket.long = now, False, 0.0
            self._measure(number, socket, now)
            return False
        found = kernel.counts(number, socket.inode)
        if found is None:
            return False
        if connection.ended > socket.answered:
            socket.answered, socket.received = connection.ended, found.received
            socket.idle = max(socket.idle, connection.ended)
        sent = connection.sent
        socket.taking = bool(sent) and found.waiting > 0 and found.acked < sent + sent // 64 + _OVERHEAD
        if socket.taking:
            socket.idle = now
            self._measure(number, socket, now)
            return (
                bool(socket.slow)
                and now - socket.slow >= limits.body_seconds
                and self._cut(number, socket, STALLED)
            )
        # The server has read that much, and found no request. (It reads a body only on demand.)
        long = found.received - socket.received > _LONGEST_HEAD + kernel.unread(number)
        # One that comes in at once is no burden; that one has ended the event loop knows by its next turn.
        if long and 0.0 < socket.long < self._table.turn:
            return self._cut(number, socket, LONG_HEAD)
        socket.long = (socket.long or now) if long else 0.0
        self._suspects = self._suspects or long
        if now - socket.idle < limits.header_seconds:
            return False
        if connection.used:
            return self._cut(number, socket, IDLE)
        return self._cut(number, socket, SLOW_HEAD if found.received else SILENT)

    def _measure(self, number: int, socket: _Socket, now: float) -> None:
        """Check every few seconds whether the connection moves at the least rate."""
        if now - socket.mark < self._sample:
            return
        found = kernel.counts(number, socket.inode)
        if found is None:
            return
        moved = found.acked + found.received
        enough = moved - socket.moved >= max(1, self._limits.least_rate * (now - socket.mark))
        socket.slow = 0.0 if enough else (socket.slow or socket.mark)
        socket.mark, socket.moved = now, moved

    # -- how many there are --------------------------------------------------------------------

    def _thin_addresses(self, clients: list[tuple[int, _Socket]]) -> list[tuple[int, _Socket]]:
        """Close the surplus connections of one address: first those without a request, then the newest."""
        most = self._limits.per_address
        if len(clients) <= most:
            return clients
        groups: defaultdict[str, list[tuple[int, _Socket]]] = defaultdict(list)
        for item in clients:
            groups[item[1].group].append(item)
        gone: set[int] = set()
        for members in groups.values():
            over = len(members) - most
            peer = members[0][1].peer
            if over <= 0 or peer is None or self._exempt(peer[0]):
                continue
            members.sort(key=lambda item: (item[1].connection.active > 0, -item[1].since))
            gone.update(number for number, socket in members[:over] if self._cut(number, socket, ADDRESS))
        return [item for item in clients if item[0] not in gone]

    def _thin(self, clients: list[tuple[int, _Socket]], now: float) -> None:
        """Close connections if there are too many: first those that have been idle for longest, then those of
        clients that the server waits for."""
        over = len(clients) - self.total * 3 // 4
        if over <= 0:
            return
        # While the event loop is behind, it has not seen all requests yet.
        turn = self._table.turn
        young = (turn if now - turn > _BEHIND else now) - (0.0 if len(clients) >= self.total else _GRACE)
        idle = sorted(
            (socket.connection.used, socket.idle, number)
            for number, socket in clients
            if not socket.connection.active and not socket.taking and socket.idle <= young
        )
        slow = sorted(
            (socket.slow, number)
            for number, socket in clients
            if socket.slow and (socket.taking or socket.connection.waiting)
        )
        numbers = [number for _, _, number in idle] + [number for _, number in slow]
        for number in numbers[:over]:
            self._cut(number, self._sockets[number], CROWDED)

    def _cut(self, number: int, socket: _Socket, reason: str) -> bool:
        if kernel.cut(number, socket.inode):
            self._count(socket, reason)
        return True

    def _count(self, socket: _Socket, reason: str) -> None:
        if not socket.counted:
            socket.counted = True
            self.ended[reason] += 1
            self._unlogged[reason] += 1

    def _log(self, now: float) -> None:
        if not self._unlogged or now - self._logged_at < _LOG_SECONDS:
            return
        # Idle ones are usual.
        counts = ", ".join(
            f"{count} {reason}" for reason, count in sorted(self._unlogged.items()) if reason != IDLE
        )
        self._logged_at = now
        self._unlogged.clear()
        if counts:
            log.warning("connections were ended: %s", counts)


def most_connections(limits: ConnectionLimits) -> int:
    """Return how many connections a process may hold: fewer than configured if its file limit is low."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # Each may have a blob's file open besides.
    return min(limits.total, max(16, (files - _SPARE) * 2 // 5))


def most_accepted(limits: ConnectionLimits) -> int:
    """Return how many connections a process accepts between two rounds of the guard. Connections that are not
    accepted wait, and an active client among them cannot be told from an idle one."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = most_connections(limits)
    return max(most + most // 4, min(most + _WAITING, (files - _SPARE) // 2))
