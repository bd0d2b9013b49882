"""Blobs: ``/v2/<name>/blobs/<digest>``."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from digestry.blobs.failures import BytesLost
from digestry.errors import NotFound
from digestry.model.digest import Digest
from digestry.registry import ranges
from digestry.registry.chunk_size import AMONG_OTHERS
from digestry.registry.error_responses import ClientGone, blob_damaged, blob_unknown
from digestry.registry.exchange import Exchange
from digestry.registry.resources import age_gate, conditional
from digestry.registry.service import Service
from digestry.registry.stores import ContentDamaged

SMALL: Final = 64 << 10
"""Up to so many bytes a blob is read whole, verified, and sent from memory."""

MEDIA_TYPE: Final = "application/octet-stream"


def check_digest(_: Service, __: str, digest_text: str) -> None:
    """Raise :class:`InvalidDigest` if the path names no digest."""
    Digest.parse(digest_text)


async def get_blob(service: Service, exchange: Exchange, name: str, digest_text: str) -> None:
    """Answer with a blob or ranges of it; to a HEAD with its headers."""
    digest = Digest.parse(digest_text)
    try:
        await _send(service, exchange, name, digest)
    except ContentDamaged as error:
        if exchange.response_started:
            service.quarantine_in_background(error)
            raise
        if await service.quarantine_if_damaged(error):
            raise blob_damaged(digest, name) from error
        await _send(service, exchange, name, digest)  # it was put back in this moment


async def delete_blob(service: Service, exchange: Exchange, name: str, digest_text: str) -> None:
    """Take a blob out of a repository, unless a manifest there needs it."""
    digest = Digest.parse(digest_text)
    exchange.record_audit_event(digest=digest)
    try:
        await service.executors.remove(service.stores.catalog.delete_blob, name, digest)
    except NotFound as error:
        raise blob_unknown(digest, name) from error
    await exchange.respond(202)


async def _send(service: Service, exchange: Exchange, name: str, digest: Digest) -> None:
    # A manifest is content as well, and some clients ask for it here.
    found = await service.stores.read_cache.content(name, str(digest))
    if found is None:
        raise blob_unknown(digest, name)
    if service.config.ages:
        await age_gate.check_digest(service, exchange, name, str(digest))
    if found.damaged:
        raise blob_damaged(digest, name)
    size = found.size
    headers = headers_of(digest)
    head = exchange.scope["method"] == "HEAD"
    if head and not await service.ensure_lease(name, digest, found.lease_end):
        raise blob_unknown(digest, name)
    if conditional.not_modified(exchange, str(digest)):
        await exchange.start_response(304, headers, None)
        await exchange.send_body()
        return
    if head:
        await exchange.start_response(200, headers, size)
        await exchange.send_body()
        return
    selection = ranges.choose(exchange, size, etag=f'"{digest}"', media_type=MEDIA_TYPE)
    headers = selection.headers(headers)
    if size > SMALL and found.is_blob:
        redirect = service.config.storage.redirect
        if redirect and redirect.applies_to(exchange.address):
            url = await service.executors.run(service.stores.blobs.redirect, digest)
            if url is not None:
                await exchange.respond(307, [("Location", url), ("Docker-Content-Digest", str(digest))])
                return
        await _send_ranges(service, exchange, digest, headers, selection=selection, size=size)
        return
    if size <= service.stores.inline_limit:
        content = service.stores.read(digest, size)
    else:
        content = await _read_far(service, digest, size)
    await exchange.start_response(selection.status, headers, selection.length)
    await exchange.send_body(selection.body(content))


async def _read_far(service: Service, digest: Digest, size: int) -> bytes:
    """Return small content that is not read in microseconds, from memory if it was read before."""
    cache = service.stores.blob_cache
    content = cache.get(str(digest))
    if content is None:
        content = await service.executors.run(service.stores.read, digest, size)
        if size <= SMALL:
            cache.put(str(digest), content)
    return content


def headers_of(digest: Digest) -> list[tuple[bytes, bytes]]:
    """Return the headers of every answer to a GET or HEAD of a blob."""
    return [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"docker-content-digest", str(digest).encode()),
        (b"etag", f'"{digest}"'.encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"max-age=31536000, immutable"),
    ]


async def _send_ranges(
    service: Service,
    exchange: Exchange,
    digest: Digest,
    headers: list[tuple[bytes, bytes]],
    *,
    selection: ranges.RangeSelection,
    size: int,
) -> None:
    begun = selection.parts[0]
    async with service.chunk_size.beginning:
        content = await service.stores.open_ranges(
            digest, size, service.executors.run, begun.first, begun.last
        )
    watch: asyncio.Task[None] | None = None
    answered = service.observer.answered

    def stopped() -> bool:
        return watch is not None and watch.done()

    async def next_count(position: int, last: int) -> int:
        nonlocal answered
        await exchange.wait_until_read(service.chunk_size, stopped=stopped)
        before, answered = answered, service.observer.answered
        chunk = service.chunk_size.size(
            alone=before == answered, taken=exchange.bytes_taken, slow=exchange.slow
        )
        return min(chunk, last + 1 - position)

    async def read(position: int, last: int) -> bytes:
        count = await next_count(position, last)
        try:
            part = await content.read(position, count)
        except BytesLost as error:
            raise ContentDamaged(digest, size, error.message) from error
        if not part:
            raise ContentDamaged(digest, size, f"it ended at byte {position} of {size}")
        return part

    async def file_with(position: int, last: int) -> tuple[int, int] | None:
        count = await next_count(position, last)
        try:
            file = await content.file_with(position, count)
        except BytesLost as error:
            raise ContentDamaged(digest, size, error.message) from error
        return None if file is None else (file, count)

    try:
        with service.chunk_size.sending():
            await exchange.start_response(selection.status, headers, selection.length)
            answered = service.observer.answered
            if selection.length > AMONG_OTHERS:
                watch = asyncio.create_task(until_client_leaves(exchange))
            await ranges.send(exchange, selection, read, file_with=file_with, stopped=stopped)
    finally:
        content.close()
        if watch is not None:
            watch.cancel()


async def until_client_leaves(exchange: Exchange) -> None:
    """Return when the client leaves."""
    # To a client that left, the server would let every byte be sent: into nothing.
    with contextlib.suppress(ClientGone):
        while True:
            await exchange.read_part(None)
