"""Blobs: ``/v2/<name>/blobs/<digest>``."""

from __future__ import annotations

import os
import re
from typing import Final

from digestry.errors import NotFound, StorageError
from digestry.model.digest import Digest
from digestry.registry.exchange import Exchange
from digestry.registry.problems import Problem, blob_unknown, not_allowed
from digestry.registry.service import Service

SMALL: Final = 64 << 10
"""Up to so many bytes a blob is read whole, verified, and sent from memory."""

_PART: Final = 512 << 10
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


async def handle(service: Service, exchange: Exchange, name: str, digest_text: str) -> None:
    """One request to a blob."""
    digest = Digest.parse(digest_text)
    match exchange.scope["method"]:
        case "GET" | "HEAD":
            await _get(service, exchange, name, digest)
        case "DELETE":
            try:
                await service.write(service.catalog.delete_blob, name, digest)
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
            raise blob_unknown(digest, name)
        size, lease_end = manifest.size, None
    else:
        size, lease_end = found.size, found.lease_end
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"docker-content-digest", str(digest).encode()),
        (b"etag", f'"{digest}"'.encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"max-age=31536000, immutable"),
    ]
    if exchange.scope["method"] == "HEAD":
        if lease_end is not None:
            await service.promise(digest, lease_end)
        await exchange.begin(200, headers, size)
        await exchange.finish()
        return
    wanted = exchange.header(b"range")
    selected = None if wanted is None else _select(wanted, size)
    try:
        if selected is not None:
            await _send_part(service, exchange, digest, headers, selected=selected, size=size)
        elif size <= SMALL:
            content = service.blobs.read(digest, limit=size)
            await exchange.begin(200, headers, len(content))
            await exchange.finish(content)
        elif exchange.can_send_files:
            await exchange.begin(200, headers, size)
            await exchange.finish_with_file(str(service.blobs.path(digest)))
        else:
            await _send_part(service, exchange, digest, headers, selected=(0, size - 1), size=size)
    except NotFound as error:
        raise StorageError(f"blob {digest} is linked, but its file is gone") from error


def _select(header: str, size: int) -> tuple[int, int] | None:
    """The first and last byte that a ``Range`` wants (RFC 9110, section 14); None for the whole.

    Raises :class:`Problem` 416 if there are no such bytes. Several ranges at once are not served,
    as the RFC allows: the answer is then the whole.
    """
    match = _RANGE.fullmatch(header.replace(" ", ""))
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
    headers: list[tuple[bytes, bytes]],
    *,
    selected: tuple[int, int],
    size: int,
) -> None:
    first, last = selected
    file = await service.disk(service.blobs.open, digest)
    try:
        status = 200
        if (first, last) != (0, size - 1) or exchange.header(b"range") is not None:
            status = 206
            headers.append((b"content-range", f"bytes {first}-{last}/{size}".encode()))
        await exchange.begin(status, headers, last - first + 1)
        position = first
        while position <= last:
            part = await service.disk(os.pread, file.fileno(), min(_PART, last + 1 - position), position)
            if not part:
                raise StorageError(f"blob {digest} ended at byte {position} of {size}")
            position += len(part)
            await exchange.finish(part, more=position <= last)
    finally:
        file.close()
