"""The selection of the image of an index for a platform, as common clients select it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from digestry.errors import NotFound
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import DEEPEST, Image, Index, Manifest
from digestry.model.platform import Platform, by_preference

_MOST_UNSTATED: Final = 64
"""Entries that do not say for which platform they are that are looked into, of one index."""
_MOST_LOOKED_INTO: Final = 256
"""Manifests that are read to find one: an index may list thousands of others, each with thousands."""


class Content(Protocol):
    """A source of the manifests that an index lists."""

    def manifest(self, descriptor: Descriptor) -> Image | Index | None:
        """Return the manifest or index; None if it is not there."""
        ...

    def platform(self, image: Manifest) -> Platform | None:
        """Return the platform that the config names, which may be empty; None if there is no image config."""
        ...


@dataclass(frozen=True, slots=True)
class SelectedImage:
    """The selected image: its entry, and the inner indexes that it is in, from the outermost on."""

    entry: Descriptor
    inside: tuple[Image | Index, ...] = ()


def select_image(index: Manifest, wanted: Platform, content: Content) -> SelectedImage:
    """Return the image of ``index`` for ``wanted``. Raises :class:`NotFound`, which lists the platforms.

    The best of the entries for the platform (:func:`~digestry.model.platform.by_preference`); else an image
    of an inner index; else an image whose entry has no platform, but whose config matches.
    """
    search = _Search(wanted, content)
    found = search.within(index, 0)
    if found is None:
        # Attestations are of unknown/unknown: nobody can choose that.
        offered = [platform for platform in search.offered if not platform.is_unknown] or search.offered
        there = ", ".join(dict.fromkeys(map(str, offered))) or "no platform at all"
        raise NotFound(
            f"{index.digest} has no image for {wanted}: it has {there}", hint="choose with --platform"
        )
    return found


@dataclass(slots=True)
class _Search:
    wanted: Platform
    content: Content
    offered: list[Platform] = field(default_factory=list)
    seen: set[Digest] = field(default_factory=set)
    looked_into: int = 0

    def manifest(self, entry: Descriptor) -> Image | Index | None:
        self.looked_into += 1
        return None if self.looked_into > _MOST_LOOKED_INTO else self.content.manifest(entry)

    def within(self, index: Manifest, depth: int) -> SelectedImage | None:
        self.seen.add(index.digest)
        entries = [entry for entry in index.manifests if entry.media_type in media_types.MANIFESTS]
        self.offered += [entry.platform for entry in entries if entry.platform is not None]
        for position in by_preference([entry.platform for entry in entries], self.wanted):
            entry = entries[position]
            found = (
                self._inner(entry, depth) if entry.media_type in media_types.INDEXES else SelectedImage(entry)
            )
            if found is not None:
                return found
        unstated = [entry for entry in entries if self._may_be(entry.platform)]
        for entry in unstated:
            if entry.media_type in media_types.INDEXES:
                found = self._inner(entry, depth)
                if found is not None:
                    return found
        return self._by_config([e for e in unstated if e.media_type not in media_types.INDEXES])

    def _inner(self, entry: Descriptor, depth: int) -> SelectedImage | None:
        if depth >= DEEPEST or entry.digest in self.seen:
            return None
        index = self.manifest(entry)
        found = None if index is None else self.within(index, depth + 1)
        return None if index is None or found is None else SelectedImage(found.entry, (index, *found.inside))

    def _may_be(self, platform: Platform | None) -> bool:
        """Return whether an entry does not name its whole platform, and could be for ``wanted``."""
        if platform is None:
            return True
        if platform.is_stated or platform.is_unknown:
            return False
        whole = Platform(
            platform.architecture or self.wanted.architecture, platform.os or self.wanted.os, platform.variant
        )
        return bool(by_preference([whole], self.wanted))

    def _by_config(self, entries: list[Descriptor]) -> SelectedImage | None:
        images: list[tuple[Descriptor, Platform]] = []
        for entry in entries[:_MOST_UNSTATED]:
            image = self.manifest(entry)
            platform = None if image is None else self.content.platform(image)
            if platform is not None:
                images.append((entry, platform))
        self.offered += [platform for _, platform in images]
        best = by_preference([platform for _, platform in images], self.wanted)
        # Last, an image without any platform.
        best += [n for n, (_, platform) in enumerate(images) if self._may_be(platform)]
        return SelectedImage(images[best[0]][0]) if best else None
