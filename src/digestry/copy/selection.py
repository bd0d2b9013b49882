"""The selection of the parts of an image that are copied: its manifests, by platform, and their referrers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from digestry.copy.protocols import ImageSource, ImageTarget
from digestry.errors import ContentError, InvalidManifest, NotFound, RemoteNotFound, SizeMismatch, TooLarge
from digestry.images.transfer import Skipped
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import DEEPEST, MOST_MANIFESTS, Image, Index, Manifest, encode, parse_manifest
from digestry.model.platform import Platform, by_preference

_MOST_REFERRERS: Final = 2_000
_LISTED: Final = 20
"""Entries of an index that a message names."""
_REFERS_TO: Final = "vnd.docker.reference.digest"
"""Annotation of an index's entry that is about another entry: buildkit's attestations."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The parts to copy. ``top`` is the manifest of the target's name, ``source`` that of the source's name.

    ``manifests`` are all, children before the indexes that list them, ``top`` the last. ``referrers`` refer
    to them. ``remark`` says why the digest is another one than the source's; empty if it is not.
    """

    source: Descriptor
    top: Image | Index
    manifests: tuple[Image | Index, ...]
    skipped: tuple[Skipped, ...] = ()
    referrers: tuple[Image | Index, ...] = ()
    remark: str = ""


def select(
    source: ImageSource,
    descriptor: Descriptor,
    platforms: Sequence[Platform],
    target: ImageTarget,
    *,
    referrers: bool = False,
) -> Selection:
    """Return the parts of ``descriptor`` to copy for ``platforms``; without any, all that the target can
    hold.

    Raises :class:`NotFound` for a platform without an image, and for an image of an index that neither place
    has; :class:`ContentError`; and the places' errors.
    """
    content = _SourceContent(source)
    top = content.pull(descriptor)
    wanted = list(platforms)
    if isinstance(top, Image):
        for platform in wanted:
            _check_platform(content, top, platform)
        found = Selection(descriptor, top, (top,))
    else:
        if not wanted and not target.holds_indexes:
            wanted = [Platform.of_host()]
        found = _of_index(content, descriptor, top, wanted, target)
    if not referrers:
        return found
    return _with_referrers(content, found)


def _of_index(
    content: _SourceContent,
    descriptor: Descriptor,
    top: Index,
    wanted: Sequence[Platform],
    target: ImageTarget,
) -> Selection:
    if not wanted:
        walk = _Walk(content, target, top)
        walk.into(top, 0)
        return Selection(descriptor, top, tuple(walk.found.values()), tuple(walk.skipped))
    from digestry.images.platform_selection import select_image  # noqa: PLC0415 - for an index alone

    chosen: dict[Digest, Image | Index] = {}
    for platform in wanted:
        selected = select_image(top, platform, content)
        image = content.pull(selected.entry)
        for manifest in (image, *reversed(selected.inside)):
            chosen.setdefault(manifest.digest, manifest)
    images = [manifest for manifest in chosen.values() if isinstance(manifest, Image)]
    if target.keeps_index:
        return Selection(descriptor, top, (*chosen.values(), top))
    if len(images) == 1:
        remark = f"the image for {', '.join(map(str, wanted))} alone has another digest than its index"
        return Selection(descriptor, images[0], (images[0],), remark=remark)
    attestations = [
        content.pull(entry)
        for entry in top.manifests
        if (entry.annotations or {}).get(_REFERS_TO) in {str(image.digest) for image in images}
    ]
    parts = [*images, *attestations]
    index = _narrowed(top, {manifest.digest for manifest in parts})
    remark = f"an index of {len(images)} of the images has another digest than the whole"
    return Selection(descriptor, index, (*parts, index), remark=remark)


def _narrowed(top: Index, kept: set[Digest]) -> Index:
    """Return an index that is ``top`` with the entries of ``kept`` alone."""
    # Any: it is a foreign document, and its other fields stay as they are.
    document: dict[str, Any] = msgspec.json.decode(top.raw)
    listed = {str(digest) for digest in kept}
    document["manifests"] = [entry for entry in document["manifests"] if entry["digest"] in listed]
    if not document["manifests"]:
        raise ContentError(f"the images are in indexes inside of {top.digest}", hint="copy one of them alone")
    index = parse_manifest(encode(document), top.media_type, algorithm=top.digest.algorithm)
    assert isinstance(index, Index)  # noqa: S101 - it was one
    return index


@dataclass(slots=True)
class _Walk:
    """All manifests below an index, those that the source has."""

    content: _SourceContent
    target: ImageTarget
    top: Index
    found: dict[Digest, Image | Index] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def into(self, manifest: Image | Index, depth: int) -> None:
        if depth > DEEPEST:
            raise ContentError(f"{self.top.digest} has more than {DEEPEST} indexes inside of each other")
        for child in manifest.manifests:
            if child.media_type not in media_types.MANIFESTS:
                self.skipped.append(Skipped(child, f"{child.media_type} is not a kind of manifest"))
            elif child.digest not in self.found:
                if len(self.found) >= MOST_MANIFESTS:
                    raise TooLarge(
                        f"{self.top.digest} lists more than {MOST_MANIFESTS} manifests",
                        limit=MOST_MANIFESTS,
                    )
                self._child(child, depth)
        self.found.setdefault(manifest.digest, manifest)

    def _options(self) -> str:
        """Return the options that choose the images that the source has."""
        here = [
            str(entry.platform)
            for entry in self.top.manifests[:_LISTED]
            if entry.platform is not None
            and entry.platform.is_stated
            and self.content.manifest(entry) is not None
        ]
        return " ".join(f"--platform {platform}" for platform in here) or "--platform OS/ARCH, once for each"

    def _child(self, child: Descriptor, depth: int) -> None:
        try:
            manifest = self.content.pull(child)
        except (NotFound, RemoteNotFound) as error:
            called = child.platform or child.digest
            if self.target.may_lack_images:
                self.skipped.append(Skipped(child, f"{self.content.source.description} does not have it"))
            elif not self.target.has_manifest(child):
                raise NotFound(
                    f"{self.top.digest} lists {called}, which is neither in"
                    f" {self.content.source.description} nor in {self.target.description}",
                    hint=f"copy the images that are there: {self._options()}",
                ) from error
            return
        self.into(manifest, depth + 1)


def _with_referrers(content: _SourceContent, selection: Selection) -> Selection:
    """Return ``selection`` with the referrers of its manifests, and their referrers."""
    seen = {manifest.digest for manifest in selection.manifests}
    waiting = list(seen)
    found: list[Image | Index] = []
    while waiting:
        for entry in content.source.referrers(waiting.pop()):
            if entry.digest in seen or entry.media_type not in media_types.MANIFESTS:
                continue
            seen.add(entry.digest)
            if len(found) >= _MOST_REFERRERS:
                raise TooLarge(
                    f"more than {_MOST_REFERRERS} manifests refer to {selection.top.digest}",
                    limit=_MOST_REFERRERS,
                )
            found.append(content.pull(entry))
            waiting.append(entry.digest)
    return Selection(
        selection.source,
        selection.top,
        selection.manifests,
        selection.skipped,
        tuple(found),
        selection.remark,
    )


class _SourceContent:
    """The parts of an index, in a source."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def pull(self, descriptor: Descriptor) -> Image | Index:
        """Return the manifest of ``descriptor``. Raises :class:`SizeMismatch` too."""
        manifest = self.source.manifest(descriptor)
        if manifest.size != descriptor.size:
            raise SizeMismatch(
                f"{descriptor.digest} should have {descriptor.size} bytes, and has {manifest.size}"
            )
        return manifest

    def manifest(self, descriptor: Descriptor) -> Image | Index | None:
        try:
            return self.pull(descriptor)
        except (NotFound, RemoteNotFound):
            return None

    def platform(self, image: Manifest) -> Platform | None:
        if image.config is None or image.config.media_type not in media_types.IMAGE_CONFIGS:
            return None
        try:
            raw = self.source.read_blob(image.config)
        except (NotFound, RemoteNotFound):
            return None
        try:
            return ImageConfig.parse(raw, algorithm=image.config.digest.algorithm).platform
        except InvalidManifest as error:
            raise ContentError(f"the config of {image.digest} cannot be used: {error.message}") from error


def _check_platform(content: _SourceContent, image: Image, platform: Platform) -> None:
    stated = content.platform(image)
    if stated is not None and stated.is_stated and not by_preference([stated], platform):
        raise NotFound(f"{image.digest} is for {stated}, not for {platform}")
