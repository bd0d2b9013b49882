"""Manifests and tags of an upstream: served from the store while fresh, else fetched and stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from digestry.catalog import clock
from digestry.catalog.tag_moves import TagRefused
from digestry.errors import DigestryError, InvalidReference, RemoteNotFound, StorageFull
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.reference import check_tag
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.observability import audit_events
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.mirror import UpstreamRepository
from digestry.registry.pull_through.upstream_errors import TROUBLE, BackingOff
from digestry.registry.resources import age_gate, manifests
from digestry.registry.service import Service
from digestry.registry.stores import ContentDamaged

HEADER: Final = b"digestry-upstream"
_LONGEST_TARGET: Final = 256
_LEAST_INTERVAL: Final = 60 * clock.SECOND
"""A mirror that checks a tag with each request does so at no regular interval: it counts as this one."""


async def get(service: Service, exchange: Exchange, repository: UpstreamRepository, target: str) -> None:
    """Answer a GET or HEAD of a manifest."""
    if not repository.may_fetch or len(target) > _LONGEST_TARGET:
        await manifests.get_manifest(service, exchange, repository.local_name, target)
    elif ":" in target:
        await _by_digest(service, exchange, repository, Digest.parse(target))
    else:
        await _by_tag(service, exchange, repository, target)


async def _by_digest(
    service: Service, exchange: Exchange, repository: UpstreamRepository, digest: Digest
) -> None:
    mirror = repository.mirror
    if service.config.ages:
        await age_gate.check_upstream(service, exchange, repository, digest)
    if await service.stores.read_cache.manifest(repository.local_name, str(digest)) is None:
        mirror.count("misses")
        try:
            await mirror.single_flight(
                (repository.local_name, str(digest)), fetch, service, repository, digest
            )
        except TROUBLE as error:
            if not isinstance(error, RemoteNotFound):  # that is answered as by any repository
                raise upstream_errors.error_response(mirror.config, error) from error
    else:
        mirror.count("hits")
    await manifests.get_manifest(service, exchange, repository.local_name, str(digest))


async def _by_tag(service: Service, exchange: Exchange, repository: UpstreamRepository, tag: str) -> None:
    mirror, word = repository.mirror, upstream_errors.CURRENT
    seen, here = await service.stores.read_cache.mirrored_tag(repository.local_name, tag)
    if seen is not None and here is not None and mirror.is_fresh(seen.checked_at, service.now()):
        mirror.count("hits")
        word = _reported_staleness(repository, tag)
    else:
        try:
            check_tag(tag)
        except InvalidReference:
            await manifests.get_manifest(
                service, exchange, repository.local_name, tag
            )  # whose error says what is wrong
            return
        try:
            await mirror.single_flight((repository.local_name, tag), refresh, service, repository, tag)
            mirror.count("misses")
            word = _reported_staleness(repository, tag)
        except (*TROUBLE, StorageFull) as error:
            word = upstream_errors.word(error)
            await _check_may_be_served(service, repository, tag, error)
            mirror.count("stale")
        seen, here = await service.stores.read_cache.mirrored_tag(repository.local_name, tag)
    if here is not None:
        if word == upstream_errors.CURRENT and seen is not None and seen.digest != here.digest:
            word = upstream_errors.HELD
        exchange.extra_headers = [
            (HEADER, _upstream_header(repository, word, None if seen is None else seen.checked_at))
        ]
        if service.config.ages:
            await age_gate.ensure_observed(service, repository, tag)
            await _bring_aged(service, repository, tag, here.digest)
    try:
        await manifests.get_manifest(service, exchange, repository.local_name, tag)
    except ErrorResponse as error:
        raise age_gate.for_push(exchange, repository, error) from error


async def _bring_aged(service: Service, repository: UpstreamRepository, tag: str, current: str) -> None:
    """Fetch the manifest that the tag resolves to under its minimum age, unless it is here.

    Raises :class:`ErrorResponse` if upstream does not answer.
    """
    name = repository.local_name
    digest = await age_gate.resolved(service, name, tag, current)
    if digest == current or await service.stores.read_cache.manifest(name, digest) is not None:
        return
    mirror = repository.mirror
    try:
        await mirror.single_flight((name, digest), fetch, service, repository, Digest.parse(digest))
    except RemoteNotFound:
        return  # upstream has removed it, which the answer says
    except TROUBLE as error:
        raise upstream_errors.error_response(mirror.config, error) from error


async def _check_may_be_served(
    service: Service, repository: UpstreamRepository, tag: str, error: DigestryError
) -> None:
    """Raise :class:`ErrorResponse` unless the tag can be served without an answer from upstream."""
    config = repository.mirror.config
    seen, here = await service.stores.read_cache.mirrored_tag(repository.local_name, tag)
    if here is None or not repository.mirror.may_be_stale(
        0 if seen is None else seen.checked_at, service.now()
    ):
        raise upstream_errors.error_response(config, error) from error


def _upstream_header(repository: UpstreamRepository, word: str, checked_at: int | None) -> bytes:
    checked = "" if checked_at is None else f"; checked={clock.to_rfc3339(checked_at)}"
    return f"{word}; registry={repository.mirror.config.host}{checked}".encode()


def _reported_staleness(repository: UpstreamRepository, tag: str) -> str:
    """Return the staleness that upstream, itself a mirror, reported for the tag."""
    reason = repository.mirror.stale_reasons.get((repository.local_name, tag), "")
    return reason if reason in upstream_errors.STALE else upstream_errors.CURRENT


def refresh(service: Service, repository: UpstreamRepository, tag: str) -> None:
    """Point the local tag to the digest of the upstream's tag. Blocks."""
    service.executors.reserve.check()  # without room for the answer no request is sent
    mirror, cache = repository.mirror, service.stores.catalog.pull_through
    with mirror.turn(repository.local_name, tag):
        seen, here = cache.tag_state(repository.local_name, tag)
        if seen is not None and here is not None and mirror.is_fresh(seen.checked_at, service.now()):
            return  # another worker sent the request, while this one waited for its turn
        try:
            with _failures_recorded(service, repository, tag, known=seen is not None):
                found = _asked(service, repository, tag, sure=seen is not None)
        except RemoteNotFound as error:
            # A tag that never was upstream's existed before the mirror; and a rule may keep a deleted one.
            if seen is not None:
                if not upstream_errors.is_gone(error):
                    raise
                _delete(service, repository, tag)
            return
        mirror.record_staleness(repository, tag)
        if found.digest == here:
            cache.note(repository.local_name, tag, found.digest, interval=_interval(repository))
            return
        try:
            manifest = _known(service, repository, found.digest) or _fetched(
                service, repository, str(found.digest)
            )
        except RemoteNotFound:
            # It moved at this moment and its image is gone; or the answer to the HEAD was outdated.
            manifest = _fetched(service, repository, tag)
        found = manifest.descriptor()
        try:
            keep(service, repository, manifest, tag=tag)
        except TagRefused:
            cache.note(repository.local_name, tag, found.digest, interval=_interval(repository))


