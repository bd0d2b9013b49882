"""All mirrors of a worker process, and the choice of the one that a request is for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from digestry import fsio
from digestry.catalog.reads import CatalogReads
from digestry.coordination.protocol import Coordination
from digestry.errors import InvalidReference
from digestry.model.reference import DOCKER_HUB, check_repository
from digestry.registry.access.principal import Principal
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.pull_through.config import MirrorConfig
from digestry.registry.pull_through.mirror import DIRECTORY, Mirror, UpstreamRepository
from digestry.registry.pull_through.names import HUB_NAMES, canonical
from digestry.registry.pull_through.upstream import MakeUpstream

_READING: Final = frozenset({"GET", "HEAD"})
_FORGOTTEN: Final = 24 * 3600.0


class Mirrors:
    """The mirrors by repository name. Used on the event loop."""

    def __init__(
        self,
        configs: Sequence[MirrorConfig],
        make_upstream: MakeUpstream,
        scratch: Path,
        read_cache: CatalogReads,
        coordination: Coordination,
    ) -> None:
        self.all = [Mirror(config, make_upstream(config), scratch, coordination) for config in configs]
        self._directory = scratch / DIRECTORY
        self._by_start = [(f"{mirror.config.prefix}/", mirror) for mirror in self.all]
        self._by_start += [
            (f"{name}/", mirror)
            for mirror in self.all
            if mirror.config.prefix == DOCKER_HUB == mirror.config.host
            for name in HUB_NAMES
        ]
        self._by_host = {canonical(mirror.config.host): mirror for mirror in self.all}
        self._default = next((mirror for mirror in self.all if mirror.config.default), None)
        self._read_cache = read_cache
        self._secret = os.urandom(32)

    def start(self) -> None:
        """Make the directory of the locks, and remove what a killed process left there."""
        fsio.make_directory(self._directory)
        for path in (*self._directory.glob("*.size"), *self._directory.glob("*.new")):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _FORGOTTEN:
                    path.unlink()

    def stop(self) -> None:
        for mirror in self.all:
            mirror.stop()

    async def repository_of(self, exchange: Exchange, name: str, resource: str) -> UpstreamRepository | None:
        """Return the upstream's repository of a request; None for a repository of this registry.

        By its prefix; by containerd's parameter ``ns``, the registry that it pulls from; or, for reads only,
        by the default mirror, if no repository here that the client may see has that name, and ``ns`` names
        no other registry.

        The rules decide what the client may see, without regard to what exists. So a hidden name is answered
        as an absent one: both are requested from the upstream.
        """
        for start, mirror in self._by_start:
            if name.startswith(start):
                return self._at(mirror, name.removeprefix(start), asked=name)
        if b"ns=" in exchange.scope["query_string"]:
            namespace = exchange.query_params.get("ns", "")
            found = self._by_host.get(canonical(namespace))
            if found is not None:
                return self._at(found, name, asked=name)
            if namespace:
                return None  # an image of one registry must not come from another
        default = self._default
        if default is None or exchange.scope["method"] not in _READING or resource == "upload":
            return None
        here = await self._read_cache.repository(name)
        seen = exchange.principal.may_see(name)
        if here and seen:
            return None
        repository = replace(self._at(default, name, asked=name), by_default=True)
        if not repository.may_fetch or not (seen or exchange.principal.may_see(repository.local_name)):
            return None
        if seen:
            return repository
        if exchange.header(b"authorization") is not None:
            return replace(repository, withheld=here)
        if resource == "referrers":
            return (
                None  # for an absent repository the answer is no error, and the client would get no challenge
            )
        # An anonymous client may see the name after a login: a request is sent to upstream, without the name.
        return replace(self._decoy(repository) if here else repository, withheld=here, before_login=True)

    def _decoy(self, repository: UpstreamRepository) -> UpstreamRepository:
        """Return a repository of an unused name, which does not reveal the name of ``repository``."""
        upstream = "/".join(
            hashlib.blake2b(part.encode(), key=self._secret, digest_size=10).hexdigest()
            for part in repository.requested_name.split("/")
        )
        config = repository.mirror.config
        upstream = config.upstream_name(upstream)
        return replace(repository, upstream_name=upstream, local_name=config.local_name(upstream))

    def default_repository(self, name: str) -> UpstreamRepository | None:
        """Return the default mirror's repository named ``name``, if fetching from it is allowed."""
        if self._default is None or any(name.startswith(start) for start, _ in self._by_start):
            return None
        try:
            repository = self._at(self._default, name, asked=name)
        except InvalidReference:
            return None
        return repository if repository.may_fetch else None

    async def canonical_repository(self, name: str, principal: Principal) -> str:
        """Return the repository that a name means, without asking an upstream: the mirror's for another name
        of its registry; the default mirror's for a name without a prefix, if only that has it."""
        for start, mirror in self._by_start:
            if name.startswith(start):
                config = mirror.config
                return config.local_name(config.upstream_name(name.removeprefix(start)))
        default = self._default
        if default is None or await self._read_cache.repository(name):
            return name
        try:
            upstream = default.config.upstream_name(name)
            local = check_repository(default.config.local_name(upstream))
        except InvalidReference:
            return name
        if not principal.may_see(local) or not default.config.fetches(upstream):
            return name
        return local if await self._read_cache.repository(local) else name

    async def origin(self, name: str, principal: Principal) -> str:
        """Return the host of the upstream of repository ``name``, which alone knows its tags and their
        history; empty for a repository of this registry's own."""
        for start, mirror in self._by_start:
            if name.startswith(start):
                config, inner = mirror.config, name.removeprefix(start)
                return config.host if config.fetches(config.upstream_name(inner)) else ""
        default = self._default
        if default is None or (principal.may_see(name) and await self._read_cache.repository(name)):
            return ""
        return default.config.host if default.config.fetches(default.config.upstream_name(name)) else ""

    def has_local_name(self, name: str) -> bool:
        """Return whether ``name`` is that of a repository here which is a copy of an upstream's."""
        return any(name.startswith(f"{mirror.config.prefix}/") for mirror in self.all)

    def check_not_upstream(self, name: str) -> None:
        """Raise :class:`ErrorResponse` 405 if ``name`` is an upstream's: its tags are moved there."""
        for start, mirror in self._by_start:
            if name.startswith(start):
                raise read_only(mirror.config, name)

    def _at(self, mirror: Mirror, name: str, *, asked: str) -> UpstreamRepository:
        config = mirror.config
        upstream = config.upstream_name(check_repository(name))
        local = check_repository(config.local_name(upstream))
        return UpstreamRepository(mirror, local, upstream, asked, may_fetch=config.fetches(upstream))


def read_only(mirror: MirrorConfig, name: str) -> ErrorResponse:
    """Return the response to a request that would change a copy of another registry's repository."""
    return ErrorResponse(
        405,
        "UNSUPPORTED",
        f"repository {name} is a copy of what {mirror.host} has: push there, or to another repository here",
        headers={"Allow": "GET, HEAD, DELETE"},
    )
