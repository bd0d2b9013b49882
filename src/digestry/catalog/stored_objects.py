"""The rows of an S3 store: which object holds which content, incoming content, and objects to remove."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Row,
    Select,
    Table,
    bindparam,
    delete,
    insert,
    select,
    union_all,
    update,
)

from digestry.blobs.s3.documents import UploadedPart
from digestry.blobs.s3.rows import Fragment, IngestState, QuarantinedObject, Removal, StoredObject
from digestry.catalog import clock, dialect, lease_rows
from digestry.catalog.database import Database
from digestry.catalog.frequent_statements import frequent
from digestry.catalog.object_schema import (
    blob_ingest_fragments,
    blob_ingest_parts,
    blob_ingests,
    blob_objects,
    object_removals,
    quarantined_objects,
)
from digestry.catalog.schema import leases, links, manifests
from digestry.catalog.transactions import retried
from digestry.errors import Conflict, NotFound
from digestry.model.digest import Digest

_PAGE: Final = 1000


class StoredObjects:
    """The :class:`~digestry.blobs.s3.rows.ObjectRows` in a catalog's database. Thread-safe."""

    def __init__(self, database: Database, now: clock.Clock = clock.now) -> None:
        self._database = database
        self._now = now

    # -- content ------------------------------------------------------------------------------

    def find(self, digest: Digest) -> StoredObject | None:
        """Return the object of some content; None if it is not stored."""
        with self._database.read() as connection:
            row = connection.execute(_FIND, {"digest": str(digest)}).first()
        return None if row is None else StoredObject(digest, row.key, row.size, row.etag, row.stored_at)

    def digests(self) -> Iterator[Digest]:
        """Iterate over all content that is stored, page by page."""
        after = ""
        while True:
            query = select(blob_objects.c.digest).where(blob_objects.c.digest > after)
            with self._database.read() as connection:
                page = connection.execute(query.order_by(blob_objects.c.digest).limit(_PAGE)).scalars().all()
            yield from map(Digest.parse, page)
            if len(page) < _PAGE:
                return
            after = page[-1]

    @retried
    def store(self, stored: StoredObject, *, linger: float) -> None:
        """Note which object has some content, in place of the one before."""
        with self._database.write() as connection:
            added = connection.execute(
                dialect.of(connection).upserts.blob_object, _object_row(stored, self._now())
            )
        if not added.rowcount:  # asked after the COMMIT, which the statement was sent with
            with self._database.write() as connection:
                self._store(connection, stored, linger)

    def _store(self, connection: Connection, stored: StoredObject, linger: float) -> None:
        now = self._now()
        values = _object_row(stored, now)
        while connection.execute(dialect.of(connection).upserts.blob_object, values).rowcount == 0:
            before = connection.execute(_FIND_LOCKED, {"digest": values["digest"]}).first()
            if before is None:
                continue  # another has just deleted it
            connection.execute(
                update(blob_objects).where(blob_objects.c.digest == values["digest"]).values(values)
            )
            if before.key != stored.key:
                _remove_later(connection, [Removal(before.key)], _after(now, linger))
            return

    @retried
    def forget(self, digest: Digest, *, linger: float, settle: float) -> bool:
        """Forget the object of some content that nothing needs; see :meth:`ObjectRows.forget`."""
        now = self._now()
        with self._database.write() as connection:
            lease_rows.lock(connection, [str(digest)])  # it cannot be linked from now on
            row = connection.execute(_FIND_LOCKED, {"digest": str(digest)}).first()
            if row is None or row.stored_at > _after(now, -settle) or _is_held(connection, str(digest), now):
                return False
            connection.execute(delete(blob_objects).where(blob_objects.c.digest == str(digest)))
            _remove_later(connection, [Removal(row.key)], _after(now, linger))
        return True

    # -- quarantine ----------------------------------------------------------------------------

    @retried
    def quarantine(self, digest: Digest, name: str, size: int) -> QuarantinedObject | None:
        """Move the object of some content to the quarantine; see :meth:`ObjectRows.quarantine`."""
        with self._database.write() as connection:
            row = connection.execute(_FIND_LOCKED, {"digest": str(digest)}).first()
            if row is None:
                return None
            moved = QuarantinedObject(_unused(connection, name), digest, row.key, size)
            connection.execute(
                insert(quarantined_objects),
                {"name": moved.name, "digest": str(digest), "key": moved.key, "size": size},
            )
            connection.execute(delete(blob_objects).where(blob_objects.c.digest == str(digest)))
        return moved

    def quarantined(self, digest: Digest | None) -> Iterator[QuarantinedObject]:
        """Iterate over the quarantine, of ``digest`` alone or of all, oldest first."""
        query = select(quarantined_objects).order_by(quarantined_objects.c.id)
        if digest is not None:
            query = query.where(quarantined_objects.c.digest == str(digest))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            yield QuarantinedObject(row.name, Digest.parse(row.digest), row.key, row.size)

    @retried
    def forget_quarantined(self, name: str) -> None:
        """Forget an object of the quarantine, there or not."""
        where = quarantined_objects.c.name == name
        with self._database.write() as connection:
            row = connection.execute(select(quarantined_objects.c.key).where(where).with_for_update()).first()
            if row is not None:
                connection.execute(delete(quarantined_objects).where(where))
                _remove_later(connection, [Removal(row.key)], self._now())

    # -- incoming content -----------------------------------------------------------------

    @retried
    def open_ingest(self, name: str, holder: str, *, seconds: float, new_key: str) -> IngestState:
        """Give the ingest ``name`` to ``holder`` alone; see :meth:`ObjectRows.open_ingest`."""
        now = self._now()
        with self._database.write() as connection:
            if new_key:
                values = {"name": name, "key": new_key, "upload_id": "", "whole": False, "holder": ""}
                values.update(expires_at=0, written_at=now)
                connection.execute(dialect.of(connection).upserts.ingest, values)
            row = connection.execute(_INGEST_LOCKED, {"name": name}).first()
            if row is None:
                raise NotFound(f"{name} is not there: it was finished, given up, or never begun")
            if row.holder and row.expires_at > now:
                raise Conflict(
                    f"{name} is being written by another request", hint="try again when it has ended"
                )
            connection.execute(
                update(blob_ingests)
                .where(blob_ingests.c.name == name)
                .values(holder=holder, expires_at=_after(now, seconds))
            )
            return _state(connection, row)

    @retried
    def renew(self, holders: Collection[str], *, seconds: float) -> None:
        """Renew the leases of ``holders``, for so many seconds from now."""
        held = blob_ingests.c.holder.in_(holders)
        with self._database.write() as connection:
            connection.execute(
                update(blob_ingests).where(held).values(expires_at=_after(self._now(), seconds))
            )

    @retried
    def save_ingest(self, name: str, holder: str, before: IngestState, after: IngestState) -> None:
        """Note how far an ingest has come; see :meth:`ObjectRows.save_ingest`."""
        now = self._now()
        with self._database.write() as connection:
            _require(connection, name, holder)
            values = {"key": after.key, "upload_id": after.upload_id, "whole": after.whole, "written_at": now}
            connection.execute(update(blob_ingests).where(blob_ingests.c.name == name).values(values))
            _change(connection, blob_ingest_parts.c.number, name, before.parts, after.parts)
            _change(connection, blob_ingest_fragments.c.start, name, before.fragments, after.fragments)
            kept = {fragment.key for fragment in after.fragments}
            left = [Removal(piece.key) for piece in before.fragments if piece.key not in kept]
            if before.key != after.key:
                left.append(Removal(before.key, before.upload_id))
            _remove_later(connection, left, now)

    @retried
    def close_ingest(self, name: str, holder: str) -> None:
        """Let another have the ingest."""
        held = (blob_ingests.c.name == name) & (blob_ingests.c.holder == holder)
        with self._database.write() as connection:
            connection.execute(update(blob_ingests).where(held).values(holder="", expires_at=0))

    @retried
    def commit_ingest(self, name: str, holder: str, stored: StoredObject, *, linger: float) -> None:
        """Note which object has an ingest's content, and end it; see :meth:`ObjectRows.commit_ingest`."""
        with self._database.write() as connection:
            state = _require(connection, name, holder)
            _end(connection, name)
            self._store(connection, stored, linger)
            left = [Removal(fragment.key) for fragment in state.fragments if fragment.key != stored.key]
            if state.key != stored.key:
                left.append(Removal(state.key, state.upload_id))
            _remove_later(connection, left, self._now())

    @retried
    def end_ingest(self, name: str, holder: str) -> None:
        """End an ingest, if ``holder`` has it: all of its objects are to be removed."""
        with self._database.write() as connection:
            row = connection.execute(_INGEST_LOCKED, {"name": name}).first()
            if row is None or row.holder != holder:
                return
            state = _state(connection, row)
            _end(connection, name)
            left = [
                Removal(state.key, state.upload_id),
                *(Removal(fragment.key) for fragment in state.fragments),
            ]
            _remove_later(connection, left, self._now())

    def ingests(self, *, idle_for: float | None = None) -> Sequence[str]:
        """Return the names of all ingests, or of those without a writer; see :meth:`ObjectRows.ingests`."""
        query = select(blob_ingests.c.name)
        if idle_for is not None:
            now = self._now()
            free = (blob_ingests.c.holder == "") | (blob_ingests.c.expires_at <= now)
            query = query.where(free & (blob_ingests.c.written_at <= _after(now, -idle_for)))
        with self._database.read() as connection:
            return connection.execute(query).scalars().all()

    # -- removal -------------------------------------------------------------------------------

    def removals(self, limit: int) -> Sequence[Removal]:
        """Return objects that are to be removed by now, up to ``limit``, those due first."""
        query = select(object_removals).where(object_removals.c.due_at <= self._now())
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(object_removals.c.due_at).limit(limit)).all()
        return [Removal(row.key, row.upload_id) for row in rows]

    @retried
    def removed(self, removals: Sequence[Removal]) -> None:
        """Delete the rows of objects that were removed."""
        keys = [removal.key for removal in removals]
        with self._database.write() as connection:
            connection.execute(delete(object_removals).where(object_removals.c.key.in_(keys)))

    def uploading(self, upload_ids: Collection[str]) -> set[str]:
        """Return those of ``upload_ids`` that an ingest has."""
        query = select(blob_ingests.c.upload_id).where(blob_ingests.c.upload_id.in_(upload_ids))
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def named(self, keys: Collection[str]) -> set[str]:
        """Return those of ``keys`` that any row has."""
        queries = [_keys_of(table, keys) for table in _WITH_KEYS]
        with self._database.read() as connection:
            return set(connection.execute(union_all(*queries)).scalars())


