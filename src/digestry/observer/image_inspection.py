"""The inspection of an image in another registry: the config of each platform, and what is attached to it."""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from digestry.errors import (
    Conflict,
    ContentError,
    DigestryError,
    InvalidConfiguration,
    InvalidManifest,
    RemoteError,
    TooLarge,
)
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.json_types import prepared
from digestry.model.manifest import Manifest
from digestry.model.platform import Platform
from digestry.observer.attachments import attachments
from digestry.observer.content import Content
from digestry.observer.facts import ImageFacts, TagFacts
from digestry.observer.hosts import Host
from digestry.observer.reasons import reason_of
from digestry.registry.observed_targets import Target
from digestry.registry.pull_through import upstream_errors
from digestry.registry.pull_through.upstream_errors import BackingOff

_CONFIG: Final = 4 << 20
_MOST_CHILDREN: Final = 200
_BASE: Final = ("org.opencontainers.image.base.digest", "org.opencontainers.image.base.name")
_REFERENCE_TYPE: Final = "vnd.docker.reference.type"
_AUTHORS: Final = "org.opencontainers.image.authors"


class Later(Exception):
    """Something could not be fetched now: the inspection is repeated later."""

    def __init__(self, error: DigestryError) -> None:
        super().__init__(error.message)
        self.error = error


class ImageInspection:
    """The inspection of the images of one move.

    ``listed`` are the tags of signatures in the repository's last list. With ``at_last``, what cannot be
    fetched stays unknown.
    """

    def __init__(
        self,
        content: Content,
        host: Host,
        target: Target,
        stop: threading.Event,
        *,
        listed: frozenset[str] | None,
        at_last: bool,
    ) -> None:
        self._content = content
        self._listed = listed
        self._host = host
        self._target = target
        self._stop = stop
        self._at_last = at_last
        self._unknown: list[str] = []

    def tag_facts(self, digest: Digest, *, fresh: bool) -> TagFacts:
        """Return what an image shows; of a ``fresh`` one, what is attached to it now is asked for."""
        self._unknown = []
        manifest = self._manifest(digest)
        if manifest is None:
            return TagFacts(attachments=None, unknown=tuple(self._unknown), readable=False)
        images: dict[str, ImageFacts] = {}
        platforms: set[str] = set()
        inside: set[str] = set()
        if manifest.config is not None:
            facts, platform = self._image(manifest)
            platforms.add(platform)
            if facts is not None:
                images[platform] = facts
        else:
            self._index(manifest, images, platforms, inside)
        attached = self._attachments(digest, fresh=fresh)
        return TagFacts(
            manifest.config is None,
            images,
            frozenset(filter(None, platforms)),
            None if attached is None else attached | inside,
            tuple(dict.fromkeys(self._unknown)),
            is_artifact=manifest.config is not None and not _is_image(manifest),
            readable=len(manifest.manifests) <= _MOST_CHILDREN,
        )

    def _index(
        self, manifest: Manifest, images: dict[str, ImageFacts], platforms: set[str], inside: set[str]
    ) -> None:
        """Add what an index lists: images and their platforms, and what is no image."""
        if len(manifest.manifests) > _MOST_CHILDREN:
            self._unknown.append(f"{manifest.digest} lists {len(manifest.manifests)} images: not looked at")
            return
        for child in manifest.manifests:
            kind = child.annotations.get(_REFERENCE_TYPE) if child.annotations else None
            if kind or (child.platform is not None and child.platform.is_unknown):
                inside.add(f"{kind or child.artifact_type or 'manifest of no platform'} in the index")
                continue
            found = self._manifest(child.digest)
            facts, own = None, ""
            if found is not None and found.config is None:
                self._unknown.append(f"{child.digest} in the index is an index: not looked at")
            elif found is not None and not _is_image(found):
                inside.add(f"{found.artifact_type} in the index")
                continue
            elif found is not None:
                facts, own = self._image(found)
            platform = own if child.platform is None else _platform(child.platform)
            platforms.add(platform)  # what names none is not told by its digest: each build has another
            if facts is not None:
                images.setdefault(platform, facts)

    def _manifest(self, digest: Digest) -> Manifest | None:
        try:
            return self._content.manifest(self._host, self._target, digest, self._stop)
        except Conflict:
            raise
        except (RemoteError, ContentError, InvalidConfiguration, InvalidManifest) as error:
            self._missing(f"manifest {digest}", error)
            return None

    def _image(self, manifest: Manifest) -> tuple[ImageFacts | None, str]:
        """Return what an image shows, None if its config cannot be read; and its platform."""
        base = next((manifest.annotations[name] for name in _BASE if manifest.annotations.get(name)), "")
        author = manifest.annotations.get(_AUTHORS, "")
        if manifest.config is None or not _is_image(manifest):
            return ImageFacts(base=base, author=author), ""
        config = self._config(manifest.config)
        if config is None:
            return None, ""
        labels = config.settings.get("Labels")
        labels = labels if isinstance(labels, dict) else {}
        base = base or next((str(labels[name]) for name in _BASE if labels.get(name)), "")
        author = _author_of(config.raw) or author or str(labels.get(_AUTHORS) or "")
        return (
            ImageFacts(tuple(map(str, config.diff_ids)), author, config.created or "", base),
            _platform(config.platform),
        )

    def _config(self, descriptor: Descriptor) -> ImageConfig | None:
        try:
            raw = self._content.small_blob(self._host, self._target, descriptor, self._stop, limit=_CONFIG)
            return ImageConfig.parse(raw, algorithm=descriptor.digest.algorithm)
        except Conflict:
            raise
        except (RemoteError, ContentError, InvalidConfiguration, InvalidManifest, TooLarge) as error:
            self._missing(f"config {descriptor.digest}", error)
            return None

    def _attachments(self, digest: Digest, *, fresh: bool) -> frozenset[str] | None:
        try:
            return attachments(
                self._host,
                self._target,
                digest,
                self._listed,
                self._stop,
                with_tags=fresh,
            )
        except Conflict:
            raise
        except (RemoteError, ContentError, InvalidConfiguration) as error:
            self._missing(f"what is attached to {digest}", error)
            return None

    def _missing(self, what: str, error: DigestryError) -> None:
        if is_temporary(error) and not self._at_last:
            raise Later(error) from error
        self._unknown.append(f"{what}: {absence(error)}")


def _is_image(manifest: Manifest) -> bool:
    return manifest.config is not None and manifest.config.media_type in media_types.IMAGE_CONFIGS


def _platform(platform: Platform) -> str:
    """Return a platform without what changes with each update of Windows."""
    release = ".".join((platform.os_version or "").split(".")[:3])
    return f"{platform} {release}".strip() if platform.is_stated else ""


def absence(error: DigestryError) -> str:
    """Return why something could not be had."""
    if isinstance(error, RemoteError) and upstream_errors.is_gone(error):
        return "the registry does not have it any more"
    return reason_of(error)


def is_temporary(error: DigestryError) -> bool:
    """Return whether asking again later may help."""
    return isinstance(error, BackingOff) or (
        isinstance(error, RemoteError) and upstream_errors.is_outage(error)
    )


class _Author(msgspec.Struct, frozen=True):
    author: str | None = None


def _author_of(config: bytes) -> str:
    try:
        return msgspec.json.decode(config, type=prepared(_Author)).author or ""
    except msgspec.MsgspecError:
        return ""