@contextlib.contextmanager
def _failures_recorded(
    service: Service, repository: UpstreamRepository, tag: str, *, known: bool
) -> Iterator[None]:
    """Record as an observation that a request about a ``known`` tag failed."""
    try:
        yield
    except TROUBLE as error:
        if known and not isinstance(error, BackingOff) and not upstream_errors.is_gone(error):
            reason = upstream_errors.word(error)
            service.stores.catalog.pull_through.failed(
                repository.local_name, tag, reason, interval=_interval(repository)
            )
        raise


def _delete(service: Service, repository: UpstreamRepository, tag: str) -> None:
    """Delete the local tag, which upstream has deleted, unless a rule keeps it."""
    cache, name, interval = service.stores.catalog.pull_through, repository.local_name, _interval(repository)
    try:
        event = cache.gone(name, tag, origin=repository.mirror.origin, interval=interval)
    except TagRefused:
        cache.absent(name, tag, interval=interval)
    else:
        service.observer.note(audit_events.of_mirror(repository.mirror.origin, name, event=event))


def _interval(repository: UpstreamRepository) -> int:
    return max(_LEAST_INTERVAL, int(repository.mirror.config.tag_ttl * clock.SECOND))


def _asked(service: Service, repository: UpstreamRepository, tag: str, *, sure: bool) -> Descriptor:
    """Return the digest of upstream's tag. If it has none, and that must be ``sure``, a GET is sent for the
    reason, which the answer to a HEAD cannot have."""
    mirror, limit = repository.mirror, service.config.manifest_limit
    try:
        with mirror.requesting():
            return mirror.upstream.resolve(repository.upstream_name, tag, limit)
    except RemoteNotFound:
        if not sure:
            raise
    with mirror.requesting():
        return mirror.upstream.manifest(repository.upstream_name, tag, limit).descriptor()


def fetch(service: Service, repository: UpstreamRepository, digest: Digest) -> None:
    """Fetch a manifest by its digest, unless it is in the store. Blocks. Raises :class:`RemoteNotFound`."""
    with repository.mirror.turn(repository.local_name, str(digest)):
        if _known(service, repository, digest) is None:
            keep(service, repository, _fetched(service, repository, str(digest)))


def _known(service: Service, repository: UpstreamRepository, digest: Digest) -> Manifest | None:
    stored = service.stores.catalog.manifest(repository.local_name, digest)
    if stored is None or service.stores.catalog.damage.known(digest):
        return None
    try:
        raw = service.stores.read(digest, stored.size)
    except ContentDamaged:
        return None  # or collected at this moment; the fetched one replaces it
    return Manifest.parse(raw, stored.media_type, algorithm=digest.algorithm)


def _fetched(service: Service, repository: UpstreamRepository, target: str) -> Manifest:
    with repository.mirror.requesting():
        manifest = repository.mirror.upstream.manifest(
            repository.upstream_name, target, service.config.manifest_limit
        )
    repository.mirror.count("fetched_bytes", manifest.size)
    return manifest


def keep(
    service: Service, repository: UpstreamRepository, manifest: Manifest, *, tag: str | None = None
) -> None:
    """Store a manifest durably, then make it visible (rule 4). Raises :class:`TagRefused`."""
    with service.stores.coordination.guard(manifest.digest):
        service.stores.blobs.put(manifest.raw, manifest.digest)
        event = service.stores.catalog.pull_through.put(
            repository.local_name,
            manifest,
            tag=tag,
            origin=repository.mirror.origin,
            interval=_interval(repository),
        )
    service.observer.note(
        audit_events.of_mirror(
            repository.mirror.origin,
            repository.local_name,
            event=event,
            action="fetch-manifest",
            digest=manifest.digest,
            size=manifest.size,
        )
    )
