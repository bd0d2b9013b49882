"""The dependencies of one worker process's request handlers: stores, threads, access rules, observers.

The event loop's thread never waits for the disk, except for reads of a few microseconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from digestry.backend import Backend
from digestry.catalog import clock
from digestry.errors import InvalidConfiguration, StorageError
from digestry.model.digest import Digest
from digestry.registry.access.gate import Gate
from digestry.registry.access.principal import Principal
from digestry.registry.age_cache import AgeCache
from digestry.registry.chunk_size import ChunkSize
from digestry.registry.config import RegistryConfig
from digestry.registry.connections.table import Connections
from digestry.registry.disk_reserve import reserve_of
from digestry.registry.event_rates import EventRates
from digestry.registry.executors import Executors
from digestry.registry.observability.audit_events import DamageEvents
from digestry.registry.observability.exposition import Scrape
from digestry.registry.observability.health import Health
from digestry.registry.observability.request_observer import Observer
from digestry.registry.observability.upstream_metrics import UpstreamMeter
from digestry.registry.pull_through.mirrors import Mirrors
from digestry.registry.pull_through.upstream import MakeUpstream
from digestry.registry.quarantine import Quarantine
from digestry.registry.request_checks import RequestChecks
from digestry.registry.small_pushes import SmallPushes
from digestry.registry.stores import ContentDamaged, Stores, open_stores
from digestry.registry.upload_sweep import UploadSweep

log: Final = logging.getLogger("digestry.registry")

COSIGNED_RATE: Final = 4.0
"""New checkpoints of one log a second, of which each is a transaction; logs send one or two."""
COSIGNED_BURST: Final = 40


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of a registry that its request handlers use."""

    config: RegistryConfig
    now: clock.Clock
    backend: Backend
    stores: Stores
    executors: Executors
    small_pushes: SmallPushes
    gate: Gate
    request_checks: RequestChecks
    observer: Observer
    health: Health
    scrape: Scrape
    quarantine: Quarantine
    upload_sweep: UploadSweep
    mirrors: Mirrors | None = None
    connections: Connections = field(default_factory=Connections)
    chunk_size: ChunkSize = field(default_factory=ChunkSize)
    draining: Callable[[], bool] = bool
    """Tells whether the server is about to stop."""
    ages: AgeCache = field(default_factory=AgeCache)
    """The last answers about ages, under the present rules."""
    cosigned: EventRates = field(default_factory=lambda: EventRates(COSIGNED_RATE, COSIGNED_BURST))
    """How often checkpoints of other logs were cosigned, by their origin."""
    contradicted: EventRates = field(default_factory=lambda: EventRates(1 / 60, 3))
    """How often a log contradicted what was cosigned of it, and the log said so."""
    parse_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of large manifests: each takes a multiple of its size while it is read."""

    @property
    def _half_lease(self) -> int:
        return int(self.config.collection.lease * clock.SECOND) // 2

    def hidden(self) -> Service:
        """Return a service without the request's repository, for a client who may not see it."""
        return replace(self, stores=self.stores.hidden())

    async def canonical_repository(self, name: str, principal: Principal) -> str:
        """Return the repository that ``name`` means, without asking an upstream, as for a tag's history."""
        return name if self.mirrors is None else await self.mirrors.canonical_repository(name, principal)

    async def origin(self, name: str, principal: Principal) -> str:
        """Return the host of the registry that a repository is mirrored from, as far as ``principal`` may
        know; empty for one of this registry's own."""
        return "" if self.mirrors is None else await self.mirrors.origin(name, principal)

    def is_mirrored(self, name: str) -> bool:
        """Return whether the repository of this name in the catalog is a copy of another registry's."""
        return self.mirrors is not None and self.mirrors.has_local_name(name)

    async def ensure_lease(self, name: str, digest: Digest, lease_end: int | None) -> bool:
        """Protect content that an answer mentions from garbage collection for the time of a lease (rule 7).

        Return False if the content was removed in the meantime.
        """
        if lease_end is not None and lease_end >= self.now() + self._half_lease:
            return True
        try:
            return await self.executors.write(self.stores.catalog.renew_lease, name, digest)
        except StorageError as error:
            # A disk that is full must not stop pulls. A push that relies on this is refused, later, if the
            # content may be removed: its manifest is checked against the content at that time.
            log.warning("the lease of %s could not be renewed: %s", digest, error.message)
            return True

    async def quarantine_if_damaged(self, error: ContentDamaged) -> bool:
        """Put content that could not be served into quarantine; return False if it is whole by now."""
        return await self.executors.quarantine(
            self.quarantine.quarantine_if_damaged, error.digest, error.size
        )

    def quarantine_in_background(self, error: ContentDamaged) -> None:
        """Do as :meth:`quarantine_if_damaged` does, without waiting for it."""

        def quarantine_if_damaged() -> None:
            try:
                self.quarantine.quarantine_if_damaged(error.digest, error.size)
            except StorageError as failure:
                log.error("%s; putting it into quarantine failed: %s", error.message, failure.message)

        self.executors.quarantine_in_background(quarantine_if_damaged)


