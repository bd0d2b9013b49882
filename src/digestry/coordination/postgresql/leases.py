"""Leases: locks that end by themselves unless the thread of their process renews them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import Connection

from digestry.coordination.postgresql import statements
from digestry.coordination.postgresql.connections import Connections
from digestry.errors import Conflict, StorageError

log: Final = logging.getLogger("digestry.registry")

LEASE_SECONDS: Final = 6.0
"""A node that died, or does not reach the database, keeps its locks for no longer."""
_RENEWALS: Final = 3
"""Renewals in the time of one lease."""
_ATTEMPTS: Final = 12
"""Attempts in the time of one lease, once a renewal has failed."""
_GATHERED_SECONDS: Final = 0.03
"""Locks that end within this time are released by one statement."""
_IDLE_SECONDS: Final = 5.0

SteadyClock = Callable[[], float]
"""A monotonic clock, in seconds."""


def steady() -> float:
    """Return the seconds since the machine's start, those that it slept included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """A lease that is held: of a lock, with its ``fence`` number, or of a shared guard, with its ``token``.

    It holds until ``deadline``, a time of ``clock``.
    """

    __slots__ = ("_clock", "_deadline", "_lost", "fence", "name", "token")

    def __init__(
        self, name: str, *, deadline: float, clock: SteadyClock, fence: int = 0, token: str = ""
    ) -> None:
        self.name = name
        self.fence = fence
        self.token = token
        self._deadline = deadline
        self._clock = clock
        self._lost = False

    def check(self) -> None:
        """Raise :class:`Conflict` if the lease was lost, or could not be renewed in time."""
        if self._lost or self._clock() >= self._deadline:
            raise self._ended()

    def require_held(self, connection: Connection) -> None:
        """Raise :class:`Conflict` unless the lock is held; it cannot be taken until the transaction ends."""
        self.check()
        values = {"name": self.name, "fence": self.fence}
        if connection.execute(statements.CONFIRM, values).first() is None:
            self._lost = True
            raise self._ended()

    def renewed(self, deadline: float) -> None:
        """Note that the lease holds until ``deadline``."""
        self._deadline = deadline

    def lost(self) -> None:
        """Note that the lease has ended, and that another may have had the lock since."""
        self._lost = True

    def _ended(self) -> Conflict:
        return Conflict(
            f"this node lost the lock {self.name}: it could not renew it in time, and another may have it",
            hint="the work goes on by itself, here or on another node; the database was slow or away",
        )


class LeaseKeeper:
    """The leases of one process. A thread renews them, and releases those that are given back."""

    def __init__(
        self, connections: Connections, *, seconds: float = LEASE_SECONDS, clock: SteadyClock = steady
    ) -> None:
        self.seconds = seconds
        self.clock = clock
        self.lease = int(seconds * statements.MICROSECONDS)
        self._connections = connections
        self._changed = threading.Condition()
        self._held: set[Lease] = set()
        self._returned: list[Lease] = []
        self._due = 0.0
        self._release_at = 0.0
        self._failing = False
        self._closing = False
        self._running = False

    def keep(self, lease: Lease) -> None:
        """Renew ``lease`` until it is released."""
        with self._changed:
            if not self._held:
                self._due = self.clock() + self.seconds / _RENEWALS
            self._held.add(lease)
            if not self._running:
                self._wake()  # else it looks again before the renewal is due

    def give_back(self, lease: Lease) -> None:
        """Have ``lease`` released by the thread, soon. Does not block."""
        with self._changed:
            self._held.discard(lease)
            if not self._returned:
                self._release_at = self.clock() + _GATHERED_SECONDS
                self._wake()
            self._returned.append(lease)

    def release(self, *leases: Lease) -> None:
        """Release ``leases``, and those that were given back, now. Raises :class:`StorageError`."""
        with self._changed:
            self._held.difference_update(leases)
            returned = [*leases, *self._returned]
            self._returned.clear()
        self._release(returned)

    def close(self) -> None:
        """Release all leases, and end the thread. Another use starts it again."""
        with self._changed:
            self._returned.extend(self._held)
            self._held.clear()
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running, self.seconds)
            self._closing = False

    def _wake(self) -> None:
        if self._running:
            self._changed.notify_all()
        else:
            threading.Thread(target=self._run, name="leases", daemon=True).start()
            self._running = True

    def _pause(self) -> float:
        """Return the seconds until the next renewal."""
        if self._closing:
            return 0.0
        now = self.clock()
        due = self._due if self._held else now + self.seconds / _RENEWALS
        return max(0.0, min(due, self._release_at if self._returned else due) - now)

    def _run(self) -> None:
        idle_since = self.clock()
        while True:
            with self._changed:
                changed = self._changed.wait(self._pause())
                if changed and not self._closing:
                    continue
                if self._held or self._returned:
                    idle_since = self.clock()
                elif self._closing or self.clock() - idle_since > _IDLE_SECONDS:
                    self._running = False
                    self._changed.notify_all()
                    return
                returned, self._returned = self._returned, []
                held = list(self._held)
            try:
                self._release(returned)
                if held and self.clock() >= self._due:
                    self._renew(held)
            except StorageError as error:
                # Locks that were not released expire.
                if not self._failing:
                    log.error("this node cannot renew its locks, and loses them soon: %s", error.message)
                self._failing = True
                self._due = self.clock() + self.seconds / _ATTEMPTS

    def _release(self, leases: Iterable[Lease]) -> None:
        tokens = [lease.token for lease in leases if lease.token]
        locks = [lease for lease in leases if lease.fence]
        if not tokens and not locks:
            return
        with self._connections.statements() as connection:
            if tokens:
                connection.execute(statements.RELEASE_SHARED, {"tokens": tokens})
            if locks:
                connection.execute(statements.RELEASE, _numbered(locks))

    def _renew(self, held: list[Lease]) -> None:
        tokens = [lease.token for lease in held if lease.token]
        locks = [lease for lease in held if lease.fence]
        sent = self.clock()
        renewed: set[str] = set()
        with self._connections.statements() as connection:
            if locks:
                values = {**_numbered(locks), "lease": self.lease}
                renewed.update(connection.execute(statements.RENEW, values).scalars())
            if tokens:
                values = {"tokens": tokens, "lease": self.lease}
                renewed.update(connection.execute(statements.RENEW_SHARED, values).scalars())
        for lease in held:
            if (lease.token or lease.name) in renewed:
                lease.renewed(sent + self.seconds)
            else:
                lease.lost()
        self._due = sent + self.seconds / _RENEWALS
        if self._failing:
            log.warning("this node renews its locks again")
        self._failing = False


def _numbered(locks: Iterable[Lease]) -> dict[str, list[object]]:
    return {"names": [lock.name for lock in locks], "fences": [lock.fence for lock in locks]}
