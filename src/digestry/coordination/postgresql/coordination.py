"""Coordination of the nodes of one registry by rows of its database.

A lock is a row with a holder, a fence number that rises each time that it is taken, and the time when it ends
by the database's clock. Each holder that shares a guard has a row of its own. No connection is held open: a
node that dies, or is cut off, loses its locks after
:data:`~digestry.coordination.postgresql.leases.LEASE_SECONDS`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Final

from digestry.coordination.postgresql import statements
from digestry.coordination.postgresql.backoff_rows import BackoffRow
from digestry.coordination.postgresql.connections import Connections
from digestry.coordination.postgresql.key_rows import KeyRows
from digestry.coordination.postgresql.leases import LEASE_SECONDS, Lease, LeaseKeeper, SteadyClock, steady
from digestry.coordination.postgresql.login_failure_rows import LoginFailureRows
from digestry.coordination.postgresql.note_rows import NoteRows
from digestry.coordination.protocol import Backoff, FencedLock, Job, KeyStore, Lock, LoginFailures, Notes
from digestry.errors import Conflict, StorageError
from digestry.model.digest import Digest

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.2
_TURNS: Final = 256


def node_name() -> str:
    """Return this process's name among the nodes: its host, and its number there."""
    return f"{socket.gethostname()}/{os.getpid()}"


class PostgresCoordination:
    """The locks and keys in the database of ``connections``. Each process makes its own.

    Some seconds after its last use it holds nothing open, and no thread runs.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        node: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        clock: SteadyClock = steady,
    ) -> None:
        """Prepare it, without a request. ``node`` is this process's name for others."""
        self._connections = connections
        self._node = node or node_name()
        self._keeper = LeaseKeeper(connections, seconds=lease_seconds, clock=clock)
        self.keys: KeyStore = KeyRows(connections)
        self.notes: Notes = NoteRows(connections)
        self.login_failures: LoginFailures | None = LoginFailureRows(connections)

    def close(self) -> None:
        """Release all that is held, and close all connections."""
        self._keeper.close()
        self._connections.close()

    def prepare(self) -> None:
        """Do nothing: the catalog's migrations make the tables."""

    def check(self) -> None:
        """Do nothing: rows are locked for all nodes."""

    @contextlib.contextmanager
    def guard(self, digest: Digest, *, exclusive: bool = False, wait: bool = True) -> Iterator[Lock]:
        """Keep the content of ``digest`` where it is; see :meth:`Coordination.guard`."""
        name = f"guard/{self.guard_group(digest)}"
        held = f"{digest} is being pushed"
        lease = self._own(name, held, wait=wait) if exclusive else self._share(name, held, wait=wait)
        try:
            yield lease
        finally:
            # Soon, by another thread: this may be the end of a request, on the event loop.
            self._keeper.give_back(lease)

    def guard_group(self, digest: Digest) -> str:
        """Return the digits that all digests with the same guard begin with."""
        return digest.encoded[:2]

    @contextlib.contextmanager
    def only_one(self, job: Job, *, wait: bool = False, held: str = "") -> Iterator[FencedLock]:
        """Do ``job`` alone; see :meth:`Coordination.only_one`."""
        lease = self._take(f"job/{job}", held or f"another process does the job {job} already", wait=wait)
        try:
            yield lease
        finally:
            with contextlib.suppress(StorageError):  # it expires
                self._keeper.release(lease)

    def holders(self) -> Mapping[Job, str]:
        """Return which node does which job now; see :meth:`Coordination.holders`."""
        with self._connections.statements() as connection:
            rows = connection.execute(statements.HOLDERS, {"pattern": "job/%"}).all()
        found = {row.name.removeprefix("job/"): row.holder for row in rows}
        return {job: found[job] for job in Job if job in found}

    @contextlib.contextmanager
    def turn(self, scope: str, *key: str) -> Iterator[Lock]:
        """Call for ``key`` one at a time; see :meth:`Coordination.turn`."""
        name = hashlib.blake2b(scope.encode(), digest_size=8).hexdigest()
        number = hashlib.blake2b("\0".join(key).encode(), digest_size=2).digest()
        lease = self._take(f"turn/{name}.{int.from_bytes(number, 'big') % _TURNS:02x}", "", wait=True)
        try:
            yield lease
        finally:
            self._keeper.give_back(lease)

    def backoff(self, host: str, *, longest: float) -> Backoff:
        """Return the back-off from an upstream; see :meth:`Coordination.backoff`."""
        return BackoffRow(self._connections, host, longest=longest)

    def _take(self, name: str, held: str, *, wait: bool) -> Lease:
        """Take a lock. Without ``wait`` raises :class:`Conflict` if another has it."""
        pauses = _pauses()
        while True:
            sent = self._keeper.clock()
            with self._connections.statements() as connection:
                fence = connection.execute(statements.TAKE, self._values(name)).scalar()
            if fence is not None:
                return self._kept(name, sent, fence=fence)
            if not wait:
                raise Conflict(held)
            time.sleep(next(pauses))

    def _share(self, name: str, held: str, *, wait: bool) -> Lease:
        """Share a guard. Without ``wait`` raises :class:`Conflict` if another has it alone."""
        pauses = _pauses()
        token = secrets.token_hex(16)
        values = {"name": name, "token": token, "lease": self._keeper.lease}
        while True:
            sent = self._keeper.clock()
            with self._connections.statements() as connection:
                shared = connection.execute(statements.SHARE, values).rowcount
            if shared:
                return self._kept(name, sent, token=token)
            if not wait:
                raise Conflict(held)
            time.sleep(next(pauses))

    def _own(self, name: str, held: str, *, wait: bool) -> Lease:
        """Take a guard exclusively. Without ``wait`` raises :class:`Conflict` if another has it.

        With ``wait`` no process can share it from then on, and it waits for those that do.
        """
        self._keeper.release()  # locks that this process has released
        if wait:
            lease = self._take(name, held, wait=True)
        else:
            sent = self._keeper.clock()
            with self._connections.transaction() as connection:
                fence = connection.execute(statements.TAKE, self._values(name)).scalar()
                # All that shared the guard have committed before, for both lock its row: this sees all of
                # them.
                if fence is None or connection.execute(statements.IS_SHARED, {"name": name}).first():
                    raise Conflict(held)
                connection.execute(statements.FORGET_SHARED, {"name": name})
            return self._kept(name, sent, fence=fence)
        try:
            for pause in _pauses():
                with self._connections.statements() as connection:
                    if connection.execute(statements.IS_SHARED, {"name": name}).first() is None:
                        connection.execute(statements.FORGET_SHARED, {"name": name})
                        lease.check()
                        return lease
                time.sleep(pause)
        except BaseException:
            self._keeper.give_back(lease)
            raise
        raise AssertionError("pauses do not end")

    def _kept(self, name: str, sent: float, *, fence: int = 0, token: str = "") -> Lease:
        clock, deadline = self._keeper.clock, sent + self._keeper.seconds
        lease = Lease(name, deadline=deadline, clock=clock, fence=fence, token=token)
        self._keeper.keep(lease)
        return lease

    def _values(self, name: str) -> dict[str, object]:
        return {"name": name, "holder": self._node, "lease": self._keeper.lease}


def _pauses() -> Iterator[float]:
    """Yield how many seconds to wait between attempts: longer each time, and not all at the same moments."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * (0.5 + random.random())  # noqa: S311 - no secret
        pause = min(2 * pause, _LONGEST_PAUSE)
