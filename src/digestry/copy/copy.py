"""The copy of images from one place to another: only missing content, blobs first, names last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from digestry.copy.protocols import BlobContent, ImageSource, ImageTarget, Outcome, digest_of_name
from digestry.copy.selection import Selection, select
from digestry.errors import Conflict, DigestMismatch, NotFound, RemoteNotFound, SizeMismatch
from digestry.images.transfer import (
    SilentObserver,
    Skipped,
    TransferObserver,
    TransferTally,
    transfer_each,
    transferable_blobs,
)
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, Manifest
from digestry.model.platform import Platform

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE: Final = 32
"""Images that are planned, and copied, together."""


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """The options of a copy. ``parallel`` blobs are moved at once.

    Without ``platforms`` all images of an index are copied, if the target can hold an index. ``referrers``
    adds signatures, SBOMs, advisories and all other referrers of an image. ``dry_run`` moves nothing.
    """

    platforms: tuple[Platform, ...] = ()
    referrers: bool = False
    dry_run: bool = False
    parallel: int = 4


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """One image that was copied, or would be.

    ``source`` is the digest of the source's name, ``digest`` that of the target's name now, and ``before``
    its earlier one. ``referrers`` were copied with it. ``remark`` says why the digests differ.
    """

    source_name: str | None
    name: str | None
    source: Digest
    digest: Digest
    before: Digest | None
    referrers: tuple[Digest, ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class CopyResult:
    """The result of a copy, or of a dry run. The blobs are counted by how the target got them."""

    images: tuple[CopiedImage, ...]
    sent: tuple[Descriptor, ...]
    mounted: tuple[Descriptor, ...]
    present: tuple[Descriptor, ...]
    skipped: tuple[Skipped, ...]

    @property
    def bytes_sent(self) -> int:
        """The bytes of all blobs that were sent, or would be."""
        return sum(blob.size for blob in self.sent)


@dataclass(slots=True)
class _Plan:
    """One image of a copy. ``selection`` is None if the target has it already, under that name."""

    source_name: str | None
    name: str | None
    descriptor: Descriptor
    before: Digest | None
    selection: Selection | None
    missing: list[Image | Index] = field(default_factory=list)


def copy_images(
    source: ImageSource,
    target: ImageTarget,
    names: Sequence[tuple[str | None, str | None]],
    options: CopyOptions,
    *,
    observer: TransferObserver | None = None,
    tell: Callable[[str], None] | None = None,
) -> CopyResult:
    """Copy images from ``source`` to ``target``: each pair is the name there and the name here.

    Content that the target has is not sent. ``tell`` is called with the reason why a digest does not survive,
    before anything of the image moves. A name changes once its content is complete. Raises :class:`NotFound`
    for content that neither place has, :class:`Conflict` for a digest that the target's name cannot get, and
    the places' errors. Content that has arrived is kept for the next copy.
    """
    copying = _Copy(
        source, target, options, observer=observer or SilentObserver(), tell=tell or (lambda _: None)
    )
    with copying.contents():
        for start in range(0, len(names), _AT_ONCE):
            copying.together(names[start : start + _AT_ONCE])
        if options.referrers and target.holds_indexes:
            attached = [pair for pair in copying.attached_names() if pair not in names]
            for start in range(0, len(attached), _AT_ONCE):
                copying.together(attached[start : start + _AT_ONCE])
        if not options.dry_run:
            target.finish()
    tally = copying.tally
    return CopyResult(
        tuple(copying.copied),
        tally.at("sent"),
        tally.at("mounted"),
        tally.at("present"),
        tuple(tally.skipped),
    )


class _Copy:
    """A copy that is under way."""

    def __init__(
        self,
        source: ImageSource,
        target: ImageTarget,
        options: CopyOptions,
        *,
        observer: TransferObserver,
        tell: Callable[[str], None],
    ) -> None:
        self.source = source
        self.target = target
        self.options = options
        self.observer = observer
        self.tell = tell
        self.tally = TransferTally()
        self.copied: list[CopiedImage] = []
        self._done: set[Digest] = set()
        self._loose: set[Digest] = set()
        self._manifests: dict[Digest, None] = {}
        self._spent: list[BlobContent] = []
        self._lock = threading.Lock()

    @contextmanager
    def contents(self) -> Iterator[None]:
        """Forget at the end of the block the bytes that were kept until the target was finished."""
        yield
        for content in self._spent:
            content.forget()

    def together(self, names: Sequence[tuple[str | None, str | None]]) -> None:
        """Copy some images, their blobs at the same time."""
        plans = self._each(lambda pair: self._plan(*pair), names)
        selections = [plan.selection for plan in plans if plan.selection is not None]
        for selection in selections:
            if selection.remark:
                self.tell(f"{selection.source.digest} becomes {selection.top.digest}: {selection.remark}")
            self._skip(selection.skipped)
            self._manifests |= dict.fromkeys(manifest.digest for manifest in selection.manifests)
        missing = [manifest for plan in plans for manifest in plan.missing]
        self._doubt(missing)
        loose = self._loose_blobs(missing)
        found = [*transferable_blobs(missing, self.tally, self.observer), *loose]
        blobs = list({blob.digest: blob for blob in found if blob.digest not in self._done}.values())
        self._done |= {blob.digest for blob in blobs}
        if self.options.dry_run:
            self._look(blobs)
        else:
            is_far = self.source.is_far or self.target.is_far
            transfer_each(blobs, self._move, self.observer, self.options.parallel, is_far=is_far)
            self._put([(plan, plan.selection) for plan in plans if plan.selection is not None])
        self.copied += [_copied(plan) for plan in plans]

    def _doubt(self, manifests: Sequence[Manifest]) -> None:
        """Say before a byte moves which images an old reader of the target will not take."""
        doubtful = self.target.doubtful_layers
        for manifest in manifests:
            if any(layer.media_type in doubtful for layer in manifest.layers):
                self.tell(f"{manifest.digest} has layers in zstd, which docker 20.10 cannot load")

    def _loose_blobs(self, manifests: Sequence[Image | Index]) -> list[Descriptor]:
        """Return what indexes list that is no manifest: BuildKit's caches list layers so."""
        loose = [
            entry
            for manifest in manifests
            for entry in manifest.manifests
            if entry.media_type not in media_types.MANIFESTS
        ]
        self._loose |= {entry.digest for entry in loose}
        return loose

    def attached_names(self) -> list[tuple[str | None, str | None]]:
        """Return the names under which cosign attached artifacts to the copied manifests."""
        found = self._each(self.source.attached_names, list(self._manifests))
        return [(name, name) for names in found for name in names]

    def _each(self, work: Callable[[T], R], things: Sequence[T]) -> list[R]:
        if len(things) == 1:
            return [work(things[0])]
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - for several alone

        with ThreadPoolExecutor(max(1, self.options.parallel), "digestry-copy") as pool:
            return list(pool.map(work, things))

    def _plan(self, source_name: str | None, name: str | None) -> _Plan:
        wanted = digest_of_name(name)
        named = None if wanted is not None else name
        options = self.options
        whole = not options.platforms and not options.referrers and not self.target.may_lack_images
        if self._is_between_registries:
            descriptor, before = _both(
                lambda: self.source.resolve(source_name), lambda: self.target.current(named)
            )
        else:
            before = self.target.current(named)
            # Of a name that is new here, the manifest is needed in any case.
            descriptor = self.source.resolve(source_name, read=before is None or not whole)
        if whole and before == descriptor.digest and wanted is None:
            return _Plan(source_name, named, descriptor, before, None)
        selection = select(
            self.source, descriptor, options.platforms, self.target, referrers=options.referrers
        )
        if wanted is not None and selection.top.digest != wanted:
            raise Conflict(
                f"{self.target.description} was to get {wanted}; {selection.top.digest} is another"
            )
        plan = _Plan(source_name, named, descriptor, before, selection)
        plan.missing = self._missing(selection)
        return plan

    @property
    def _is_between_registries(self) -> bool:
        """Whether both places have to be asked over a network."""
        return self.source.repository is not None and self.target.repository is not None

    def _missing(self, selection: Selection) -> list[Image | Index]:
        """Return the manifests that the target lacks, and whose blobs it may lack."""
        top, target = selection.top, self.target
        others = [*selection.manifests, *selection.referrers]
        others.remove(top)
        if target.repository is None:
            if target.has_manifest(top.descriptor()):
                others = list(selection.referrers)
                return [one for one in others if not target.has_manifest(one.descriptor())]
            return [one for one in (*others, top) if not target.has_manifest(one.descriptor())]
        if not others:
            if self.source.repository == target.repository and top.digest == selection.source.digest:
                return []  # it was found there
            if isinstance(top, Image) and len(top.blobs()) <= self.options.parallel:
                return [top]  # to ask for its blobs takes no longer
        asked = [*others, top]
        there = self._each(target.has_manifest, [one.descriptor() for one in asked])
        missing = [one for one, found in zip(asked, there, strict=True) if not found]
        if top in missing:
            return missing
        # Whoever has an index has what it lists.
        return [one for one in missing if one in selection.referrers]

    def _skip(self, skipped: Sequence[Skipped]) -> None:
        for item in skipped:
            self.tally.skipped.append(item)
            self.observer.stage(item.descriptor, "skipped")

    def _look(self, blobs: Sequence[Descriptor]) -> None:
        """Count the content that a copy would send."""
        there = self._each(self.target.has_blob, blobs) if blobs else []
        for blob, present in zip(blobs, there, strict=True):
            self.tally.add(blob, "present" if present else "sent")

    def _move(self, descriptor: Descriptor, progress: Callable[[int], None]) -> None:
        """Make the target have one blob."""
        content = self.source.blob(descriptor)
        try:
            if self.target.repository is None and self.target.has_blob(descriptor):
                outcome: Outcome = "present"
            else:
                outcome = self._send(descriptor, content, progress)
        except (NotFound, RemoteNotFound):
            content.close()
            if descriptor.digest not in self._loose:
                raise
            reason = f"{descriptor.media_type} is not a kind of manifest, and there is no blob of that digest"
            self._skip([Skipped(descriptor, reason)])
            return
        except BaseException:
            content.close()
            raise
        if self.target.is_written_whole:
            content.close()
            with self._lock:
                self._spent.append(content)
        else:
            content.forget()
        self.tally.add(descriptor, outcome)
        self.observer.stage(descriptor, outcome)

    def _send(self, descriptor: Descriptor, content: BlobContent, progress: Callable[[int], None]) -> Outcome:
        here, there = self.source.repository, self.target.repository
        mountable = here is not None and there is not None and here.host == there.host
        mount_from = here.repository if here is not None and mountable else None
        try:
            return self.target.put_blob(descriptor, content, mount_from=mount_from, progress=progress)
        except (DigestMismatch, SizeMismatch):
            content.forget()  # the bytes of an earlier attempt may be wrong
            raise
        except NotFound as error:
            if not self.target.has_blob(descriptor):
                raise NotFound(
                    f"{descriptor.digest}, a part of the image, is not in {self.source.description}",
                    hint=error.hint,
                ) from error
            return "present"

    def _put(self, chosen: Sequence[tuple[_Plan, Selection]]) -> None:
        """Store the images' manifests, and point their names to them."""
        for plan, selection in chosen:
            inner = [
                manifest
                for manifest in plan.missing
                if manifest.digest != selection.top.digest and manifest not in selection.referrers
            ]
            images = [manifest for manifest in inner if isinstance(manifest, Image)]
            if self.target.repository is None or len(images) < len(inner):
                for manifest in inner:  # an index after what it lists
                    self.target.put_manifest(manifest)
            elif images:
                self._each(self.target.put_manifest, images)
        self.target.point([(plan.name, selection.top) for plan, selection in chosen])
        for plan, selection in chosen:
            for manifest in plan.missing:
                if manifest in selection.referrers:
                    self.target.put_manifest(manifest)


def _both(first: Callable[[], T], second: Callable[[], R]) -> tuple[T, R]:
    """Return what both return, called at the same time. Raises what ``first`` raises, or else the other."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - between registries alone

    with ThreadPoolExecutor(1, "digestry-copy") as pool:
        other = pool.submit(second)
        return first(), other.result()


def _copied(plan: _Plan) -> CopiedImage:
    if plan.selection is None:
        digest = plan.descriptor.digest
        return CopiedImage(plan.source_name, plan.name, digest, digest, plan.before)
    return CopiedImage(
        plan.source_name,
        plan.name,
        plan.selection.source.digest,
        plan.selection.top.digest,
        plan.before,
        tuple(manifest.digest for manifest in plan.selection.referrers),
        plan.selection.remark,
    )
