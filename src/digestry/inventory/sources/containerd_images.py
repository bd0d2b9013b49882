"""The images of one containerd namespace, and the image that a container was made from.

containerd unpacks an image to a snapshot whose name is the chain ID of its layers (OCI image-spec, config.md,
"Layer ChainID"). That snapshot is the parent of a container's own. Several images may have the same layers
and so the same chain ID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from digestry.errors import DigestryError, InvalidDigest, InvalidManifest, RemoteNotFound
from digestry.inventory.engine_values import platform_of
from digestry.inventory.engines.containerd_api import SOURCE_LABEL, Container, Containerd, NamedImage
from digestry.model.digest import Digest
from digestry.model.json_types import prepared
from digestry.model.platform import Platform

_MOST_ENTRIES: Final = 1000
_DEEPEST: Final = 4
# Settings of containers from their clients, not from their image.
_CLIENTS_LABELS: Final = ("nerdctl/", "io.containerd.", "containerd.io/", "io.cri-containerd.")
_CLIENTS_VARIABLES: Final = ("TERM=", "HOSTNAME=", "HOME=")
_USUAL_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str = ""
    media_type: str = ""


class _Manifest(msgspec.Struct):
    config: _Descriptor | None = None
    manifests: list[_Descriptor] | None = None


class _RootFS(msgspec.Struct):
    diff_ids: list[str] | None = None


class _Settings(msgspec.Struct, rename="pascal"):
    labels: dict[str, str] | None = None
    env: list[str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    working_dir: str | None = None


class _Config(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    rootfs: _RootFS | None = None
    config: _Settings | None = None


class _Process(msgspec.Struct):
    args: list[str] | None = None
    env: list[str] | None = None
    cwd: str = ""


class _Spec(msgspec.Struct):
    process: _Process | None = None


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """A config in the store: the chain ID of its layers, and the settings of its containers.

    ``since`` is when it was stored, in nanoseconds since 1970.
    """

    digest: Digest
    chain: str
    platform: Platform | None
    since: int
    settings: _Settings

    def would_make(self, container: Container) -> bool:
        """Return whether ``container`` has exactly the settings of this config.

        Return False if anything was set by hand: then the container may be of another image.
        """
        try:
            process = msgspec.json.decode(container.spec, type=prepared(_Spec)).process or _Process()
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return False
        own = self.settings
        labels = {
            name: value for name, value in container.labels.items() if not name.startswith(_CLIENTS_LABELS)
        }
        return (
            self.since <= container.created
            and labels == (own.labels or {})
            and _variables(process.env) == _variables(own.env)
            and (process.args or []) == [*(own.entrypoint or []), *(own.cmd or [])]
            and (process.cwd or "/") == (own.working_dir or "/")
        )


def _variables(environment: Iterable[str] | None) -> set[str]:
    return {
        variable
        for variable in environment or ()
        if not variable.startswith(_CLIENTS_VARIABLES) and variable != _USUAL_PATH
    }


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """An image manifest, and the digest of its config."""

    manifest: Digest
    config: Digest


class NamespaceStore:
    """The images of a namespace, read from ``containerd`` when they are needed, and then cached."""

    def __init__(self, containerd: Containerd, namespace: str) -> None:
        self._containerd = containerd
        self._namespace = namespace
        self._images: Mapping[str, NamedImage] | None = None
        self._manifests: dict[Digest, tuple[StoredManifest, ...]] = {}
        self._configs: dict[Digest, StoredConfig | None] = {}
        self._sources: dict[Digest, frozenset[str]] = {}

    def images(self) -> Mapping[str, NamedImage]:
        """Return the images by name. Raises :class:`DigestryError`, as every method here does."""
        if self._images is None:
            self._images = self._containerd.images(self._namespace)
        return self._images

    def manifests(self, image: NamedImage) -> tuple[StoredManifest, ...]:
        """Return the image's manifest, or those of its index, as far as they are in the store."""
        try:
            target = Digest.parse(image.digest)
        except InvalidDigest:
            return ()
        if target not in self._manifests:
            self._manifests[target] = tuple(dict.fromkeys(self._walk(target, _DEEPEST)))
        return self._manifests[target]

    def _walk(self, digest: Digest, depth: int) -> Iterator[StoredManifest]:
        try:
            document = self._containerd.document(self._namespace, digest)
        except RemoteNotFound:
            return  # of another platform, and never fetched
        try:
            manifest = msgspec.json.decode(document, type=prepared(_Manifest))
            config = Digest.parse(manifest.config.digest) if manifest.config else None
            children = [Digest.parse(child.digest) for child in manifest.manifests or ()]
        except (ValueError, RecursionError, InvalidDigest) as error:
            raise InvalidManifest(f"{digest} in containerd's store is not a manifest: {error}") from error
        if config is not None:
            yield StoredManifest(digest, config)
        if depth and len(children) <= _MOST_ENTRIES:
            for child in children:
                yield from self._walk(child, depth - 1)

    def stored_config(self, config: Digest) -> StoredConfig | None:
        """Return a config; None if it is not in the store or not an image's."""
        if config not in self._configs:
            self._configs[config] = self._read(config)
        return self._configs[config]

    def _read(self, digest: Digest) -> StoredConfig | None:
        try:
            document = self._containerd.document(self._namespace, digest)
            since = self._containerd.stored(self._namespace, digest).created
        except RemoteNotFound:
            return None
        try:
            config = msgspec.json.decode(document, type=prepared(_Config))
        except (ValueError, RecursionError):
            return None  # an artifact's, not an image's
        chain = chain_id((config.rootfs.diff_ids if config.rootfs else None) or [])
        platform = platform_of(config.architecture, config.os, config.variant)
        return StoredConfig(digest, chain, platform, since, config.config or _Settings())

    def with_layers(self, snapshotter: str, chain: str) -> list[StoredConfig]:
        """Return every known config in the store that has the layers of ``chain``."""
        digests = [
            Digest.parse(content.digest)
            for content in self._containerd.unpacked(self._namespace, snapshotter, chain)
        ]
        digests += [manifest.config for image in self.images().values() for manifest in self.manifests(image)]
        configs = [self.stored_config(digest) for digest in dict.fromkeys(digests)]
        return [config for config in configs if config is not None and config.chain == chain]

    def holding(self, config: Digest) -> list[NamedImage]:
        """Return the names of the images that have that config. Unreadable images are skipped."""
        found = []
        for image in self.images().values():
            try:
                manifests = self.manifests(image)
            except DigestryError:
                continue  # one name more for what is already known
            if any(manifest.config == config for manifest in manifests):
                found.append(image)
        return found

    def parent(self, snapshotter: str, key: str) -> str:
        """Return the chain ID of the parent of the snapshot ``key``; empty if it has none."""
        return self._containerd.parent(self._namespace, snapshotter, key)

    def pulled_from(self, target: Digest) -> frozenset[str]:
        """Return the repositories from which containerd pulled a blob, by its labels.

        They are ``host/path``, without the host's port.
        """
        if target not in self._sources:
            try:
                labels = self._containerd.stored(self._namespace, target).labels
            except RemoteNotFound:
                labels = {}
            self._sources[target] = frozenset(
                f"{name.removeprefix(SOURCE_LABEL)}/{path}"
                for name, value in labels.items()
                if name.startswith(SOURCE_LABEL)
                for path in value.split(",")
            )
        return self._sources[target]


def chain_id(diff_ids: list[str]) -> str:
    """Return the chain ID of layers, bottom first; "" for no layers."""
    chain = ""
    for diff_id in diff_ids:
        both = f"{chain} {diff_id}".encode(errors="replace")
        chain = diff_id if not chain else f"sha256:{hashlib.sha256(both).hexdigest()}"
    return chain
