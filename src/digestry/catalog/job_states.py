"""The stored states of the registry's own jobs, garbage collection and scrub: one row each.

The row outlives the process, so that a scrub can resume, and every worker can report metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import Connection, select

from digestry.catalog import dialect
from digestry.catalog.database import Database
from digestry.catalog.schema import jobs
from digestry.catalog.transactions import retried
from digestry.errors import StorageError

COLLECTION: Final = "collection"
SCRUB: Final = "scrub"


@dataclass(frozen=True, slots=True)
class JobState:
    """One kind of work: when it began and ended (microseconds since 1970; None while it runs, or was broken
    off), and its own description."""

    name: str
    started_at: int
    finished_at: int | None
    state: dict[str, Any]


class Fence(Protocol):
    """The lock of the process that does a job."""

    def require_held(self, connection: Connection) -> None:
        """Raise :class:`Conflict` unless the lock is held until the transaction ends."""
        ...


class JobStates:
    """The stored states of all jobs. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    def store(self, job: JobState, fence: Fence | None = None) -> None:
        """Store the state of a job. Raises :class:`Conflict` if the ``fence`` of that process is not held."""
        row = {
            "name": job.name,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "state": msgspec.json.encode(job.state).decode(),
        }
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            connection.execute(dialect.of(connection).upserts.job, row)

    def state(self, name: str) -> JobState | None:
        """Return the last stored state of that job."""
        with self._database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.name == name)).first()
        if row is None:
            return None
        try:
            state = msgspec.json.decode(row.state, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise StorageError(f"the state of the job {name} in the catalog is no JSON object") from error
        return JobState(row.name, row.started_at, row.finished_at, state)
