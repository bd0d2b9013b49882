"""Manifests: ``/v2/<name>/manifests/<tag or digest>``."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from typing import Final

from digestry.catalog.manifest_rows import MissingContent
from digestry.catalog.reads import CachedManifest
from digestry.catalog.tag_moves import ANYTHING, Expected
from digestry.errors import InvalidManifest, InvalidReference, NotFound
from digestry.model import media_types
from digestry.model.digest import Digest, shown
from digestry.model.history import TagEvent
from digestry.model.manifest import Manifest
from digestry.model.reference import check_tag
from digestry.registry.error_responses import (
    ErrorResponse,
    bad_parameter,
    manifest_damaged,
    manifest_unknown,
    name_unknown,
)
from digestry.registry.exchange import Exchange
from digestry.registry.observability.audit_log import LogEntry
from digestry.registry.resources import age_gate, conditional, expected_blobs, manifest_growth
from digestry.registry.service import Service
from digestry.registry.stores import ContentDamaged

log: Final = logging.getLogger("digestry.registry")

_DOCKERS: Final = frozenset({media_types.DOCKER_MANIFEST, media_types.DOCKER_LIST})
_PARSED_AT_ONCE: Final = 128 << 10
"""Larger ones take so long that others are answered meanwhile."""
_LOOKED_UP_AT_ONCE: Final = 100
"""References of a manifest; more are looked up in a thread."""
_WARNED_OF: Final = 3
_MOST_TAGS: Final = 100
_TAGS_IN_A_HEADER: Final = 20
_LONGEST_TARGET: Final = len("sha512:") + 128


def _target(text: str) -> Digest | None:
    """Return the digest that ``text`` is, or None if it is a tag."""
    if ":" in text:
        return Digest.parse(text)
    wrong = _not_a_tag(text)
    if wrong is not None:
        raise ErrorResponse(400, "MANIFEST_INVALID", wrong)
    return None


def _not_a_tag(text: str) -> str | None:
    try:
        check_tag(text)
    except InvalidReference as error:
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return None


def _check_asked_for(text: str) -> None:
    """Raise the answer to a GET or HEAD of what no manifest can have: 404 for a name that is no tag.

    Section "Pulling manifests" of the distribution-spec demands 404 of what is not in the repository,
    and its conformance suite (1.1) asks for ``.INVALID_MANIFEST_NAME``.
    """
    if ":" in text:
        Digest.parse(text)
    elif (wrong := _not_a_tag(text)) is not None:
        raise ErrorResponse(404, "MANIFEST_UNKNOWN", wrong, detail={"reference": text[:_LONGEST_TARGET]})


async def get_manifest(service: Service, exchange: Exchange, name: str, target: str) -> None:
    """Answer with a manifest by its tag or digest; to a HEAD with its headers."""
    try:
        await _send(service, exchange, name, target)
    except ContentDamaged as error:
        if await service.quarantine_if_damaged(error):
            raise manifest_damaged(target, name) from error
        await _send(service, exchange, name, target)  # it was put back in this moment


async def _send(service: Service, exchange: Exchange, name: str, target: str) -> None:
    if len(target) > _LONGEST_TARGET:
        _check_asked_for(target)  # it is none: do not let it into the read cache
    found = await service.stores.read_cache.manifest(name, target)
    if found is None:
        _check_asked_for(target)
        if not await service.executors.run(service.stores.queries.has_repository, name):
            raise name_unknown(name)
        if await service.stores.read_cache.damaged(name, target):
            raise manifest_damaged(target, name)
        raise manifest_unknown(target, name)
    if service.config.ages:
        found = await _aged(service, exchange, name, target, found)
    etag = f'"{found.digest}"'
    headers = [
        (b"content-type", found.media_type.encode()),
        (b"docker-content-digest", found.digest.encode()),
        (b"etag", etag.encode()),
    ]
    head = exchange.scope["method"] == "HEAD"
    if head and ":" in target and not await service.ensure_lease(name, Digest.parse(target), found.lease_end):
        raise manifest_unknown(target, name)
    if conditional.not_modified(exchange, found.digest):
        await exchange.start_response(304, headers, None)
        await exchange.send_body()
        return
    if head:
        await exchange.start_response(200, headers, found.size)
        await exchange.send_body()
        return
    raw = service.stores.manifest_cache.get(found.digest)
    if raw is None:
        raw = await service.executors.run(service.stores.read, Digest.parse(found.digest), found.size)
        service.stores.manifest_cache.put(found.digest, raw)
    await exchange.start_response(200, headers, len(raw))
    await exchange.send_body(raw)


async def _aged(
    service: Service, exchange: Exchange, name: str, target: str, found: CachedManifest
) -> CachedManifest:
    """Return what a request is answered with under a minimum age. Raises :class:`ErrorResponse`."""
    if ":" in target:
        await age_gate.check_digest(service, exchange, name, found.digest)
        return found
    digest = await age_gate.resolve_tag(service, exchange, name, target, found.digest)
    if digest == found.digest:
        return found
    older = await service.stores.read_cache.manifest(name, digest)
    if older is None:
        raise age_gate.refusal(
            f"tag {target} of {name} resolves to {digest}, which has stood for long enough, but is not here"
            f" any more; the newer {found.digest} is too young"
        )
    # No tag holds it any more: so that it is not collected while it is served.
    await service.ensure_lease(name, Digest.parse(digest), older.lease_end)
    return older


async def put_manifest(service: Service, exchange: Exchange, name: str, target: str) -> None:
    """Store a manifest, and let its tags point to it."""
    wanted = _target(target)
    by_tag = wanted is None
    tags = exchange.parameters("tag")
    if by_tag:
        if tags:
            raise bad_parameter("tag", tags[0], "it goes with a manifest that is pushed by digest")
        tags = [target]
        text = exchange.parameter("digest")
        wanted = None if text is None else Digest.parse(text)
    if len(tags) > _MOST_TAGS:
        raise ErrorResponse(
            414, "UNSUPPORTED", f"{len(tags)} tags are too many for one request; {_MOST_TAGS} are allowed"
        )
    for tag in tags:
        if _target(tag) is not None:
            raise bad_parameter("tag", tag, "a tag is required")
    exchange.record_audit_event(tags=tags)
    raw = await exchange.read(service.config.manifest_limit, patience=service.config.patience)
    content_type = exchange.header(b"content-type")
    kind = media_types.bare(content_type) if content_type else None
    if kind in {"application/json", "application/octet-stream", ""}:
        kind = None  # a client that does not know: the manifest's own field, or its form, decides
    algorithm = "sha256" if wanted is None else wanted.algorithm
    parse = functools.partial(_parse, raw, kind, algorithm)
    if len(raw) <= _PARSED_AT_ONCE:
        manifest = parse()
    else:
        async with service.parse_lock:
            manifest = await service.executors.run(parse)
    exchange.record_audit_event(digest=manifest.digest, size=len(raw))
    if wanted is not None and manifest.digest != wanted:
        raise ErrorResponse(
            400,
            "DIGEST_INVALID",
            f"the manifest's bytes hash to {manifest.digest}, not to {wanted}; it was not stored",
        )
    # Bytes first, durably; then the transaction that makes them visible (rule 4).
    expected = conditional.expectation(exchange)
    extends = await manifest_growth.extended(service, name, manifest, tags)
    catalog = service.stores.catalog
    # Asked here too, so that a manifest that will be refused leaves no file behind.
    known_good = await _may_come(service, name, manifest, tags, expected)
    check = functools.partial(
        catalog.check_references, name, manifest, tag_names=tags, expected=expected, extends=extends
    )
    put = functools.partial(
        catalog.put_manifest,
        name,
        manifest,
        tag_names=tags,
        origin=exchange.origin,
        expected=expected,
        extends=extends,
    )
    note = functools.partial(_audit_lines, service, exchange)
    try:
        await service.small_pushes.push(
            raw, manifest.digest, put, check=None if known_good else check, note=note
        )
    except MissingContent as error:
        if not await expected_blobs.link_expected(service, exchange, name, error.digests):
            raise
        await service.small_pushes.push(
            raw, manifest.digest, put, check=None if known_good else check, note=note
        )
    service.stores.manifest_cache.put(str(manifest.digest), raw)
    headers = [
        ("Location", f"/v2/{name}/manifests/{manifest.digest}"),
        ("Docker-Content-Digest", str(manifest.digest)),
        ("ETag", f'"{manifest.digest}"'),
    ]
    if manifest.subject is not None:
        headers.append(("OCI-Subject", str(manifest.subject.digest)))
    headers += [] if known_good else await _warnings_of_sizes(service, name, manifest)
    if not by_tag:
        headers += [
            ("OCI-Tag", ", ".join(tags[start : start + _TAGS_IN_A_HEADER]))
            for start in range(0, len(tags), _TAGS_IN_A_HEADER)
        ]
    await exchange.respond(201, headers)


def _parse(raw: bytes, kind: str | None, algorithm: str) -> Manifest:
    """Parse a manifest that was pushed as ``kind``. Raises :class:`InvalidManifest`.

    docker's types must be in the document itself, as docker's specification says. If the header alone said
    so, another push of the same bytes could make another kind of what tags point to, and move none of them.
    """
    manifest = Manifest.parse(raw, kind, algorithm=algorithm)
    if kind in _DOCKERS and Manifest.parse(raw, algorithm=algorithm).media_type != kind:
        raise InvalidManifest(
            f'the manifest came as {shown(kind)}, but has no "mediaType"',
            hint="write the type into the manifest, or send it as OCI's",
        )
    return manifest


def _audit_lines(service: Service, exchange: Exchange, events: Sequence[TagEvent]) -> Sequence[LogEntry]:
    """Return the audit lines of a push that moved tags so."""
    exchange.record_audit_event(events=events)
    return service.observer.lines(exchange, 201)


async def _may_come(
    service: Service, name: str, manifest: Manifest, tags: Sequence[str], expected: Expected
) -> bool:
    """Return True if the catalog would take the manifest now, and the sizes in it are right, as far as a
    look-up on the event loop tells."""
    wanted = service.stores.catalog.asks_content_alone(name, manifest, tags, expected)
    if wanted is None or wanted.either:
        return False
    reads = service.stores.read_cache
    listed = (*manifest.blobs(), *manifest.manifests)
    sizes = {str(descriptor.digest): descriptor.size for descriptor in listed}
    if len(sizes) > _LOOKED_UP_AT_ONCE or any(one.size != sizes[str(one.digest)] for one in listed):
        return False
    for digests, manifests in ((wanted.blobs, False), (wanted.manifests, True)):
        stated = {digest: sizes[digest] for digest in digests}
        if stated and not await reads.serves_all(name, stated, manifests=manifests):
            return False
    return True


async def _warnings_of_sizes(service: Service, name: str, manifest: Manifest) -> list[tuple[str, str]]:
    """Return the headers that name what has another size than the manifest says (distribution-spec 1.1,
    "Warnings").

    Such a manifest is taken, as other registries do: it may be a copy of one that is in use.
    """
    wrong: dict[str, str] = {}
    for number, descriptor in enumerate((*manifest.blobs(), *manifest.manifests), 1):
        if number % _LOOKED_UP_AT_ONCE == 0:
            await asyncio.sleep(0)  # others are answered meanwhile
        digest = str(descriptor.digest)
        found = await service.stores.read_cache.content(name, digest)
        if found is not None and found.size != descriptor.size:
            wrong[digest] = f"{digest} has {found.size} bytes, and not {descriptor.size} as the manifest says"
    if not wrong:
        return []
    log.warning(
        "repository %s: manifest %s was pushed with wrong sizes: %s",
        name,
        manifest.digest,
        "; ".join(list(wrong.values())[:_WARNED_OF]),
    )
    end = "; some clients cannot pull this image: build it again"
    return [("Warning", f'299 - "{text}{end}"') for text in list(wrong.values())[:_WARNED_OF]]


async def delete_manifest(service: Service, exchange: Exchange, name: str, target: str) -> None:
    """Delete a tag or, by its digest, a manifest with its tags."""
    digest = _target(target)
    if digest is None:
        exchange.record_audit_event(action="delete-tag", tag=target)
    else:
        exchange.record_audit_event(digest=digest)
    expected = conditional.expectation(exchange)
    if digest is not None and expected is not ANYTHING:
        raise ErrorResponse(
            400, "UNSUPPORTED", "If-Match and If-None-Match go with the tag that is to be deleted"
        )
    try:
        if digest is None:
            event = await service.executors.remove(
                service.stores.catalog.delete_tag, name, target, origin=exchange.origin, expected=expected
            )
            events = [event]
        else:
            events = await service.executors.remove(
                service.stores.catalog.delete_manifest, name, digest, origin=exchange.origin
            )
        exchange.record_audit_event(events=events)
    except NotFound as error:
        if await service.executors.run(service.stores.queries.has_repository, name):
            raise manifest_unknown(target, name) from error
        raise
    await exchange.respond(202)
