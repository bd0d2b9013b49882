"""What changed between two images or indexes: platforms, config, layers and sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from digestry.errors import ContentError, InvalidManifest, NotFound, ProtocolViolation, RemoteNotFound
from digestry.model import media_types
from digestry.model.config_comparison import ConfigChanges, TextChange, compare_configs, compare_texts
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.layer_comparison import (
    BaseComparison,
    LayerChanges,
    compare_bases,
    compare_layers,
    layers_of,
)
from digestry.model.manifest import Image, Index
from digestry.model.platform import Platform, by_preference

UNNAMED: Final = "unknown"
"""The platform of an image that states none."""
_UNREADABLE: Final = (NotFound, RemoteNotFound, ContentError, InvalidManifest, ProtocolViolation)
_BUILD: Final = 3  # major, minor and build of a Windows version


class ContentReader(Protocol):
    """A place that has manifests and configs: a repository, a local store, a layout."""

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        """Return a manifest by its digest, verified. Raises :class:`NotFound`, :class:`RemoteNotFound`."""
        ...

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a small blob, verified. Raises as :meth:`manifest` does."""
        ...


@dataclass(frozen=True, slots=True)
class ComparedContent:
    """One side of a comparison: an image or index, and the place that has its content."""

    manifest: Image | Index
    reader: ContentReader


class PlatformChange(msgspec.Struct, frozen=True):
    """A platform, and the digests of its images; None in an index without it."""

    platform: str
    old: Digest | None
    new: Digest | None


class ImageSummary(msgspec.Struct, frozen=True):
    """The image of one platform. ``size`` is the bytes of its layers as they are kept; ``created_at`` is as
    its config says it."""

    digest: Digest
    image_id: Digest
    created_at: str | None
    size: int
    layers: int


class ImageChanges(msgspec.Struct, frozen=True):
    """What differs between two images of one platform. ``config`` is None for artifacts, which have none."""

    platform: str
    old: ImageSummary
    new: ImageSummary
    base: BaseComparison
    layers: LayerChanges
    config: ConfigChanges | None
    annotations: tuple[TextChange, ...]


class Comparison(msgspec.Struct, frozen=True):
    """What differs between two images or indexes.

    ``annotations`` are those of the two that were named. ``platforms`` has every platform of either;
    ``others`` is the number of entries of the two indexes that are no images of a platform, such as
    attestations. ``image`` compares one platform; None, with the reason as ``problem``, if that cannot be
    done.
    """

    old: Digest
    new: Digest
    annotations: tuple[TextChange, ...]
    platforms: tuple[PlatformChange, ...]
    others: int
    image: ImageChanges | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class _Single:
    """An image with its config; None for an artifact, which has none."""

    image: Image
    config: ImageConfig | None


@dataclass(frozen=True, slots=True)
class _Side:
    """The images of one side by the names of their platforms. ``single`` is set for an image outside of an
    index, if its config could be read."""

    content: ComparedContent
    entries: Mapping[str, Descriptor]
    platforms: tuple[Platform | None, ...]
    others: int = 0
    single: _Single | None = None

    @property
    def is_image(self) -> bool:
        return isinstance(self.content.manifest, Image)

    def digest(self, name: str) -> Digest | None:
        entry = self.entries.get(name)
        return None if entry is None else entry.digest

    def read(self, name: str) -> _Single:
        """Return the image of a platform. Raises as :class:`ContentReader` does."""
        if self.single is not None:
            return self.single
        found = self.content.reader.manifest(self.entries[name])
        if not isinstance(found, Image):
            raise InvalidManifest(
                f"{found.digest} is an index, and {self.content.manifest.digest} says image"
            )
        return _Single(found, _config(found, self.content.reader))

    def name_for(self, wanted: Platform) -> str:
        """Return the name of the best platform for ``wanted``. Raises :class:`NotFound`."""
        names = list(self.entries)
        if self.is_image:
            return names[0]
        best = by_preference(self.platforms, wanted)
        if not best:
            raise NotFound(f"{self.content.manifest.digest} has no image for {wanted}")
        return names[best[0]]