_FIND: Final = frequent(select(blob_objects).where(blob_objects.c.digest == bindparam("digest")))
_FIND_LOCKED: Final = _FIND.with_for_update()
_INGEST_LOCKED: Final = select(blob_ingests).where(blob_ingests.c.name == bindparam("name")).with_for_update()
_WITH_KEYS: Final = (
    blob_objects,
    blob_ingests,
    blob_ingest_fragments,
    quarantined_objects,
    object_removals,
)


def _object_row(stored: StoredObject, now: int) -> dict[str, object]:
    return {
        "digest": str(stored.digest),
        "key": stored.key,
        "size": stored.size,
        "etag": stored.etag,
        "stored_at": stored.stored_at or now,
    }


def _keys_of(table: Table, keys: Collection[str]) -> Select[str]:
    return select(table.c.key).where(table.c.key.in_(keys))


def _after(now: int, seconds: float) -> int:
    return now + int(seconds * clock.SECOND)


def _remove_later(connection: Connection, removals: Sequence[Removal], due_at: int) -> None:
    if removals:
        connection.execute(
            dialect.of(connection).upserts.object_removal,
            [{"key": removal.key, "upload_id": removal.upload_id, "due_at": due_at} for removal in removals],
        )


def _is_held(connection: Connection, digest: str, now: int) -> bool:
    """Return whether bytes must stay: they are linked, visible, or leased."""
    held: tuple[Select[str], ...] = (
        select(links.c.digest).where(links.c.digest == digest),
        select(manifests.c.digest).where(manifests.c.digest == digest, manifests.c.deleted_at.is_(None)),
        select(leases.c.digest).where(leases.c.digest == digest, leases.c.expires_at > now),
    )
    return any(connection.execute(query.limit(1)).first() is not None for query in held)


