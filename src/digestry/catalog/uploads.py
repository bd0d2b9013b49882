"""Uploads under way: how far each has come, whose it is, and which are stale."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from digestry.catalog import clock, push_statements, transaction_locks
from digestry.catalog.database import Database
from digestry.catalog.schema import uploads
from digestry.catalog.transactions import retried
from digestry.errors import NotFound, TooMany
from digestry.model.digest import Digest

_CLOSE: Final = 200
"""More uploads than begin at one moment."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload under way. ``offset`` counts the bytes received; ``digest`` is that of these bytes, if known;
    ``reserved`` is the size that quotas count; ``started_at`` is in microseconds since 1970; ``replaced`` is
    an upload that made room for it."""

    id: str
    repository: str
    algorithm: str
    offset: int
    digest: Digest | None
    started_at: int = 0
    replaced: Upload | None = None
    reserved: int = 0


class Uploads:
    """The uploads of :class:`~digestry.catalog.catalog.Catalog`. Thread-safe."""

    def __init__(self, database: Database, now: clock.Clock, *, last: bool = False) -> None:
        """``last``: the bytes of uploads outlive a restart of the machine."""
        self._database = database
        self._now = now
        self._boot = _STORE if last else _boot_id()

    @retried
    def begin_upload(
        self,
        repository: str,
        algorithm: str,
        *,
        actor: str = "anonymous",
        most: int | None = None,
        most_of_one: int | None = None,
    ) -> Upload:
        """Begin an empty upload of ``actor``: a user, or the address of an anonymous client.

        Raises :class:`TooMany` if ``most_of_one`` of that actor are under way. If ``most`` are under way in
        all, the upload that has waited longest, of the actor with the most, is ended to make room, so that no
        actor keeps others out. Raises :class:`TooMany` if no actor has more than this one.

        A loss of power may undo it: no client has an acknowledgement of stored bytes.
        """
        now = self._now()
        upload = Upload(str(uuid.uuid4()), repository, algorithm, 0, None, now)
        with self._database.write(durable=False) as connection:
            if most_of_one is not None:
                transaction_locks.lock(connection, f"uploads of {actor}")
            held = connection.execute(push_statements.COUNT_UPLOADS_OF, {"actor": actor}).scalar() or 0
            if most_of_one is not None and most_of_one <= held:
                raise TooMany(
                    f"{actor} has {most_of_one} uploads under way, which is as many as one user may",
                    hint="finish or cancel some",
                )
            if most is not None and most <= _count(connection, most):
                replaced = _make_room(connection, held)
                if replaced is None:
                    raise TooMany(f"this registry has {most} uploads under way, and takes no more at once")
                upload = dataclasses.replace(upload, replaced=replaced)
            values = {
                "id": upload.id,
                "repository": repository,
                "algorithm": algorithm,
                "actor": actor,
                "offset": 0,
                "boot": self._boot,
                "started_at": now,
                "updated_at": now,
            }
            connection.execute(push_statements.BEGIN_UPLOAD, values)
        return upload

    def upload(self, repository: str, upload_id: str) -> Upload | None:
        """Return an upload of this repository, or None, also if the machine has restarted since bytes of it
        came: they were not synced, and may be gone. Its digest is given only if it can be believed."""
        with self._database.read() as connection:
            wanted = {"upload": upload_id, "repository": repository}
            row = connection.execute(push_statements.UPLOAD, wanted).first()
            if row is None or _lost(row, self._boot):
                return None
            trusted = row.digest is not None and row.boot == self._boot
            digest = Digest.parse(row.digest) if trusted else None
        return Upload(
            row.id,
            row.repository,
            row.algorithm,
            row.offset,
            digest,
            row.started_at,
            reserved=max(row.offset, row.reserved),
        )

    @retried
    def advance_upload(self, upload: Upload, offset: int, digest: Digest | None) -> Upload:
        """Note how far the upload has come; ``digest`` is of all bytes up to there, or None.

        A loss of power may undo it; the client then gets the earlier offset.
        """
        with self._database.write(durable=False) as connection:
            values = {
                "upload": upload.id,
                "to": offset,
                "known": None if digest is None else str(digest),
                "run": self._boot,
                "at": self._now(),
            }
            result = connection.execute(push_statements.ADVANCE_UPLOAD, values)
            if result.rowcount == 0:
                raise NotFound(f"upload {upload.id} was cancelled")
        return dataclasses.replace(upload, offset=offset, digest=digest, reserved=offset)

    @retried
    def end_upload(self, upload_id: str) -> bool:
        """Remove an upload; return False if it had ended."""
        with self._database.write() as connection:
            return connection.execute(push_statements.END_UPLOAD, {"upload": upload_id}).rowcount > 0

    def stale_uploads(self, older_than: int) -> list[Upload]:
        """Return the uploads that nothing was written to since a time (microseconds since 1970), and those
        whose bytes a restart of the machine has taken."""
        self.age_uploads_from_now(only_ahead=True)
        with self._database.read() as connection:
            rows = connection.execute(
                select(uploads).where((uploads.c.updated_at < older_than) | (uploads.c.boot != self._boot))
            ).all()
        return [
            Upload(row.id, row.repository, row.algorithm, row.offset, None, row.started_at)
            for row in rows
            if row.updated_at < older_than or _lost(row, self._boot)
        ]

    @retried
    def age_uploads_from_now(self, *, only_ahead: bool = False) -> None:
        """Count every upload as written to now, after the clock was changed. With ``only_ahead``, only
        uploads from before it was set back, which would otherwise not age for as long as it was wrong."""
        now = self._now()
        ahead = uploads.c.updated_at > (now if only_ahead else 0)
        with self._database.read() as connection:
            if connection.execute(select(uploads.c.id).where(ahead).limit(1)).first() is None:
                return
        with self._database.write() as connection:
            connection.execute(update(uploads).where(ahead).values(updated_at=now))

    def upload_ids(self) -> set[str]:
        """Return all uploads under way."""
        with self._database.read() as connection:
            return set(connection.execute(select(uploads.c.id)).scalars())


def _count(connection: Connection, most: int) -> int:
    """Return how many uploads are under way. If that is close to ``most``, no other upload can begin
    meanwhile."""
    found = connection.execute(push_statements.COUNT_UPLOADS).scalar() or 0
    if found + _CLOSE < most:
        return found
    transaction_locks.lock(connection, "uploads")
    return connection.execute(push_statements.COUNT_UPLOADS).scalar() or 0


def _make_room(connection: Connection, held: int) -> Upload | None:
    """End the upload that has waited longest, of the actor with the most; None if no actor has more than
    ``held``."""
    most = connection.execute(push_statements.MOST_UPLOADS).first()
    if most is None or most.held <= held:
        return None
    row = connection.execute(push_statements.IDLE_UPLOAD, {"actor": most.actor}).one()
    connection.execute(push_statements.END_UPLOAD, {"upload": row.id})
    return Upload(row.id, row.repository, row.algorithm, row.offset, None, row.started_at)


_STORE: Final = "store"
"""The value in place of a boot ID where the bytes are in a store that every machine uses."""
_PROCESS: Final = "process "
"""Begins the name of a process's own life, where the machine's has none."""


def _boot_id() -> str:
    """Name this run of the machine: files that were not fsynced are whole while it lasts."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        # Not Linux: believe no digest that another process left.
        return f"{_PROCESS}{uuid.uuid4()}"


def _lost(row: Row[Any], boot: str) -> bool:
    """Return whether bytes of an upload may be gone, because the machine has restarted since they came."""
    return row.offset > 0 and row.boot != boot and not boot.startswith(_PROCESS)
