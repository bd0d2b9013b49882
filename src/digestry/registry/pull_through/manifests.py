"""Manifests and tags of an upstream: what is here if it may be served, else fetched and kept."""

from __future__ import annotations

import contextlib
from typing import Final

from digestry.catalog import clock
from digestry.catalog.tags import TagRefused
from digestry.errors import DigestryError, InvalidReference, RemoteNotFound, StorageFull
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.reference import check_tag
from digestry.registry import manifests
from digestry.registry.exchange import Exchange
from digestry.registry.observability import audit_events
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.mirror import Place
from digestry.registry.pull_through.upstream_errors import TROUBLE
from digestry.registry.service import Damaged, Service

HEADER: Final = b"digestry-upstream"
_LONGEST_TARGET: Final = 256


async def get(service: Service, exchange: Exchange, place: Place, target: str) -> None:
    """A GET or HEAD of a manifest."""
    if not place.fetch or len(target) > _LONGEST_TARGET:
        await manifests.handle(service, exchange, place.name, target)
    elif ":" in target:
        await _by_digest(service, exchange, place, Digest.parse(target))
    else:
        await _by_tag(service, exchange, place, target)


async def _by_digest(service: Service, exchange: Exchange, place: Place, digest: Digest) -> None:
    mirror = place.mirror
    if service.hot.manifest(place.name, str(digest)) is None:
        mirror.count("misses")
        try:
            await mirror.once((place.name, str(digest)), bring, service, place, digest)
        except TROUBLE as error:
            if not isinstance(error, RemoteNotFound):  # that is answered as by any repository
                raise upstream_errors.answer(mirror.config, error) from error
    else:
        mirror.count("hits")
    await manifests.handle(service, exchange, place.name, str(digest))


async def _by_tag(service: Service, exchange: Exchange, place: Place, tag: str) -> None:
    mirror, word = place.mirror, upstream_errors.CURRENT
    seen, here = service.hot.seen(place.name, tag), service.hot.manifest(place.name, tag)
    if seen is not None and here is not None and mirror.fresh(seen.checked_at, service.now()):
        mirror.count("hits")
        word = _said_before(place, tag)
    else:
        try:
            check_tag(tag)
        except InvalidReference:
            await manifests.handle(service, exchange, place.name, tag)  # which says what is wrong with it
            return
        try:
            await mirror.once((place.name, tag), refresh, service, place, tag)
            mirror.count("misses")
            word = _said_before(place, tag)
        except (*TROUBLE, StorageFull) as error:
            word = upstream_errors.word(error)
            _may_be_served(service, place, tag, error)
            mirror.count("stale")
        seen, here = service.hot.seen(place.name, tag), service.hot.manifest(place.name, tag)
    if here is not None:
        if word == upstream_errors.CURRENT and seen is not None and seen.digest != here.digest:
            word = upstream_errors.HELD
        exchange.also = [(HEADER, _said(place, word, None if seen is None else seen.checked_at))]
    await manifests.handle(service, exchange, place.name, tag)


def _may_be_served(service: Service, place: Place, tag: str, error: DigestryError) -> None:
    """Raises :class:`Problem` unless the tag can be served though upstream cannot be asked, or not kept."""
    config = place.mirror.config
    seen, here = service.hot.seen(place.name, tag), service.hot.manifest(place.name, tag)
    if here is None or not place.mirror.may_be_stale(0 if seen is None else seen.checked_at, service.now()):
        raise upstream_errors.answer(config, error) from error


def _said(place: Place, word: str, checked_at: int | None) -> bytes:
    checked = "" if checked_at is None else f"; checked={clock.to_rfc3339(checked_at)}"
    return f"{word}; registry={place.mirror.config.host}{checked}".encode()


def _said_before(place: Place, tag: str) -> str:
    """What upstream, itself a mirror, said of the tag when it was asked."""
    said = place.mirror.said.get((place.name, tag), "")
    return said if said in upstream_errors.STALE else upstream_errors.CURRENT


def refresh(service: Service, place: Place, tag: str) -> None:
    """Makes the tag here point to what it points to upstream. Blocks."""
    service.reserve.check()  # what cannot be written down need not be asked
    mirror, mirrored = place.mirror, service.catalog.mirrored
    with mirror.turn(place.name, tag):
        seen, here = mirrored.standing(place.name, tag)
        if seen is not None and here is not None and mirror.fresh(seen.checked_at, service.now()):
            return  # another worker asked, while this one waited for its turn
        try:
            found = _asked(service, place, tag, sure=seen is not None)
        except RemoteNotFound as error:
            # What never was upstream's was there before the mirror; and a rule may keep what is gone.
            if seen is not None:
                if not upstream_errors.says_gone(error):
                    raise
                with contextlib.suppress(TagRefused):
                    event = mirrored.gone(place.name, tag, origin=mirror.origin)
                    service.observer.note(audit_events.of_mirror(mirror.origin, place.name, event=event))
            return
        mirror.hear(place, tag)
        if found.digest == here:
            mirrored.note(place.name, tag, found.digest)
            return
        try:
            manifest = _known(service, place, found.digest) or _fetched(service, place, str(found.digest))
        except RemoteNotFound:
            # It moved in this moment and took its image away; or what answers a HEAD is not up to date.
            manifest = _fetched(service, place, tag)
        found = manifest.descriptor()
        try:
            keep(service, place, manifest, tag=tag)
        except TagRefused:
            mirrored.note(place.name, tag, found.digest)


def _asked(service: Service, place: Place, tag: str, *, sure: bool) -> Descriptor:
    """What upstream's tag points to. If it has none, and that must be ``sure``, it is asked again for
    its reason, which the answer to a HEAD cannot have."""
    mirror, limit = place.mirror, service.config.manifest_limit
    try:
        with mirror.question():
            return mirror.upstream.resolve(place.upstream, tag, limit)
    except RemoteNotFound:
        if not sure:
            raise
    with mirror.question():
        return mirror.upstream.manifest(place.upstream, tag, limit).descriptor()


def bring(service: Service, place: Place, digest: Digest) -> None:
    """Gets a manifest by its digest, unless it is here. Blocks. Raises :class:`RemoteNotFound`."""
    with place.mirror.turn(place.name, str(digest)):
        if _known(service, place, digest) is None:
            keep(service, place, _fetched(service, place, str(digest)))


def _known(service: Service, place: Place, digest: Digest) -> Manifest | None:
    stored = service.catalog.manifest(place.name, digest)
    if stored is None or service.catalog.damage.known(digest):
        return None
    try:
        raw = service.read(digest, stored.size)
    except Damaged:
        return None  # or collected in this moment; what is fetched takes its place
    return Manifest.parse(raw, stored.media_type, algorithm=digest.algorithm)


def _fetched(service: Service, place: Place, target: str) -> Manifest:
    with place.mirror.question():
        manifest = place.mirror.upstream.manifest(place.upstream, target, service.config.manifest_limit)
    place.mirror.count("fetched_bytes", manifest.size)
    return manifest


def keep(service: Service, place: Place, manifest: Manifest, *, tag: str | None = None) -> None:
    """Stores a manifest durably, then makes it visible (rule 4). Raises :class:`TagRefused`."""
    with service.blobs.guard(manifest.digest):
        service.blobs.put(manifest.raw, manifest.digest)
        event = service.catalog.mirrored.put(place.name, manifest, tag=tag, origin=place.mirror.origin)
    service.observer.note(
        audit_events.of_mirror(
            place.mirror.origin,
            place.name,
            event=event,
            action="fetch-manifest",
            digest=manifest.digest,
            size=manifest.size,
        )
    )
