"""The tag list and the referrers of an upstream's repository, cached for a while."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.referrer_pages import Cursor
from digestry.errors import Conflict, ContentError, NotFound, ProtocolViolation, RemoteNotFound, TooLarge
from digestry.model.digest import Digest
from digestry.registry.error_responses import name_unknown
from digestry.registry.exchange import Exchange
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.mirror import UpstreamRepository
from digestry.registry.pull_through.upstream_errors import TROUBLE
from digestry.registry.resources import referrers, upstream_manifests
from digestry.registry.resources import tags as own_tags
from digestry.registry.resources.tags import MOST_TAGS
from digestry.registry.service import Service

log: Final = logging.getLogger("digestry.registry")

_LONGEST_LIST: Final = 500_000
_MOST_REFERRERS: Final = 500
_PAGE: Final = 500


async def tags(service: Service, exchange: Exchange, repository: UpstreamRepository, _: str) -> None:
    """Return the upstream's tags, or the local ones if the upstream is unreachable."""
    if not repository.may_fetch:
        await own_tags.list_tags(service, exchange, repository.local_name, "")
        return
    limit = exchange.number("n", default=MOST_TAGS, most=MOST_TAGS)
    after = exchange.parameter("last") or ""
    mirror, word = repository.mirror, upstream_errors.CURRENT
    names: tuple[str, ...] | None = mirror.cached_list("tags", repository.local_name)
    if names is None:
        try:
            names = await mirror.single_flight_list(
                (repository.local_name, "", "tags"), _all_tags, repository
            )
        except TROUBLE as error:
            if upstream_errors.is_gone(error):
                raise name_unknown(repository.local_name) from error
            word = upstream_errors.word(error)
            try:
                rows = await service.executors.run(service.stores.queries.tags, repository.local_name)
            except UnknownRepository:
                if isinstance(error, RemoteNotFound):
                    raise name_unknown(repository.local_name) from error
                raise upstream_errors.error_response(mirror.config, error) from error
            names = tuple(row.name for row in rows)
            mirror.count("stale")
    first = bisect_right(names, after)
    page = names[first : first + limit]
    exchange.extra_headers = [(upstream_manifests.HEADER, f"{word}; registry={mirror.config.host}".encode())]
    headers = []
    if limit and first + limit < len(names):
        headers.append(exchange.next_page(n=limit, last=page[-1]))
    await exchange.json({"name": repository.requested_name, "tags": page}, headers=headers)


def _all_tags(repository: UpstreamRepository) -> tuple[str, ...]:
    mirror = repository.mirror
    mirror.count("misses")
    with mirror.requesting():
        found = set(mirror.upstream.tags(repository.upstream_name, _LONGEST_LIST + 1))
        if len(found) > _LONGEST_LIST:
            found.clear()  # an error keeps the objects of its frames alive until it is collected
            raise ProtocolViolation(f"{repository.upstream_name} has more than {_LONGEST_LIST} tags")
    names = tuple(sorted(found))
    mirror.cache_list("tags", repository.local_name, names, weight=len(names))
    return names


async def referring(
    service: Service, exchange: Exchange, repository: UpstreamRepository, digest: Digest
) -> None:
    """Return the referrers of a digest, after fetching those that the upstream lists."""
    mirror, word = repository.mirror, upstream_errors.CURRENT
    known = mirror.cached_list("referrers", f"{repository.local_name}@{digest}")
    if repository.may_fetch and known is None:
        try:
            known = await mirror.single_flight_list(
                (repository.local_name, str(digest), "referrers"),
                _fetch_referrers,
                service,
                repository,
                digest,
            )
        except TROUBLE as error:
            word = upstream_errors.word(error)
            mirror.count("stale")
    if known:
        word = upstream_errors.INCOMPLETE
    elif word == upstream_errors.CURRENT:
        reason = mirror.stale_reasons.get((repository.local_name, str(digest)), "")
        word = reason if reason in upstream_errors.STALE else word
    exchange.extra_headers = [(upstream_manifests.HEADER, f"{word}; registry={mirror.config.host}".encode())]
    await referrers.list_referrers(service, exchange, repository.local_name, str(digest))


def _fetch_referrers(service: Service, repository: UpstreamRepository, digest: Digest) -> tuple[str, ...]:
    """Fetch the referrers that the upstream lists, and return which were left out. Blocks."""
    mirror = repository.mirror
    mirror.count("misses")
    try:
        with mirror.requesting():
            listed = mirror.upstream.referrers(repository.upstream_name, digest)
    except RemoteNotFound:
        listed = ()
    mirror.record_staleness(repository, str(digest))
    left_out = ["…"] if len(listed) > _MOST_REFERRERS else []
    for entry in listed[:_MOST_REFERRERS]:
        try:
            upstream_manifests.fetch(service, repository, entry.digest)
        except (RemoteNotFound, ProtocolViolation, ContentError, TooLarge) as error:
            left_out.append(str(entry.digest))
            log.warning(
                "mirror %s: a referrer of %s is left out: %s", mirror.config.host, digest, error.message
            )
    if len(listed) <= _MOST_REFERRERS:
        withdrawn = _withdrawn(service, repository, digest, {entry.digest for entry in listed})
        if withdrawn:
            with mirror.requesting():  # a registry that does not have the subject does not know its referrers
                mirror.upstream.resolve(repository.upstream_name, str(digest), service.config.manifest_limit)
            _drop(service, repository, withdrawn)
    mirror.cache_list("referrers", f"{repository.local_name}@{digest}", tuple(left_out))
    return tuple(left_out)


def _withdrawn(
    service: Service, repository: UpstreamRepository, subject: Digest, listed: set[Digest]
) -> list[Digest]:
    """Return the local referrers that the upstream no longer lists."""
    withdrawn: list[Digest] = []
    after: Cursor | None = None
    while True:
        page = service.stores.queries.referrers(repository.local_name, subject, after=after, limit=_PAGE)
        withdrawn += [row.digest for row in page.rows if row.digest not in listed]
        if not page.more:
            return withdrawn
        after = Cursor(page.rows[-1].pushed_at, str(page.rows[-1].digest))


def _drop(service: Service, repository: UpstreamRepository, withdrawn: Iterable[Digest]) -> None:
    """Delete them here too: a withdrawn advisory must not stay."""
    for digest in withdrawn:
        try:
            service.stores.catalog.delete_manifest(
                repository.local_name, digest, origin=repository.mirror.origin
            )
        except (NotFound, Conflict):
            continue  # gone already, or an index or a rule holds it
