"""The table of a worker process's connections: which of them have a request under way.

The event loop's thread writes a few plain numbers for each request; the guard's thread reads them.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

from digestry.registry.connections import kernel
from digestry.registry.connections.kernel import Peer

STALLED: Final = "stalled"
SLOW_BODY: Final = "slow-body"

_TURN_SECONDS: Final = 0.1


class Connection:
    """The state of one client's connection. Times are of ``time.perf_counter``."""

    __slots__ = ("active", "descriptor", "ended", "fault", "inode", "sent", "sought", "used", "waiting")

    def __init__(self) -> None:
        self.active = 0
        """Requests that are under way."""
        self.used = False
        """Whether there ever was one."""
        self.ended = 0.0
        """When the last one ended."""
        self.sent = 0
        """Bytes of answers' bodies that the server was given."""
        self.waiting = False
        """Whether the application waits for the client: for a body, or until it takes an answer."""
        self.fault = ""
        """Why the connection must end, once it must."""
        self.descriptor = -1
        self.inode = 0
        self.sought = False
        """Whether the guard will find it in the kernel, unless it has."""

    def taken(self) -> int | None:
        """Return how many bytes the client has acknowledged; None if unknown."""
        if self.descriptor < 0:
            return None
        found = kernel.counts(self.descriptor, self.inode)
        return None if found is None else found.acked

    def break_off(self, fault: str) -> None:
        """Ask the guard to close the connection, for the reason ``fault``."""
        self.fault = self.fault or fault


class Connections:
    """The connections by the client's address and port. Requests over a unix socket have no entry: nothing
    identifies their connection."""

    def __init__(self) -> None:
        self.known: dict[Peer, Connection] = {}
        """Those that the guard has found in the kernel."""
        self.is_fresh: dict[Peer, Connection] = {}
        """Those that it has yet to find."""
        self.guarded = False
        """Whether a guard looks after this."""
        self.turn = math.inf
        """When the event loop had its last turn, if that is noted: later requests may not be known yet."""

    def note_turns(self) -> None:
        """Record from now on when the calling event loop had its last turn."""
        self.turn = time.perf_counter()
        asyncio.get_running_loop().call_later(_TURN_SECONDS, self.note_turns)

    def enter(self, client: Peer | None) -> Connection:
        """Record that a request began, and return its connection."""
        if client is None or not client[0] or not self.guarded:
            found = Connection()
        else:
            known = self.known.get(client) or self.is_fresh.get(client)
            found = self.is_fresh.setdefault(client, Connection()) if known is None else known
            found.sought = True
        found.active += 1
        found.used = True
        return found

    @staticmethod
    def leave(connection: Connection, ended: float) -> None:
        """Record that a request ended, at ``ended``."""
        connection.active -= 1
        connection.ended = ended
        connection.waiting = False

    def drop_passing(self, before: float) -> None:
        """Remove connections that ended before ``before`` and that the guard has never seen."""
        # A copy is atomic; while a list of the items is made, the event loop's thread may run.
        for client, connection in self.is_fresh.copy().items():
            if not connection.active and connection.ended < before:
                self.is_fresh.pop(client, None)
