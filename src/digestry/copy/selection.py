"""The selection of the parts of an image that are copied: its manifests, by platform, and their referrers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from digestry.copy.protocols import ImageSource, ImageTarget
from digestry.errors import ContentError, NotFound, RemoteDamaged, RemoteNotFound, TooLarge
from digestry.images.index_content import IndexContent, all_manifests
from digestry.images.transfer import Skipped
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import MOST_MANIFESTS, Image, Index, encode, parse_manifest
from digestry.model.platform import Platform

if TYPE_CHECKING:
    from concurrent.futures import Future

_MOST_REFERRERS: Final = 2_000
_AT_ONCE: Final = 4
"""Manifests that are read at once."""
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
    content = IndexContent(source.manifest, source.read_blob)
    top = content.pull(descriptor)
    wanted = list(platforms)
    if isinstance(top, Image):
        for platform in wanted:
            content.check_platform(top, platform, top.digest)
        found = Selection(descriptor, top, (top,))
    else:
        if not wanted and not target.holds_indexes:
            wanted = [Platform.of_host()]
        found = _of_index(content, descriptor, top, wanted, target, source=source)
    if not referrers:
        return found
    return _with_referrers(source, content, found)


def _of_index(
    content: IndexContent,
    descriptor: Descriptor,
    top: Index,
    wanted: Sequence[Platform],
    target: ImageTarget,
    *,
    source: ImageSource,
) -> Selection:
    if not wanted:
        whole = _Whole(source, content, target, top)
        if source.repository is not None:
            whole.read_ahead()
        # What is no manifest is a blob, as in a build cache: it moves with the index's other content.
        manifests = all_manifests(top, whole.pull, lambda _entry, _reason: None)
        return Selection(descriptor, top, tuple(manifests), tuple(whole.skipped))
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
class _Whole:
    """An index that is copied as a whole, without the images that neither place needs to have."""

    source: ImageSource
    content: IndexContent
    target: ImageTarget
    top: Index
    skipped: list[Skipped] = field(default_factory=list)
    _ahead: dict[Digest, Future[Image | Index]] = field(default_factory=dict)

    def read_ahead(self) -> None:
        """Read the manifests that the index lists, some at the same time, for :meth:`pull`."""
        entries = {one.digest: one for one in self.top.manifests if one.media_type in media_types.MANIFESTS}
        if not 1 < len(entries) <= MOST_MANIFESTS:
            return
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - for an index alone

        with ThreadPoolExecutor(_AT_ONCE, "digestry-read") as pool:
            self._ahead = {digest: pool.submit(self.content.pull, one) for digest, one in entries.items()}

    def skip(self, entry: Descriptor, reason: str) -> None:
        """Leave an entry out."""
        self.skipped.append(Skipped(entry, reason))

    def pull(self, entry: Descriptor) -> Image | Index | None:
        """Return the manifest of an entry; None if it stays out, or is in the target already."""
        try:
            ahead = self._ahead.pop(entry.digest, None)
            return self.content.pull(entry) if ahead is None else ahead.result()
        except (NotFound, RemoteNotFound) as error:
            called = entry.platform or entry.digest
            if self.target.may_lack_images:
                self.skip(entry, f"{self.source.description} does not have it")
            elif not self.target.has_manifest(entry):
                raise NotFound(
                    f"{self.top.digest} lists {called}, which is neither in"
                    f" {self.source.description} nor in {self.target.description}",
                    hint=f"copy the images that are there: {self._options()}",
                ) from error
            return None

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


def _with_referrers(source: ImageSource, content: IndexContent, selection: Selection) -> Selection:
    """Return ``selection`` with the referrers of its manifests, and their referrers.

    A list may name a referrer that was deleted, which is skipped.
    """
    seen = {manifest.digest for manifest in selection.manifests}
    waiting = list(seen)
    found: list[Image | Index] = []
    skipped = list(selection.skipped)
    while waiting:
        for entry in source.referrers(waiting.pop()):
            if entry.digest in seen or entry.media_type not in media_types.MANIFESTS:
                continue
            seen.add(entry.digest)
            if len(found) >= _MOST_REFERRERS:
                raise TooLarge(
                    f"more than {_MOST_REFERRERS} manifests refer to {selection.top.digest}",
                    limit=_MOST_REFERRERS,
                )
            try:
                found.append(content.pull(entry))
            except RemoteDamaged:
                raise
            except (NotFound, RemoteNotFound):
                skipped.append(Skipped(entry, "it is listed as a referrer, and is not there"))
                continue
            waiting.append(entry.digest)
    return Selection(
        selection.source,
        selection.top,
        selection.manifests,
        tuple(skipped),
        tuple(found),
        selection.remark,
    )
