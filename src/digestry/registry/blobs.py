"""Blobs: ``/v2/<name>/blobs/<digest>``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import Final

from digestry.errors import NotFound
from digestry.model.digest import Digest
from digestry.registry.exchange import Exchange
from digestry.registry.parts import AMONG_OTHERS
from digestry.registry.problems import ClientGone, Problem, blob_damaged, blob_unknown, not_allowed
from digestry.registry.service import Damaged, Service

SMALL: Final = 64 << 10
"""Up to so many bytes a blob is read whole, verified, and sent from memory."""

_PROBED: Final = 512 << 10
_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


async def handle(service: Service, exchange: Exchange, name: str, digest_text: str) -> None:
    """One request to a blob."""
    digest = Digest.parse(digest_text)
    match exchange.scope["method"]:
        case "GET" | "HEAD":
            try:
                await _get(service, exchange, name, digest)
            except Damaged as error:
                if exchange.answered:
                    service.report(error)
                    raise
                if await service.doubt(error):
                    raise blob_damaged(digest, name) from error
                await _get(service, exchange, name, digest)  # it was put back in this moment
        case "DELETE":
            exchange.did(digest=digest)
            try:
                await service.remove(service.catalog.delete_blob, name, digest)
            except NotFound as error:
                raise blob_unknown(digest, name) from error
            await exchange.answer(202)
        case other:
            raise not_allowed(other, "GET, HEAD, DELETE")


async def _get(service: Service, exchange: Exchange, name: str, digest: Digest) -> None:
    found = service.hot.blob(name, str(digest))
    if found is None:
        # A manifest is content as well, and some clients ask for it here.
        manifest = service.hot.manifest(name, str(digest))
        if manifest is None:
            damaged = service.hot.damaged(name, str(digest))
            raise blob_damaged(digest, name) if damaged else blob_unknown(digest, name)
        size, lease_end = manifest.size, manifest.lease_end
    else:
        size, lease_end = found.size, found.lease_end
    etag, headers = f'"{digest}"', headers_of(digest)
    if exchange.scope["method"] == "HEAD":
        if not await service.promise(name, digest, lease_end):
            raise blob_unknown(digest, name)
        await exchange.begin(200, headers, size)
        await exchange.finish()
        return
    wanted = exchange.header(b"range")
    selected = None if wanted is None else select(wanted, size)
    status = 200
    if selected is not None and exchange.header(b"if-range") in {None, etag}:
        status = 206
        headers.append((b"content-range", f"bytes {selected[0]}-{selected[1]}/{size}".encode()))
    first, last = selected if selected is not None and status == 206 else (0, size - 1)
    if size > SMALL and found is not None:
        await _send_part(service, exchange, digest, status, headers, selected=(first, last), size=size)
        return
    content = service.read(digest, size) if size <= SMALL else await service.disk(service.read, digest, size)
    if status == 206:
        content = content[first : last + 1]
    await exchange.begin(status, headers, len(content))
    await exchange.finish(content)


def headers_of(digest: Digest) -> list[tuple[bytes, bytes]]:
    """What the answer to each GET and HEAD of a blob has."""
    return [
        (b"content-type", b"application/octet-stream"),
        (b"docker-content-digest", str(digest).encode()),
        (b"etag", f'"{digest}"'.encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"max-age=31536000, immutable"),
    ]


def select(header: str, size: int) -> tuple[int, int] | None:
    """The first and last byte that a ``Range`` wants (RFC 9110, section 14); None for the whole.

    Raises :class:`Problem` 416 if there are no such bytes. Several ranges at once are not served,
    as the RFC allows: the answer is then the whole.
    """
    match = _RANGE.fullmatch(header.replace(" ", "").lower())
    if match is None or match[0] == "bytes=-":
        return None
    if match[1] == "":
        length = int(match[2])
        first, last = max(0, size - length), size - 1
        satisfiable = length > 0 and size > 0
    else:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        satisfiable = first <= last
    if not satisfiable:
        raise Problem(
            416,
            "SIZE_INVALID",
            f"the blob has {size} bytes: {header} is not in it",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, last


async def _send_part(
    service: Service,
    exchange: Exchange,
    digest: Digest,
    status: int,
    headers: list[tuple[bytes, bytes]],
    *,
    selected: tuple[int, int],
    size: int,
) -> None:
    position, last = selected
    file = await service.disk(service.open, digest, size)
    watch: asyncio.Task[None] | None = None
    try:
        with service.parts.sending():
            await exchange.begin(status, headers, last - position + 1)
            answered = service.observer.answered
            if last - position >= AMONG_OTHERS:
                watch = asyncio.create_task(until_gone(exchange))
            while position <= last and (watch is None or not watch.done()):
                before, answered = answered, service.observer.answered
                count = min(service.parts.size(alone=before == answered), last + 1 - position)
                try:
                    part = await _read(service, file.fileno(), count, position)
                except OSError as error:
                    raise Damaged(digest, size, f"it cannot be read: {error.strerror}") from error
                if not part:
                    raise Damaged(digest, size, f"it ended at byte {position} of {size}")
                position += len(part)
                await exchange.finish(part, more=position <= last)
    finally:
        file.close()
        if watch is not None:
            watch.cancel()


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
            await exchange.part(None)
