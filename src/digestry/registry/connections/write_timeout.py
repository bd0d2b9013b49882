"""A time limit for a client to read its answer."""

from __future__ import annotations

import asyncio

from digestry.registry.connections.config import ConnectionLimits
from digestry.registry.connections.table import Connection


class WriteTimeout:
    """Cancels a task that waits for a client that reads too slowly."""

    __slots__ = ("_connection", "_limits", "_taken", "_task", "_timer", "stalled")

    def __init__(
        self, limits: ConnectionLimits, connection: Connection, task: asyncio.Task[object] | None
    ) -> None:
        self._limits = limits
        self._connection = connection
        self._task = task
        self._taken = 0
        self.stalled = False
        self._timer = asyncio.get_running_loop().call_later(limits.body_seconds, self._judge)

    def end(self) -> None:
        """Stop watching: the client has taken the answer."""
        self._timer.cancel()

    def _judge(self) -> None:
        patience = self._limits.body_seconds
        taken = self._connection.taken()
        if taken is not None and taken - self._taken >= max(1, self._limits.least_rate * patience):
            self._taken = taken
            self._timer = asyncio.get_running_loop().call_later(patience, self._judge)
        elif self._task is not None:
            self.stalled = True
            self._task.cancel()
