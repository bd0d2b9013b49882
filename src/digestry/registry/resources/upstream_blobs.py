"""Blobs of an upstream: served from the store, or streamed to clients while they arrive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from digestry.blobs.protocols import BlobRanges
from digestry.errors import DigestryError, RemoteNotFound
from digestry.model.digest import Digest
from digestry.registry import ranges
from digestry.registry.error_responses import ClientGone, ErrorResponse, blob_unknown
from digestry.registry.exchange import Exchange
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.mirror import Mirror, UpstreamRepository
from digestry.registry.pull_through.upstream_errors import TROUBLE
from digestry.registry.resources import age_gate, blobs, conditional
from digestry.registry.resources.upstream_download import HELD_BACK, Abandoned, Download, check_room
from digestry.registry.service import Service

_PART: Final = 512 << 10
_PUSH_WAITS: Final = 5.0
"""Seconds that a client with the right to push waits for the default mirror's answer about a blob."""


async def get(service: Service, exchange: Exchange, repository: UpstreamRepository, digest: Digest) -> None:
    """Answer a GET or HEAD of a blob."""
    mirror, text = repository.mirror, str(digest)
    if service.config.ages and repository.may_fetch:
        await age_gate.check_upstream(service, exchange, repository, digest)
    reads = service.stores.read_cache
    here = (
        await reads.blob(repository.local_name, text) is not None
        or await reads.manifest(repository.local_name, text) is not None
    )
    if here or not repository.may_fetch:
        mirror.count("hits", int(here))
        await blobs.get_blob(service, exchange, repository.local_name, str(digest))
        return
    mirror.count("misses")
    if exchange.scope["method"] == "HEAD" and await _head(service, exchange, repository, digest):
        return
    watch = asyncio.create_task(blobs.until_client_leaves(exchange))
    try:
        while not await _download(service, exchange, repository, digest, watch):
            pass
    finally:
        watch.cancel()


async def _head(service: Service, exchange: Exchange, repository: UpstreamRepository, digest: Digest) -> bool:
    """Answer as a GET would; return False if only a download can find the size."""
    mirror = repository.mirror

    def ask() -> int | None:
        with mirror.requesting():
            return mirror.upstream.blob_size(repository.upstream_name, digest)

    # A push asks this as well, and must go on while upstream is away.
    may_push = repository.by_default and "push" in exchange.principal.allowed(repository.requested_name)
    try:
        async with asyncio.timeout(_PUSH_WAITS if may_push else None):
            size = await mirror.single_flight((repository.local_name, str(digest), "HEAD"), ask)
    except (*TROUBLE, TimeoutError) as error:
        if may_push or isinstance(error, TimeoutError):
            raise blob_unknown(digest, repository.requested_name) from error
        raise _problem(repository, digest, error) from error
    if size is None:
        return False
    await service.executors.run(check_room, service, repository.local_name, digest, size)
    await exchange.start_response(200, blobs.headers_of(digest), size)
    await exchange.send_body()
    return True


async def _download(
    service: Service,
    exchange: Exchange,
    repository: UpstreamRepository,
    digest: Digest,
    watch: asyncio.Task[None],
) -> bool:
    """Send the blob while it arrives; return False if nothing was sent and the download must be started
    again."""
    async with _joined(service, repository, digest) as download:
        try:
            await _wait(download, watch, lambda: download.size is not None)
            if download.size is None or download.size <= HELD_BACK or download.content is None:
                await _wait(download, watch, lambda: False)
        except Abandoned:
            return False
        except TROUBLE as error:
            raise _problem(repository, digest, error) from error
        if download.linked:
            await blobs.get_blob(service, exchange, repository.local_name, str(digest))
            return True
        if exchange.scope["method"] == "HEAD":
            await exchange.start_response(200, blobs.headers_of(digest), download.size)
            await exchange.send_body()
            return True
        try:
            await _send(service, exchange, download, watch)
        except TROUBLE as error:
            raise _problem(repository, digest, error) from error
    return True


@contextlib.asynccontextmanager
async def _joined(
    service: Service, repository: UpstreamRepository, digest: Digest
) -> AsyncIterator[Download]:
    """Return the download of a blob, starting it if necessary."""
    downloads: dict[tuple[str, Digest], Download] = repository.mirror.downloads
    key = repository.local_name, digest
    download = downloads.get(key)
    begin = download is None or download.ended
    if download is None or download.ended:
        download = downloads[key] = Download(service, repository, digest)
    download.clients += 1
    if begin:
        _start(
            repository.mirror, key, download
        )  # once it has a client: its thread stops a download that no client waits for
    try:
        yield download
    finally:
        download.clients -= 1
        if download.ended and not download.clients:
            download.close()


def _start(mirror: Mirror, key: tuple[str, Digest], download: Download) -> None:
    future = asyncio.get_running_loop().run_in_executor(mirror.downloading, download.run)

    def ended(_: asyncio.Future[None]) -> None:
        if mirror.downloads.get(key) is download:
            del mirror.downloads[key]
        if not download.clients:
            download.close()

    future.add_done_callback(ended)


async def _wait(download: Download, watch: asyncio.Task[None], condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds, or the download has succeeded. Raises the download's error, and
    :class:`ClientGone`."""
    while not condition():
        if download.error is not None:
            raise download.error
        if download.linked:
            return
        await asyncio.wait({download.changed(), watch}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            raise ClientGone


async def _send(service: Service, exchange: Exchange, download: Download, watch: asyncio.Task[None]) -> None:
    size, content = download.size, download.content
    assert size is not None  # noqa: S101 - that was waited for
    assert content is not None  # noqa: S101 - it is opened before the size is known

    stored: BlobRanges | None = None

    async def read(position: int, last: int) -> bytes:
        nonlocal stored
        # From here on an error breaks the connection: the client has the beginning, and no end.
        await _wait(download, watch, lambda: download.ready > position)
        count = min(_PART, last + 1 - position, download.ready - position)
        if stored is None:
            part = await service.executors.run(content.read, position, count)
            if part:
                return part
            # The client is so far behind that the bytes it needs are only in the store, once they are
            # committed.
            await _wait(download, watch, lambda: False)
            stored = await service.stores.open_ranges(
                download.digest, size, service.executors.run, position, last
            )
        return await stored.read(position, count)

    if conditional.not_modified(exchange, str(download.digest)):
        await exchange.start_response(304, blobs.headers_of(download.digest), None)
        await exchange.send_body()
        return
    selection = ranges.choose(exchange, size, etag=f'"{download.digest}"', media_type=blobs.MEDIA_TYPE)
    headers = selection.headers(blobs.headers_of(download.digest))
    await exchange.start_response(selection.status, headers, selection.length)
    try:
        await ranges.send(exchange, selection, read)
    finally:
        if stored is not None:
            stored.close()


def _problem(repository: UpstreamRepository, digest: Digest, error: DigestryError) -> ErrorResponse:
    if isinstance(error, RemoteNotFound):
        return blob_unknown(digest, repository.local_name)
    return upstream_errors.error_response(repository.mirror.config, error)


async def fetch(service: Service, repository: UpstreamRepository, digest: Digest) -> None:
    """Fetch a blob, unless it is in the store. Raises the errors of requests to an upstream."""
    while await service.stores.read_cache.blob(repository.local_name, str(digest)) is None:
        async with _joined(service, repository, digest) as download:
            while not download.linked:
                if isinstance(download.error, Abandoned):
                    break
                if download.error is not None:
                    raise download.error
                await download.changed()
