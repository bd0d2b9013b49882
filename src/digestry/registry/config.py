"""The registry's configuration: one frozen object, built at the edge.

It comes from ``registry.toml`` and the command line, which takes precedence. docs/registry.md has every key.
Each section is parsed in the module that it configures.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypedDict

from digestry.advisories.trust import TRUST_EVERYBODY, TrustPolicy
from digestry.backend import Backend, open_backend
from digestry.catalog import clock
from digestry.catalog.age_policy import AgePolicy
from digestry.catalog.options import CatalogOptions
from digestry.catalog.quotas import Quota
from digestry.catalog.tag_policy import TagPolicy
from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown
from digestry.model.text import did_you_mean
from digestry.registry import (
    advisories_config,
    cors,
    fleet_config,
    hosts,
    immutability_config,
    min_age_config,
    observe_config,
    proxies,
    quota_config,
    retention_config,
    scan_config,
    scrub,
    sparse_config,
    storage_config,
    toml,
    transparency_config,
    web_config,
    webhooks,
)
from digestry.registry import observability_config as observing
from digestry.registry.access import config as access_config
from digestry.registry.access.config import AccessConfig
from digestry.registry.connections import config as connections
from digestry.registry.connections.config import ConnectionLimits
from digestry.registry.cors import CorsConfig
from digestry.registry.fleet_config import FleetConfig
from digestry.registry.observability_config import HealthConfig, LogConfig, MetricsConfig
from digestry.registry.observe_config import ObserveConfig
from digestry.registry.proxies import ProxyConfig
from digestry.registry.pull_through import config as pull_through_config
from digestry.registry.pull_through.config import MirrorConfig
from digestry.registry.retention_config import CollectionConfig
from digestry.registry.scan_config import ScanConfig
from digestry.registry.scrub import ScrubConfig
from digestry.registry.storage_config import StorageConfig
from digestry.registry.toml import Key, Where
from digestry.registry.transparency_config import TransparencyConfig
from digestry.registry.web_config import WebConfig
from digestry.registry.webhooks import Webhook

DEFAULT_LISTEN: Final = "127.0.0.1:5000"
_HIGHEST_PORT: Final = 65535
_MOST_WORKERS: Final = 4
"""More workers run only if the configuration says so."""

KEYS: Final = (
    Key("root", toml.file, None),
    Key("listen", toml.text, DEFAULT_LISTEN),
    Key("workers", toml.whole(1, 64), None),
    Key("drain-seconds", toml.seconds(0, 600), 0.0),
    Key("allow-anonymous", toml.flag, False),
    Key("hosts", hosts.names, ()),
    Key("read-only", toml.flag, False),
    Key("group-access", toml.flag, False),
    *connections.LISTEN_KEYS,
)
LIMIT_KEYS: Final = (
    Key("manifest", toml.size, 4 << 20),
    Key("upload", toml.size, 100 << 30),
    Key("uploads", toml.whole(1, 1_000_000), 2000),
    Key("uploads-per-user", toml.whole(1, 1_000_000), 500),
    Key("upload-idle-seconds", toml.seconds(1, 30 * 86400), 24 * 3600.0),
    *connections.LIMIT_KEYS,
)
TLS_KEYS: Final = (Key("certificate", toml.file), Key("key", toml.file))

SECTIONS: Final = frozenset(
    {
        "limits",
        "tls",
        "web",
        "fleet",
        "proxy",
        "cors",
        "auth",
        "rule",
        "oidc",
        "quota",
        "immutability",
        "min-age",
        "sparse",
        "webhook",
        "collection",
        "retention",
        "scrub",
        "scan",
        "metrics",
        "mirror",
        "observe",
        "observe-registry",
        "health",
        "log",
        "storage",
        "advisories",
        "transparency",
    }
)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The files of a certificate with its chain, and of its key, both PEM."""

    certificate: Path
    key: Path