def open_service(
    config: RegistryConfig,
    *,
    now: clock.Clock = clock.now,
    make_upstream: MakeUpstream | None = None,
    draining: Callable[[], bool] = bool,
) -> Service:
    """Open the service of one worker process; ``make_upstream`` asks other registries, if there are mirrors;
    ``draining`` tells whether the server is about to stop.

    Raises :class:`InvalidConfiguration`, :class:`StorageError`.
    """
    if config.mirrors and make_upstream is None:
        raise InvalidConfiguration("there are mirrors, but no client for other registries")
    backend = config.backend(now)
    stores = open_stores(backend)
    reserve = reserve_of(backend)
    observer = Observer(config)
    mirrors = None
    if config.mirrors and make_upstream is not None:
        mirrors = Mirrors(
            config.mirrors, make_upstream, config.scratch, stores.read_cache, stores.coordination
        )
        observer.watch(UpstreamMeter(observer.metrics, mirrors).read)
    findings = DamageEvents(observer.audit, client="read")
    executors = Executors(
        reserve, stores.catalog.group_commit, writers=stores.catalog.writers, note=observer.note
    )
    return Service(
        config=config,
        now=backend.now,
        backend=backend,
        stores=stores,
        executors=executors,
        small_pushes=SmallPushes(stores.blobs, stores.coordination, executors),
        gate=_gate(config, backend, stores),
        request_checks=RequestChecks(config),
        observer=observer,
        health=Health(config, stores.catalog, stores.blobs, backend.disk, reserve),
        scrape=Scrape(config, stores.catalog, stores.coordination, backend.disk, observer.metrics),
        quarantine=Quarantine(
            stores.blobs, stores.coordination, stores.catalog.damage, now=backend.now, note=findings
        ),
        upload_sweep=UploadSweep(stores, observer.note, timeout=config.upload_timeout, now=backend.now),
        mirrors=mirrors,
        draining=draining,
    )


def _gate(config: RegistryConfig, backend: Backend, stores: Stores) -> Gate:
    robots = backend.open_robot_reads() if config.access.enabled else None
    return Gate(config.access, stores.coordination.keys, robots, stores.coordination.login_failures)


def reconfigured(service: Service, config: RegistryConfig) -> Service:
    """Return the service of a running process with the reloadable part of ``config``.

    Its stores, threads and observers stay, and so do remembered logins, unless the rules or the users have
    changed.

    Raises :class:`InvalidConfiguration`, :class:`StorageError`; then nothing has changed.
    """
    backend, stores, gate = service.backend, service.stores, service.gate
    if config.access != service.config.access:
        gate = _gate(config, backend, stores)
        gate.start()
    stores.catalog.change_options(config.catalog_options)
    return replace(
        service,
        config=config,
        gate=gate,
        ages=AgeCache(),
        request_checks=RequestChecks(config),
        health=Health(config, stores.catalog, stores.blobs, backend.disk, reserve_of(backend)),
        scrape=Scrape(config, stores.catalog, stores.coordination, backend.disk, service.observer.metrics),
        upload_sweep=UploadSweep(
            stores, service.observer.note, timeout=config.upload_timeout, now=service.now
        ),
    )
