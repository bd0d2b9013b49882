"""An upload that one request holds exclusively: opened under its lock, written to, and released.

The bytes are in the blob store's ingest, under the upload's id; the row in the catalog says how many of them
count.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from digestry.blobs.ingests import ResumableIngest
from digestry.catalog.uploads import Upload
from digestry.errors import CallerError, DigestryError, NotFound, StorageError, StorageFull, TooLarge
from digestry.registry.error_responses import ClientGone, ClientSilent, ErrorResponse, upload_unknown
from digestry.registry.exchange import Exchange
from digestry.registry.executors import Executors
from digestry.registry.resources.upload_quota import UploadReservation, over_quota
from digestry.registry.service import Service

_BATCH: Final = 1 << 20
"""So many bytes are collected before a thread hashes and writes them: fewer hand-overs."""
_WAITING_BATCH: Final = 128 << 10
"""The same for a store that has to be waited for: each upload holds a batch while it waits for memory."""
_ROOM_SECONDS: Final = 0.01
"""Seconds between an upload's attempts to get memory: no thread waits meanwhile."""


@dataclass(slots=True)
class UploadSession:
    """An upload that this request holds exclusively."""

    upload: Upload
    ingest: ResumableIngest


async def take(service: Service, name: str, upload_id: str, *, algorithm: str | None = None) -> UploadSession:
    """Open an upload exclusively for this request. Raises :class:`Conflict` while another has it."""

    def locked() -> UploadSession:
        first = service.stores.catalog.upload(name, upload_id)
        if first is None:
            raise upload_unknown(upload_id, name)
        ingest = service.stores.blobs.ingest(upload_id, algorithm=algorithm or first.algorithm)
        try:
            # Read again under the ingest's lock: the request before this one may have moved it.
            upload = service.stores.catalog.upload(name, upload_id)
            if upload is None:
                ingest.abort()
                raise upload_unknown(upload_id, name)
            if ingest.offset < upload.offset:
                # Its bytes were not yet on the disk when the machine went down.
                service.stores.catalog.end_upload(upload_id)
                ingest.abort()
                raise upload_unknown(upload_id, name)
            ingest.resume(upload.offset, upload.digest)
        except BaseException:
            ingest.close()
            raise
        return UploadSession(upload, ingest)

    return await service.executors.run(locked)


class _BatchWriter:
    """Writes a body to an ingest in batches, each while the next one is received."""

    def __init__(self, executors: Executors, session: UploadSession) -> None:
        self._executors = executors
        self._ingest = session.ingest
        self._full = _WAITING_BATCH if session.ingest.waits else _BATCH
        self._batch: list[bytes] = []
        self._size = 0
        self._job: asyncio.Task[None] | None = None

    def collect(self, part: bytes) -> None:
        """Add a part to the batch."""
        if part:
            self._batch.append(part)
            self._size += len(part)

    async def wait_for_room(self) -> None:
        """Wait until more bytes may come in: not while other uploads have the memory for them."""
        while not self._ingest.has_room():  # noqa: ASYNC110 - a thread gives the room back
            await asyncio.sleep(_ROOM_SECONDS)

    async def write(self, *, last: bool) -> None:
        """Begin to write the batch if it is full or the ``last``, once the one before is written."""
        if self._batch and (last or self._size >= self._full):
            await self.wait()
            await self.wait_for_room()  # the batch before may have taken it
            write = self._executors.run(self._ingest.write_all, self._batch)
            self._job = asyncio.get_running_loop().create_task(write)
            self._batch, self._size = [], 0

    async def wait(self) -> None:
        """Wait for the batch that is being written."""
        if self._job is not None:
            await self._job
            self._job = None

    async def write_rest(self) -> None:
        """Write all that was collected."""
        await self.wait()
        if self._batch:
            await self.wait_for_room()
            await self._executors.run(self._ingest.write_all, self._batch)

    async def settle(self) -> None:
        """Wait for the batch that is being written, on the way out with an error.

        The ingest must not be closed under its writer.
        """
        if self._job is not None:
            await asyncio.wait([self._job])
            if not self._job.cancelled():
                self._job.exception()


