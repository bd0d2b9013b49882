"""The stores of a registry that moves: the old ones, and the new ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from digestry.backend import Backend, host_coordination
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, InvalidConfiguration
from digestry.fsio import make_directory
from digestry.registry.config import RegistryConfig, load


@dataclass(frozen=True, slots=True)
class MigratingStores:
    """The stores that a configuration names; ``file`` is where it was read from."""

    file: Path
    config: RegistryConfig
    backend: Backend

    @property
    def name(self) -> str:
        """Return where the catalog and the content are, for messages."""
        return f"{self.backend.catalog_store.describe()} and {self.backend.blobs.location}"

    def has_content_of(self, other: MigratingStores) -> bool:
        """Return whether the content of both is in the same place, so that it need not be copied."""
        ours, theirs = self.config.storage.stores, other.config.storage.stores
        if ours.blobs is None or theirs.blobs is None:
            return ours.blobs is theirs.blobs and self.config.root == other.config.root
        return (ours.blobs.rstrip("/"), ours.endpoint) == (theirs.blobs.rstrip("/"), theirs.endpoint)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep the registry from being served in the block, unless it is read-only.

        Raises :class:`Conflict` if it may be served, and take pushes.
        """
        if self.config.read_only:
            yield
            return
        if self.config.root is None or self.config.storage.stores.database is not None:
            raise Conflict(
                f"nodes may be accepting pushes for {self.name}: that cannot be seen from here",
                hint="write read-only = true to the configuration of all of them, start them again or stop"
                f" them, and write it to {self.file}",
            )
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(host_coordination(self.config.root).only_one(Job.SERVE))
            except Conflict as error:
                raise Conflict(
                    f"{self.backend.location} is being served, and takes pushes",
                    hint=f"stop it, or write read-only = true to {self.file} and start it again; --copy-only"
                    " copies content meanwhile",
                ) from error
            yield

    @contextlib.contextmanager
    def unserved(self) -> Iterator[None]:
        """Make the root of new stores, if they have one, and keep it from being served in the block."""
        root = self.config.root
        if root is None:
            yield
            return
        make_directory(root)
        host = host_coordination(root)
        host.prepare()
        with host.only_one(Job.SERVE, held=f"{root} is in use by another digestry"):
            yield


def read_stores(file: Path) -> MigratingStores:
    """Return the stores that the configuration ``file`` names, without the environment's settings.

    Raises :class:`InvalidConfiguration`.
    """
    config = load(file, {"allow_anonymous": True}, environment={})
    return MigratingStores(file, config, config.backend())


def check_pair(old: MigratingStores, new: MigratingStores) -> None:
    """Raise :class:`InvalidConfiguration` unless the catalog gets a new place."""
    name = old.backend.catalog_store.describe()
    if new.backend.catalog_store.describe() == name:
        raise InvalidConfiguration(
            f"{old.file} and {new.file} name the same catalog, {name}",
            hint="a catalog is always copied: give the new one another root, or another database",
        )
