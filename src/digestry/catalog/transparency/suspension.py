"""The suspension of a log: its catalog was put back, and more may have been signed than it knows.

It is a row of the stored states of jobs, so that it goes where the catalog goes.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import select

from digestry.catalog.database import Database
from digestry.catalog.job_states import JobState, JobStates
from digestry.catalog.observation_schema import log_checkpoints

STATE: Final = "transparency_suspension"
"""The name of the row of ``jobs``."""


class LogSuspension:
    """Whether the log of a catalog may be signed at all. Thread-safe; blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs = JobStates(database)

    def suspend(self, reason: str, *, now: int) -> bool:
        """Let nothing be signed until :meth:`resume`; return False for a catalog that never signed."""
        with self._database.read() as connection:
            signed = connection.execute(select(log_checkpoints.c.size).limit(1)).first()
        if signed is None:
            return False
        self._jobs.store(JobState(STATE, now, None, {"reason": reason}))
        return True

    def reason(self) -> str:
        """Return why nothing may be signed; empty if it may."""
        found = self._jobs.state(STATE)
        return "" if found is None else str(found.state.get("reason", ""))

    def resume(self, *, now: int) -> None:
        """Let the log be signed on, under the same name."""
        self._jobs.store(JobState(STATE, now, now, {}))
