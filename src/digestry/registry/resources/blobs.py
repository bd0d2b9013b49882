"""Blobs: ``/v2/<name>/blobs/<digest>``."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from typing import BinaryIO, Final

from digestry.errors import NotFound
from digestry.model.digest import Digest
from digestry.registry import ranges
from digestry.registry.chunk_size import AMONG_OTHERS
from digestry.registry.error_responses import ClientGone, blob_damaged, blob_unknown, not_allowed
from digestry.registry.exchange import Exchange
from digestry.registry.service import ContentDamaged, Service

SMALL: Final = 64 << 10
"""Up to so many bytes a blob is read whole, verified, and sent from memory."""

MEDIA_TYPE: Final = "application/octet-stream"

_PROBED: Final = 512 << 10
_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)


async def handle(service: Service, exchange: Exchange, name: str, digest_text: str) -> None:
    """One request to a blob."""
    digest = Digest.parse(digest_text)
    match exchange.scope["method"]:
        case "GET" | "HEAD":
            try:
                await _get(service, exchange, name, digest)
            except ContentDamaged as error:
                if exchange.answered:
                    service.quarantine_in_background(error)
                    raise
                if await service.quarantine_if_damaged(error):
                    raise blob_damaged(digest, name) from error
                await _get(service, exchange, name, digest)  # it was put back in this moment
        case "DELETE":
            exchange.record_audit_event(digest=digest)
            try:
                await service.remove(service.catalog.delete_blob, name, digest)
            except NotFound as error:
                raise blob_unknown(digest, name) from error
            await exchange.answer(202)
        case other:
            raise not_allowed(other, "GET, HEAD, DELETE")


async def _get(service: Service, exchange: Exchange, name: str, digest: Digest) -> None:
    found = service.read_cache.blob(name, str(digest))
    if found is None:
        # A manifest is content as well, and some clients ask for it here.
        manifest = service.read_cache.manifest(name, str(digest))
        if manifest is None:
            damaged = service.read_cache.damaged(name, str(digest))
            raise blob_damaged(digest, name) if damaged else blob_unknown(digest, name)
        size, lease_end = manifest.size, manifest.lease_end
    else:
        size, lease_end = found.size, found.lease_end
    headers = headers_of(digest)
    if exchange.scope["method"] == "HEAD":
        if not await service.ensure_lease(name, digest, lease_end):
            raise blob_unknown(digest, name)
        await exchange.begin(200, headers, size)
        await exchange.finish()
        return
    selection = ranges.choose(exchange, size, etag=f'"{digest}"', media_type=MEDIA_TYPE)
    headers = selection.headers(headers)
    if size > SMALL and found is not None:
        await _send_file(service, exchange, digest, headers, selection=selection, size=size)
        return
    content = service.read(digest, size) if size <= SMALL else await service.disk(service.read, digest, size)
    await exchange.begin(selection.status, headers, selection.length)
    await exchange.finish(content if selection.whole else selection.body(content))


def headers_of(digest: Digest) -> list[tuple[bytes, bytes]]:
    """What the answer to each GET and HEAD of a blob has."""
    return [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"docker-content-digest", str(digest).encode()),
        (b"etag", f'"{digest}"'.encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"max-age=31536000, immutable"),
    ]


async def _send_file(
    service: Service,
    exchange: Exchange,
    digest: Digest,
    headers: list[tuple[bytes, bytes]],
    *,
    selection: ranges.Selection,
    size: int,
) -> None:
    async with service.chunk_size.beginning:
        file = _unbuffered(await service.disk(service.open, digest, size))
    watch: asyncio.Task[None] | None = None
    answered = service.observer.answered

    def stopped() -> bool:
        return watch is not None and watch.done()

    async def read(position: int, last: int) -> bytes:
        nonlocal answered
        await exchange.wait_for_room(service.chunk_size, stopped=stopped)
        before, answered = answered, service.observer.answered
        size = service.chunk_size.size(
            alone=before == answered, taken=exchange.bytes_taken, slow=exchange.slow
        )
        count = min(size, last + 1 - position)
        try:
            part = await _read(service, file.fileno(), count, position)
        except OSError as error:
            raise ContentDamaged(digest, size, f"it cannot be read: {error.strerror}") from error
        if not part:
            raise ContentDamaged(digest, size, f"it ended at byte {position} of {size}")
        return part

    try:
        with service.chunk_size.sending():
            await exchange.begin(selection.status, headers, selection.length)
            answered = service.observer.answered
            if selection.length > AMONG_OTHERS:
                watch = asyncio.create_task(until_gone(exchange))
            await ranges.send(exchange, selection, read, stopped=stopped)
    finally:
        file.close()
        if watch is not None:
            watch.cancel()


def _unbuffered(file: BinaryIO) -> BinaryIO | io.RawIOBase:
    """The same without its buffer, which thousands of them would have for nothing."""
    return file.detach() if isinstance(file, io.BufferedReader) else file


async def _read(service: Service, descriptor: int, count: int, position: int) -> bytes:
    """Bytes of a file: at once if memory has them, else by a thread that may wait for the disk."""
    places = (*range(position, position + count, _PROBED), position + count - 1)
    if all(_in_memory(descriptor, place) for place in places):
        # Nothing else here waits once the client has left: others, and who watches for that, get a turn.
        await asyncio.sleep(0)
        return os.pread(descriptor, count, position)
    return await service.disk(os.pread, descriptor, count, position)


def _in_memory(descriptor: int, position: int) -> bool:
    # preadv2(2): RWF_NOWAIT fails where it would have to wait; some file systems do not have it.
    try:
        return bool(_NOWAIT) and os.preadv(descriptor, [bytearray(1)], position, _NOWAIT) == 1
    except OSError:
        return False


async def until_gone(exchange: Exchange) -> None:
    """Ends when the client leaves."""
    # To a client that left, the server would let every byte be sent: into nothing.
    with contextlib.suppress(ClientGone):
        while True:
            await exchange.read_part(None)