def compare(
    old: ComparedContent,
    new: ComparedContent,
    *,
    platform: str | None = None,
    preferred: Platform | None = None,
) -> Comparison:
    """Return what differs between two images or indexes.

    ``platform`` chooses the images that are compared in detail, by a name of ``platforms`` or as
    :meth:`Platform.parse` reads it. Without it they are those of the first platform that both have and that
    differs; if several differ, of ``preferred`` if that is one. Four documents are read, at most, beside the
    two. Raises :class:`InvalidConfiguration` for a platform that is none, and the errors of the places.
    """
    changes, problem = None, None
    before, after = _side(old), _side(new)
    names = dict.fromkeys([*after.entries, *before.entries])
    try:
        names_of_both = _chosen(before, after, platform, preferred)
        changes = _image_changes(
            before.read(names_of_both[0]), after.read(names_of_both[1]), names_of_both[1]
        )
    except _UNREADABLE as error:
        problem = error.message
    return Comparison(
        old=old.manifest.digest,
        new=new.manifest.digest,
        annotations=compare_texts(old.manifest.annotations, new.manifest.annotations),
        platforms=tuple(PlatformChange(name, before.digest(name), after.digest(name)) for name in names),
        others=before.others + after.others,
        image=changes,
        problem=problem,
    )


def _side(content: ComparedContent) -> _Side:
    manifest = content.manifest
    if isinstance(manifest, Image):
        single, platform = None, None
        with contextlib.suppress(*_UNREADABLE):  # which whoever needs the config will meet again
            single = _Single(manifest, _config(manifest, content.reader))
            platform = None if single.config is None else single.config.platform
        return _Side(content, {_name(platform): manifest.descriptor()}, (platform,), single=single)
    entries: dict[str, Descriptor] = {}
    platforms: list[Platform | None] = []
    others = 0
    for entry in manifest.manifests:
        platform = entry.platform
        if entry.media_type not in media_types.IMAGE_MANIFESTS or (platform and platform.is_unknown):
            others += 1
            continue
        name = _name(platform)
        if name in entries:
            name = f"{name} ({len(entries) + 1})"
        entries[name] = entry
        platforms.append(platform)
    return _Side(content, entries, tuple(platforms), others)


def _name(platform: Platform | None) -> str:
    """Return the name of a platform: ``linux/amd64``; for Windows with the build, whose revision changes with
    every update."""
    if platform is None or not (platform.os or platform.architecture):
        return UNNAMED
    build = ".".join((platform.os_version or "").split(".")[:_BUILD])
    return f"{platform.normalized()} {build}".rstrip()


def _chosen(old: _Side, new: _Side, platform: str | None, preferred: Platform | None) -> tuple[str, str]:
    """Return the names of the images to compare. Raises :class:`NotFound`."""
    if platform is not None:
        if platform in old.entries and platform in new.entries:
            return platform, platform
        wanted = Platform.parse(platform)
        return old.name_for(wanted), new.name_for(wanted)
    if old.is_image and new.is_image:
        return next(iter(old.entries)), next(iter(new.entries))
    common = [name for name in new.entries if name in old.entries]
    changed = [name for name in common if old.digest(name) != new.digest(name)] or common
    if not changed:
        raise NotFound("the two have no platform in common", hint="choose with --platform")
    if preferred is not None and (name := _name(preferred)) in changed:
        return name, name
    return changed[0], changed[0]


def _config(image: Image, reader: ContentReader) -> ImageConfig | None:
    """Return an image's config; None for an artifact. Raises as :class:`ContentReader` does."""
    if image.config.media_type not in media_types.IMAGE_CONFIGS:
        return None
    return ImageConfig.parse(reader.read_blob(image.config), algorithm=image.config.digest.algorithm)


def _image_changes(old: _Single, new: _Single, platform: str) -> ImageChanges:
    old_layers, new_layers = layers_of(old.image, old.config), layers_of(new.image, new.config)
    return ImageChanges(
        platform=platform,
        old=_summary(old),
        new=_summary(new),
        base=compare_bases(old.image, old_layers, new.image, new_layers),
        layers=compare_layers(old_layers, new_layers),
        config=compare_configs(old.config, new.config) if old.config and new.config else None,
        annotations=compare_texts(old.image.annotations, new.image.annotations),
    )


def _summary(of: _Single) -> ImageSummary:
    return ImageSummary(
        digest=of.image.digest,
        image_id=of.image.config.digest,
        created_at=None if of.config is None else of.config.created,
        size=sum(layer.size for layer in of.image.layers),
        layers=len(of.image.layers),
    )