def _usual_workers() -> int:
    """Return the default number of workers: one for each core, up to :data:`_MOST_WORKERS`."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """The configuration of one registry. Sizes in bytes, times in seconds."""

    root: Path | None
    """The directory of the catalog, the content, the keys and the locks, as far as they are not elsewhere,
    and of a node's own files; None for a node that keeps none."""
    host: str = "127.0.0.1"
    port: int = 5000
    socket: Path | None = None
    """The unix socket that it listens on, instead of host and port."""
    socket_mode: int = 0o660
    http2: bool = False
    """Whether HTTP/2 is spoken as well."""
    workers: int = field(default_factory=_usual_workers)
    drain_seconds: float = 0.0
    """How long requests are still answered after SIGTERM, while ``/readyz`` answers 503."""
    allow_anonymous: bool = False
    """Whether a registry without logins may listen on an address that others reach."""
    group_access: bool = False
    """Whether the group of the root may read it."""
    manifest_limit: int = 4 << 20
    """The largest manifest that is taken; distribution-spec, "Pushing Manifests", wants 4 MiB or more."""
    upload_limit: int = 100 << 30
    """The largest blob that is taken."""
    uploads: int = 2000
    """Uploads under way at once, in all."""
    uploads_per_user: int = 500
    """Uploads under way at once that one user began."""
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    upload_timeout: float = 24 * 3600.0
    """An upload that nothing was written to for so long is dropped."""
    hosts: tuple[str, ...] = ()
    """The names that clients may have for this registry; without any, see :mod:`.request_checks`."""
    read_only: bool = False
    """Nothing that is stored changes: no pushes, no deletions, no collection."""
    tls: TlsConfig | None = None
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    cors: CorsConfig = field(default_factory=CorsConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    quotas: tuple[Quota, ...] = ()
    tags: TagPolicy = field(default_factory=TagPolicy)
    ages: AgePolicy = field(default_factory=AgePolicy)
    """How long a digest must have stood under a tag to be served."""
    sparse: tuple[str, ...] = ()
    """Patterns of repositories in which an index may list manifests that are not there."""
    webhooks: tuple[Webhook, ...] = ()
    trust: TrustPolicy = TRUST_EVERYBODY
    """Whose advisories count where the registry judges what runs."""
    mirrors: tuple[MirrorConfig, ...] = ()
    """The other registries that are mirrored or observed."""
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    collection: CollectionConfig = field(default_factory=CollectionConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    log: LogConfig = field(default_factory=LogConfig)
    scrub: ScrubConfig = field(default_factory=ScrubConfig)
    scan: ScanConfig = field(default_factory=ScanConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    web: WebConfig = field(default_factory=WebConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    transparency: TransparencyConfig = field(default_factory=TransparencyConfig)

    @property
    def scratch(self) -> Path:
        """The directory of this node's own files, which no other node reads: metrics, copies of the
        certificate, its part of the audit log, and files that are needed only while it runs.

        A node without a root has one only while it runs.
        """
        if self.root is None:
            raise AssertionError("a node without a root has no scratch directory yet")
        return self.root

    @property
    def catalog_options(self) -> CatalogOptions:
        """Return the catalog's part of this configuration."""
        return CatalogOptions(
            lease=int(self.collection.lease * clock.SECOND),
            policy=self.tags,
            subscriptions=tuple(webhook.subscription for webhook in self.webhooks),
            quotas=tuple(self.quotas),
            sparse=tuple(self.sparse),
            ages=self.ages,
        )

    def backend(self, now: clock.Clock = clock.now) -> Backend:
        """Return the stores of this registry, without making or opening them."""
        options, stores = self.catalog_options, self.storage.stores
        return open_backend(self.root, options, stores, largest_blob=self.upload_limit, now=now)

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"

    @property
    def loopback(self) -> bool:
        """Return whether only this machine reaches the address that the registry listens on."""
        return self.socket is None and is_loopback(self.host)

    def is_exempt(self, peer: str) -> bool:
        """Return whether the limit of connections does not apply to that address: this machine, and trusted
        proxies."""
        address = proxies.parse_address(peer)
        return (address is not None and address.is_loopback) or self.proxy.trusts(peer)

    @property
    def patience(self) -> float:
        """Return after how many seconds without bytes of its body a request is given up.

        A dead connection must not hold its upload for ever.
        """
        return self.connections.body_seconds


class Options(TypedDict, total=False):
    """The settings of the command line. None is for an option that was not given."""

    root: Path | None
    listen: str | None
    workers: int | None
    manifest_limit: int | None
    log_format: str | None
    allow_anonymous: bool | None


def load(
    file: Path | None, options: Options, *, environment: Mapping[str, str] | None = None
) -> RegistryConfig:
    """Read the configuration. ``options`` are the command line's; ``environment`` is this process's unless
    it is given.

    Raises :class:`InvalidConfiguration` for anything impossible, or unsafe unless it is explicit.
    """
    where = Where(file or Path("registry.toml"))
    document = {} if file is None else _read(file)
    sections = {name: document.pop(name) for name in list(document) if name in SECTIONS}
    for name in document:
        if name not in {key.name for key in KEYS}:
            known = [key.name for key in KEYS] + [f"[{section}]" for section in sorted(SECTIONS)]
            suggestion = did_you_mean(name, [*(key.name for key in KEYS), *SECTIONS])
            raise where.wrong(f"unknown key {shown(name)}{suggestion}", hint=f"there are: {', '.join(known)}")
    top = toml.read(document, KEYS, where)
    limits = toml.read(sections.get("limits", {}), LIMIT_KEYS, Where(where.file, "limits"))
    given: toml.Values = {name: value for name, value in options.items() if value is not None}
    manifest_limit = given.pop("manifest_limit", limits["manifest"])
    top.update(given)
    log = observing.log(sections, where)
    log_format = given.pop("log_format", log.format)
    log = replace(log, format=log_format)
    if not 4 << 20 <= manifest_limit <= 64 << 20:
        raise where.wrong("the limit of a manifest is from 4 MiB to 64 MiB")
    storage = storage_config.parse(sections, where, os.environ if environment is None else environment)
    if top["root"] is None:
        if storage.stores.needs_root:
            raise InvalidConfiguration(
                "there is no directory to keep the content in",
                hint="give --root, or root in the configuration; without one, [storage] names both a database"
                " and an S3 store",
            )
        if log.audit is None:  # a file would be lost with the node
            log = replace(log, audit="stderr")
    base = Path.cwd() if given.get("listen") is not None or file is None else file.parent
    path = connections.socket_path(top["listen"], base)
    host, port = ("", 0) if path is not None else parse_listen(top["listen"])
    observe = observe_config.parse(sections, where)
    mirrors = pull_through_config.parse(
        sections, where, (one.host for one in observe.repositories), observe_config.REGISTRY_SECTION
    )
    config = RegistryConfig(
        root=None if top["root"] is None else top["root"].absolute(),
        host=host,
        port=port,
        socket=path,
        socket_mode=int(top["socket_mode"], 8),
        http2=top["http2"],
        workers=top["workers"] or (_usual_workers() if storage.stores.database is None else 1),
        drain_seconds=top["drain_seconds"],
        allow_anonymous=top["allow_anonymous"],
        group_access=top["group_access"],
        manifest_limit=manifest_limit,
        upload_limit=limits["upload"],
        uploads=limits["uploads"],
        uploads_per_user=limits["uploads_per_user"],
        connections=connections.limits(limits),
        upload_timeout=limits["upload_idle_seconds"],
        tls=_tls(sections["tls"], Where(where.file, "tls")) if "tls" in sections else None,
        hosts=top["hosts"],
        read_only=top["read_only"],
        proxy=proxies.parse(sections, where),
        cors=cors.parse(sections, where),
        access=access_config.parse(sections, where),
        quotas=tuple(
            quota_config.parse(table, here) for table, here in toml.tables(sections, "quota", where)
        ),
        tags=immutability_config.parse(sections, where),
        ages=min_age_config.parse(sections, where, mirrors),
        sparse=sparse_config.parse(sections, where),
        webhooks=webhooks.parse(sections, where),
        trust=advisories_config.parse(sections, where),
        mirrors=mirrors,
        observe=observe,
        collection=retention_config.parse(sections, where),
        metrics=observing.metrics(sections, where),
        health=observing.health(sections, where),
        log=log,
        scrub=scrub.parse(sections, where),
        scan=scan_config.parse(sections, where),
        storage=storage,
        web=web_config.parse(sections, where),
        fleet=fleet_config.parse(sections, where),
        transparency=transparency_config.parse(sections, where),
    )
    _check_open(config)
    return config


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {file}: {error.strerror}") from error
    except RecursionError as error:
        raise InvalidConfiguration(f"{file} is nested too deeply") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfiguration(f"{file} is not valid TOML: {error}") from error


def _tls(table: object, where: Where) -> TlsConfig:
    return TlsConfig(**toml.read(table, TLS_KEYS, where))


def _check_open(config: RegistryConfig) -> None:
    # The permissions of a unix socket's file and folder decide who reaches it.
    if config.access.enabled or config.allow_anonymous or config.socket or is_loopback(config.host):
        return
    raise InvalidConfiguration(
        f"this registry will not listen on {config.host}, which is not a loopback address, without asking"
        " who its clients are: everybody who reaches it could push and delete",
        hint="write [auth] into a file for --config (docs/registry.md), or say --allow-anonymous",
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches that host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; port 0 means a free one. Raises :class:`InvalidConfiguration`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > _HIGHEST_PORT:
        raise InvalidConfiguration(
            f"{shown(text)} is not an address to listen on",
            hint=f"write it as HOST:PORT, such as {DEFAULT_LISTEN}, or as unix:PATH",
        )
    return host, int(port)
