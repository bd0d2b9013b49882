"""When images that run were scanned last, and which are to be scanned next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import exists, select

from digestry.catalog import dialect
from digestry.catalog.database import Database
from digestry.catalog.fleet_schema import fleet_image_digests, fleet_images, fleet_runs
from digestry.catalog.job_states import Fence
from digestry.catalog.schema import jobs
from digestry.catalog.transactions import retried

NAME: Final = "fleet_scans"
"""The name of the row of ``jobs`` with the times of the scans."""


@dataclass(frozen=True, slots=True)
class RunningImage:
    """An image of this registry that runs: the manifest ``digest`` of ``repository``."""

    repository: str
    digest: str


class Scans:
    """The scans of images that run. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def running(self) -> list[RunningImage]:
        """Return the images of this registry that run, the latest reported first, each manifest once."""
        runs = exists().where(fleet_runs.c.image == fleet_images.c.number, fleet_runs.c.ended_at.is_(None))
        query = (
            select(fleet_images.c.home, fleet_image_digests.c.digest)
            .join_from(
                fleet_images, fleet_image_digests, fleet_image_digests.c.image == fleet_images.c.number
            )
            .where(fleet_image_digests.c.kind == "manifest", fleet_images.c.home != "", runs)
            .order_by(fleet_images.c.number.desc(), fleet_image_digests.c.digest)
        )
        found: dict[str, RunningImage] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found.setdefault(row.digest, RunningImage(row.home, row.digest))
        return list(found.values())

    def times(self) -> dict[str, int]:
        """Return when manifests were scanned last (microseconds since 1970), by digest."""
        with self._database.read() as connection:
            text = connection.execute(select(jobs.c.state).where(jobs.c.name == NAME)).scalar()
        try:
            return {} if text is None else msgspec.json.decode(text, type=dict[str, int])
        except msgspec.DecodeError:
            return {}

    @retried
    def store(self, times: dict[str, int], now: int, fence: Fence | None = None) -> None:
        """Store when manifests were scanned. Raises :class:`Conflict` if the ``fence`` of the process is no
        longer held."""
        row = {
            "name": NAME,
            "started_at": now,
            "finished_at": now,
            "state": msgspec.json.encode(times).decode(),
        }
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            connection.execute(dialect.of(connection).upserts.job, row)
