"""Uploads: ``/v2/<name>/blobs/uploads/`` (distribution-spec, "Pushing blobs").

An upload's bytes are in the blob store's ingest, under the upload's id; its row in the catalog says how many
of them count. An interrupted request leaves bytes that do not count: the next one truncates them. The
ingest's lock keeps two requests for one upload apart.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Sequence
from typing import Final

from digestry.catalog import clock
from digestry.catalog.quotas import OverQuota
from digestry.catalog.uploads import Upload
from digestry.errors import (
    ContentError,
    DigestryError,
    InvalidDigest,
    InvalidReference,
    NotFound,
    StorageError,
    TooLarge,
)
from digestry.model.digest import ALGORITHMS, Digest, shown
from digestry.model.reference import check_repository
from digestry.registry.error_responses import (
    ClientGone,
    ClientSilent,
    ErrorResponse,
    bad_parameter,
    upload_unknown,
)
from digestry.registry.exchange import Exchange
from digestry.registry.observability.audit_log import LogEntry
from digestry.registry.proxies import share_of
from digestry.registry.resources import age_gate, upload_session
from digestry.registry.resources.upload_session import UploadSession
from digestry.registry.service import Service

_SMALL: Final = 64 << 10
"""Up to so many bytes a blob that comes in one request is kept in memory until all of it is there."""

_CONTENT_RANGE: Final = re.compile(r"(?:bytes )?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]+|\*))?", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


async def begin_upload(service: Service, exchange: Exchange, name: str, _: str) -> None:
    """Begin an upload, mount a blob, or store one that comes in this request."""
    if await _mount(service, exchange, name):
        return
    whole = exchange.parameter("digest")
    digest = None if whole is None else Digest.parse(whole)
    algorithm = exchange.parameter("digest-algorithm") or (digest.algorithm if digest else "sha256")
    if digest is not None:
        exchange.record_audit_event(action="push-blob", digest=digest)
    if algorithm not in ALGORITHMS:
        raise bad_parameter("digest-algorithm", algorithm, f"one of {', '.join(ALGORITHMS)} is required")
    length = exchange.content_length
    if digest is not None and length is not None and length <= _SMALL:
        await _push_small(service, exchange, name, digest, length)
        return
    upload = await service.executors.write_volatile(
        service.stores.catalog.begin_upload,
        name,
        algorithm,
        actor=_holder(exchange),
        most=service.config.uploads,
        most_of_one=service.config.uploads_per_user,
    )
    exchange.record_audit_event(upload=upload.id)
    if upload.replaced is not None:
        await service.executors.run(service.upload_sweep.drop_replaced, upload.replaced)
    if digest is not None:
        try:
            await _finish(service, exchange, name, upload.id, digest, start=0, whole=True)
        except BaseException:
            # It could perhaps not be opened, or not be deleted.
            with contextlib.suppress(StorageError):
                await upload_session.drop(service, name, upload.id)
            raise
        return
    await exchange.respond(202, _progress(upload))


def _holder(exchange: Exchange) -> str:
    """Return the user whose share of all uploads this one counts in; without a login, the address."""
    identity = exchange.principal.identity
    return f"{identity.name} {share_of(exchange.address)}" if identity.anonymous else identity.name


async def _mount(service: Service, exchange: Exchange, name: str) -> bool:
    """Mount the blob that ``mount`` and ``from`` name; return whether that answered the request.

    They are hints: one that cannot be used is passed over, and an upload begins (distribution-spec, "Mounting
    a blob from another repository"). A repository that the client must not see is not searched at all.
    """
    mounts, sources = exchange.parameters("mount"), exchange.parameters("from")
    if len(mounts) != 1 or len(sources) > 1:
        return False
    source = sources[0] if sources else None
    try:
        digest = Digest.parse(mounts[0])
        if source is not None:
            check_repository(source)
    except (InvalidDigest, InvalidReference):
        return False
    may_pull = exchange.principal.may_pull
    # A mount without a source is for clients that may pull everything: else the time would reveal hidden
    # repositories.
    if not (exchange.principal.pulls_everything() if source is None else may_pull(source)):
        return False
    if service.config.ages:
        if source is None:
            may_pull = functools.partial(age_gate.may_search, service, exchange.principal)
        elif not await age_gate.may_copy(service, source, digest, exchange.principal):
            return False
    size = await service.executors.write(
        service.stores.catalog.mount_blob, name, digest, source=source, may_pull=may_pull
    )
    if size is None:
        return False
    exchange.record_audit_event(action="mount-blob", digest=digest, size=size, source=source)
    await exchange.respond(201, _stored(name, digest))
    return True


def check_id(_: Service, name: str, upload_id: str) -> None:
    """Raise :class:`ErrorResponse` 404 if no upload can have this ID."""
    if not _ID.fullmatch(upload_id):
        raise upload_unknown(upload_id, name)


async def get_upload(service: Service, exchange: Exchange, name: str, upload_id: str) -> None:
    """Answer with how many bytes of an upload came."""
    check_id(service, name, upload_id)
    upload = await service.executors.run(service.stores.catalog.upload, name, upload_id)
    if upload is None:
        raise upload_unknown(upload_id, name)
    await exchange.respond(204, _progress(upload))


async def cancel_upload(service: Service, exchange: Exchange, name: str, upload_id: str) -> None:
    """Drop an upload and its bytes."""
    check_id(service, name, upload_id)
    exchange.record_audit_event(upload=upload_id)
    session = await upload_session.take(service, name, upload_id)
    await upload_session.forget(service, session)
    await exchange.respond(204)


async def finish_upload(service: Service, exchange: Exchange, name: str, upload_id: str) -> None:
    """Take the last bytes of an upload, and make it a blob of the repository."""
    check_id(service, name, upload_id)
    exchange.record_audit_event(upload=upload_id)
    text = exchange.parameter("digest")
    if text is None:
        raise ErrorResponse(400, "DIGEST_INVALID", "the digest parameter is missing: ?digest=sha256:…")
    digest = Digest.parse(text)
    start, length = _content_range(exchange)
    if (
        start is None
        and length is not None
        and length <= _SMALL
        and await _finish_small(service, exchange, name, upload_id, digest, length=length)
    ):
        return
    await _finish(service, exchange, name, upload_id, digest, start=start)


async def continue_upload(service: Service, exchange: Exchange, name: str, upload_id: str) -> None:
    """Take more bytes of an upload."""
    check_id(service, name, upload_id)
    exchange.record_audit_event(upload=upload_id)
    start, length = _content_range(exchange)
    session = await upload_session.take(service, name, upload_id)
    try:
        upload = session.upload
        _check_start(upload, start)
        try:
            await upload_session.receive(service, exchange, session, length)
        except (TooLarge, OverQuota):
            # It can no longer become a blob: its bytes must be removed.
            await upload_session.end(service, session)
            raise
        except (ClientGone, ClientSilent):
            # Who sends ranges asks how far it came, and goes on there. Who does not would begin
            # anew: for it the bytes of this request must not count.
            if start is not None:
                await upload_session.note(service, session)
            raise
        upload = await upload_session.note(service, session)
    except StorageError:
        await upload_session.cut(service, session)
        raise
    finally:
        await upload_session.close(service, session)
    await exchange.respond(202, _progress(upload))


async def _finish(
    service: Service,
    exchange: Exchange,
    name: str,
    upload_id: str,
    digest: Digest,
    *,
    start: int | None,
    whole: bool = False,
) -> None:
    """Write the last bytes, if any, check the whole, and make it a blob of the repository.

    The upload of a blob that is ``whole`` in this request is deleted if that fails: no client has its URL, so
    that none can continue it.
    """
    exchange.record_audit_event(digest=digest)
    length = exchange.content_length
    session = await upload_session.take(service, name, upload_id, algorithm=digest.algorithm)
    try:
        _check_start(session.upload, start)
        if start is not None and exchange.header(b"content-range") is not None:
            _, length = _content_range(exchange)
        try:
            await upload_session.receive(service, exchange, session, length)
        except (TooLarge, OverQuota):
            await upload_session.end(service, session)
            raise
        size = session.ingest.offset
        with contextlib.ExitStack() as guarded:
            try:
                await service.executors.run(_commit, service, session, digest, guarded)
            except (ContentError, StorageError):
                # The bytes are wrong, or lost: this upload can no longer become the blob.
                with contextlib.suppress(StorageError):  # the first error is the one to report
                    await upload_session.end(service, session)
                raise
            try:
                await service.executors.write(
                    service.stores.catalog.add_blob, name, digest, size, upload=upload_id
                )
            except OverQuota:
                await service.executors.write(service.stores.catalog.end_upload, upload_id)
                raise
    except BaseException as error:
        if whole:
            with contextlib.suppress(DigestryError):  # the first error is the one to report
                await upload_session.end(service, session)
        elif isinstance(error, StorageError):
            await upload_session.cut(service, session)
        raise
    finally:
        await upload_session.close(service, session)
    await _pushed(service, exchange, name, digest, size, began=session.upload.started_at)


async def _push_small(service: Service, exchange: Exchange, name: str, digest: Digest, length: int) -> None:
    """Store a short body as a blob. No client can continue it, so that it needs no upload."""
    began = service.now()
    most, refusal = await upload_session.ceiling(service, name)
    if length > most:
        raise refusal
    body = await _short_body(service, exchange, length)
    link = functools.partial(service.stores.catalog.add_blob, name, digest, length)
    await service.small_pushes.push(body, digest, link, note=_noting(service, exchange, length))
    await _pushed(service, exchange, name, digest, length, began=began)


async def _finish_small(
    service: Service, exchange: Exchange, name: str, upload_id: str, digest: Digest, *, length: int
) -> bool:
    """Store a short body as the whole of an upload, if it is that; return whether it is.

    Otherwise the body can be read again.
    """
    catalog = service.stores.catalog
    if not 0 < length <= service.config.upload_limit or catalog.limits_bytes(name):
        return False
    exchange.record_audit_event(digest=digest)
    body = await _short_body(service, exchange, length)
    began = 0

    def check() -> None:
        nonlocal began
        upload = catalog.upload(name, upload_id)
        if upload is None:
            raise upload_unknown(upload_id, name)
        if upload.offset > 0 or _has_bytes(service, upload_id):
            raise _UnderWay
        began = upload.started_at

    link = functools.partial(catalog.add_blob_at_once, name, digest, length, upload=upload_id)
    try:
        await service.small_pushes.push(
            body, digest, link, check=check, note=_noting(service, exchange, length)
        )
    except ContentError:
        # The bytes are wrong: this upload can no longer become the blob.
        with contextlib.suppress(StorageError):
            await service.executors.write(catalog.end_upload, upload_id)
        raise
    except (_UnderWay, NotFound):
        exchange.put_back(body)
        return False
    await _pushed(service, exchange, name, digest, length, began=began)
    return True


class _UnderWay(Exception):
    """Another request has sent bytes of the upload, or sends them now."""


def _has_bytes(service: Service, upload_id: str) -> bool:
    try:
        service.stores.blobs.ingest(upload_id, create=False).close()
    except NotFound:
        return False
    return True


async def _short_body(service: Service, exchange: Exchange, length: int) -> bytes:
    body = await exchange.read(length, patience=service.config.patience)
    if len(body) != length:
        raise ErrorResponse(400, "SIZE_INVALID", f"{len(body)} of the {length} declared bytes came")
    return body


def _noting(service: Service, exchange: Exchange, size: int) -> Callable[[object], Sequence[LogEntry]]:
    """Return what makes the audit lines of a blob of ``size`` bytes that was stored."""

    def lines(_: object) -> Sequence[LogEntry]:
        exchange.record_audit_event(size=size)
        return service.observer.lines(exchange, 201)

    return lines


async def _pushed(
    service: Service, exchange: Exchange, name: str, digest: Digest, size: int, *, began: int
) -> None:
    """Answer that a blob is stored. It began to come at ``began`` (microseconds)."""
    exchange.record_audit_event(size=size)
    took = max(0, service.now() - began)  # the clock may have been set back
    service.observer.uploaded(size, took / clock.SECOND)
    await exchange.respond(201, _stored(name, digest))


def _commit(service: Service, session: UploadSession, digest: Digest, guarded: contextlib.ExitStack) -> None:
    # Until the catalog has the link, garbage collection must not remove the bytes as unused.
    guarded.enter_context(service.stores.coordination.guard(digest))
    session.ingest.commit(digest)


def _content_range(exchange: Exchange) -> tuple[int | None, int | None]:
    """Return where the body starts, and how many bytes it must have; each is None if the header does not
    state it.

    A chunk has ``Content-Range: 0-99`` (distribution-spec, "Pushing a blob in chunks"); HTTP's own ``bytes
    0-99/200`` is accepted too. Raises :class:`ErrorResponse`.
    """
    length = exchange.content_length
    text = exchange.header(b"content-range")
    if text is None:
        return None, length
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        raise ErrorResponse(400, "BLOB_UPLOAD_INVALID", f"Content-Range {shown(text)} is not START-END")
    first, last = int(match[1]), int(match[2])
    covered = last - first + 1
    if covered <= 0 or (length is not None and length != covered):
        raise ErrorResponse(
            400, "SIZE_INVALID", f"Content-Range {text} is of {covered} bytes, but the body has {length}"
        )
    return first, covered


def _check_start(upload: Upload, start: int | None) -> None:
    if start is not None and start != upload.offset:
        raise ErrorResponse(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the chunk starts at byte {start}, but the upload is at byte {upload.offset}",
            headers=dict(_progress(upload)),
        )


def _progress(upload: Upload) -> list[tuple[str, str]]:
    return [
        ("Location", f"/v2/{upload.repository}/blobs/uploads/{upload.id}"),
        ("Range", f"0-{max(0, upload.offset - 1)}"),
        ("Docker-Upload-UUID", upload.id),
    ]


def _stored(name: str, digest: Digest) -> list[tuple[str, str]]:
    return [("Location", f"/v2/{name}/blobs/{digest}"), ("Docker-Content-Digest", str(digest))]