def _unused(connection: Connection, name: str) -> str:
    """Return a name that nothing in the quarantine has: this one, or one with a number."""
    taken = select(quarantined_objects.c.name).where(
        quarantined_objects.c.name.startswith(name, autoescape=True)
    )
    names = set(connection.execute(taken).scalars())
    number, unused = 1, name
    while unused in names:
        number += 1
        unused = f"{name}-{number}"
    return unused


def _require(connection: Connection, name: str, holder: str) -> IngestState:
    """Return the state of an ingest. Raises :class:`Conflict` unless ``holder`` has it."""
    row = connection.execute(_INGEST_LOCKED, {"name": name}).first()
    if row is None or row.holder != holder:
        raise Conflict(f"{name} was taken over by another request", hint="start this upload again")
    return _state(connection, row)


def _state(connection: Connection, row: Row[Any]) -> IngestState:
    parts, fragments = blob_ingest_parts.c, blob_ingest_fragments.c
    part_rows = connection.execute(
        select(blob_ingest_parts).where(parts.name == row.name).order_by(parts.number)
    )
    fragment_rows = connection.execute(
        select(blob_ingest_fragments).where(fragments.name == row.name).order_by(fragments.start)
    )
    return IngestState(
        row.key,
        row.upload_id,
        tuple(UploadedPart(part.number, part.size, part.etag, part.crc32) for part in part_rows),
        tuple(Fragment(item.start, item.size, item.key) for item in fragment_rows),
        row.whole,
    )


def _change(
    connection: Connection,
    order: Column[int],
    name: str,
    before: Collection[UploadedPart | Fragment],
    after: Collection[UploadedPart | Fragment],
) -> None:
    """Change the rows of the ingest ``name`` in the table of ``order``, its key in an ingest."""
    table, gone, new = order.table, set(before) - set(after), set(after) - set(before)
    if gone:
        places = [getattr(row, order.name) for row in gone]
        connection.execute(delete(table).where((table.c.name == name) & order.in_(places)))
    if new:
        connection.execute(insert(table), [{"name": name, **asdict(row)} for row in new])


def _end(connection: Connection, name: str) -> None:
    for table in (blob_ingest_parts, blob_ingest_fragments, blob_ingests):
        connection.execute(delete(table).where(table.c.name == name))