async def receive(service: Service, exchange: Exchange, session: UploadSession, length: int | None) -> None:
    """Stream the body into the ingest, receiving the next batch while the last is written.

    Raises :class:`ClientGone` if the client leaves before its end, :class:`ErrorResponse` if it is not
    ``length`` bytes long, :class:`TooLarge` or :class:`OverQuota` as soon as it is too long.
    """
    began, limit = session.ingest.offset, service.config.upload_limit
    if began + (length or 0) > limit:
        raise too_large(limit)
    room = None
    if service.stores.catalog.limits_bytes(session.upload.repository):
        room = UploadReservation(service, session.upload, began, length)
        await room.check(began + (length or 0))
    writer = _BatchWriter(service.executors, session)
    received = 0
    try:
        more = True
        while more:
            if length is None or received < length:
                await writer.wait_for_room()
            part, more = await exchange.read_part(service.config.patience)
            received += len(part)
            if began + received > limit:
                raise too_large(limit)
            if length is not None and received > length:
                raise ErrorResponse(400, "SIZE_INVALID", f"more than the {length} declared bytes came")
            writer.collect(part)
            if room is not None:
                await room.take(began + received)
            await writer.write(last=not more)
        await writer.wait()
        room = None  # it is counted anew with the upload's new size
    except (ClientGone, ClientSilent):
        # For a client that sends ranges, all received bytes count, also those not yet handed over.
        await writer.write_rest()
        raise
    finally:
        await writer.settle()
        if room is not None:
            await room.give_back(session.ingest.offset)
    came = session.ingest.offset - began
    if length is not None and came != length:
        raise ErrorResponse(400, "SIZE_INVALID", f"{came} of the {length} declared bytes came")


async def ceiling(service: Service, name: str) -> tuple[int, CallerError]:
    """Return how many bytes a blob may have now, and the error for more.

    The quota is checked again in the transaction that links the blob: others may be faster.
    """
    limit = service.config.upload_limit
    left = None
    if service.config.quotas:
        left = await service.executors.run(service.stores.catalog.bytes_left, name)
    if left is None or left >= limit:
        return limit, too_large(limit)
    return max(0, left), over_quota(name, max(0, left))


def too_large(limit: int) -> TooLarge:
    """Return the error for a blob over the limit of bytes."""
    return TooLarge(f"the blob has more than the {limit} bytes that this registry takes", limit=limit)


async def close(service: Service, session: UploadSession) -> None:
    """Let go of an upload; its bytes stay."""
    if session.ingest.waits:
        await service.executors.run(session.ingest.close)
    else:
        session.ingest.close()


async def note(service: Service, session: UploadSession) -> Upload:
    """Record the offset of an upload, with the digest if this request sent all of it."""
    if session.ingest.waits:
        await service.executors.run(session.ingest.save)
    digest = None
    if session.upload.offset == 0:
        # The last part of a long body may still be hashed.
        long = session.ingest.offset > _BATCH
        digest = await service.executors.run(session.ingest.digest) if long else session.ingest.digest()
    try:
        return await service.executors.write_volatile(
            service.stores.catalog.advance_upload, session.upload, session.ingest.offset, digest
        )
    except NotFound as error:
        # It was finished while this request came in: the file that this one began has no owner.
        await service.executors.run(session.ingest.abort)
        raise upload_unknown(session.upload.id, session.upload.repository) from error


async def forget(service: Service, session: UploadSession) -> None:
    """Delete an upload that this request holds, and release it."""
    try:
        await end(service, session)
    finally:
        await close(service, session)


async def end(service: Service, session: UploadSession) -> None:
    """Delete an upload: its row first, while the lock is still held."""
    try:
        await service.executors.write(service.stores.catalog.end_upload, session.upload.id)
    except StorageFull:
        # The room that the bytes take may be all that the row's end needs.
        await service.executors.run(session.ingest.abort)
        await service.executors.remove(service.stores.catalog.end_upload, session.upload.id)
    await service.executors.run(session.ingest.abort)


async def cut(service: Service, session: UploadSession) -> None:
    """Free the room of bytes that do not count: on a full disk others need it."""
    with contextlib.suppress(StorageError):
        await service.executors.run(session.ingest.resume, session.upload.offset)


async def drop(service: Service, name: str, upload_id: str) -> None:
    """Delete an upload, if it is still there and no other request holds it."""
    try:
        session = await take(service, name, upload_id)
    except DigestryError:
        return
    await forget(service, session)
