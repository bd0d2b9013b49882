"""Pulling an image from its registry into the local store."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import ContentError, InvalidManifest, NotFound, TooLarge
from digestry.images.blob_fetch import fetch_blob
from digestry.images.index_content import IndexContent, all_manifests
from digestry.images.store import LARGEST_MANIFEST, ImageStore
from digestry.images.transfer import (
    EXPECTED,
    SilentObserver,
    Skipped,
    Stage,
    TransferObserver,
    TransferTally,
    transfer_each,
    transferable_blobs,
)
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, Manifest, parse_manifest
from digestry.model.platform import Platform
from digestry.model.reference import Reference


class PullResult(msgspec.Struct, frozen=True):
    """The result of a pull. ``descriptor`` is that of the name: an index, or an image.

    ``images`` are the images that were pulled; ``fetched`` and ``present`` are their blobs, which were
    fetched or were here already; ``skipped`` are those that were left out. ``before`` is the tag's earlier
    digest in the local store. ``tag_now`` is set when the reference had a tag and a digest: the digest that
    the registry's tag points to now.
    """

    reference: Reference
    descriptor: Descriptor
    images: tuple[Digest, ...]
    fetched: tuple[Descriptor, ...]
    present: tuple[Descriptor, ...]
    skipped: tuple[Skipped, ...]
    before: Digest | None = None
    tag_now: Digest | None = None


Check = Callable[[Repository, Reference, Digest], object]
"""Raises unless a name may mean this digest, such as by the registry's log."""


def pull(
    session: Session,
    reference: Reference,
    store: ImageStore,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
    under_tag: bool = False,
    observer: TransferObserver | None = None,
    check: Check | None = None,
) -> PullResult:
    """Pull an image into ``store``, verified, and name it ``reference``.

    For an index, pull the image for ``platform`` (by default this machine's), or ``all_platforms``. A digest
    decides over a tag, and alone names the image if the tag points elsewhere now, unless it goes
    ``under_tag``. ``check`` is called, with the registry's own repository, before anything is stored.
    Raises as :class:`Repository` does, what ``check`` does, and :class:`NotFound` for a platform without an
    image.
    """
    remote = session.image_source(reference)
    content = _Content(remote, store)
    observer = observer or SilentObserver()
    tally = TransferTally()
    with store.adding():
        top = content.top(reference)
        if check is not None:
            check(session.repository(reference), reference, top.digest)
        tag_now = None if under_tag else _tag_now(remote, reference)
        if all_platforms:
            manifests = all_manifests(
                top, _content_of(content).pull, lambda *entry: tally.skipped.append(Skipped(*entry))
            )
        else:
            manifests = manifests_for_platform(content, top, platform or Platform.of_host())
        blobs = transferable_blobs(manifests, tally, observer)
        if platform is not None and isinstance(top, Image):
            _content_of(content).check_platform(top, platform, f"{reference}: this image")

        def fetch(descriptor: Descriptor, progress: Callable[[int], None]) -> None:
            pull_blob = functools.partial(remote.pull_blob, descriptor)
            stage: Stage = fetch_blob(pull_blob, store.blobs, descriptor, progress)
            tally.add(descriptor, stage)
            observer.stage(descriptor, stage)

        transfer_each(blobs, fetch, observer, session.options.parallel, is_far=remote.is_far)
        content.keep((*manifests, top))
        name = reference
        if not under_tag and reference.digest is not None and tag_now != top.digest:
            name = reference.with_digest(reference.digest)  # its tag is another image's by now
        before = store.point(name, top.descriptor())
    return PullResult(
        reference,
        top.descriptor(),
        tuple(manifest.digest for manifest in manifests if isinstance(manifest, Image)),
        tally.at("done"),
        tally.at("present"),
        tuple(tally.skipped),
        before,
        tag_now,
    )


def _tag_now(remote: Repository, reference: Reference) -> Digest | None:
    """Return the digest of the registry's tag, for a reference with a tag and a digest."""
    if reference.tag is None or reference.digest is None:
        return None
    found = remote.find(reference.tag)
    return None if found is None else found.digest


class Source(Protocol):
    """The source of manifests and configs: a :class:`Repository`, or its content in the local store."""

    reference: Reference

    def pull_manifest(self, target: str, /) -> Image | Index:
        """Return the manifest of a tag or digest, verified."""
        ...

    def read_blob(self, descriptor: Descriptor, /) -> bytes:
        """Return the bytes of a small blob, verified."""
        ...


class _Content:
    """The content of a repository: content that the store has is not requested."""

    def __init__(self, remote: Repository, store: ImageStore) -> None:
        self.reference = remote.reference
        self._remote = remote
        self._store = store
        self._stored: set[Digest] = set()

    def top(self, reference: Reference) -> Image | Index:
        """Return the manifest of ``reference`` in its registry.

        Costs one HEAD if the store has the same digest, and one GET if it has no earlier one.
        """
        try:
            self._store.find(reference)
        except NotFound:
            self._remote.expect(EXPECTED)
            return self._remote.pull_manifest(reference.target)
        stored = self._in_store(self._remote.resolve(reference.target).digest)
        return stored or self._remote.pull_manifest(reference.target)

    def pull_manifest(self, target: str) -> Image | Index:
        """Return the manifest of a digest."""
        return self._in_store(Digest.parse(target)) or self._remote.pull_manifest(target)

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a small blob."""
        if self._store.blobs.stat(descriptor.digest) == descriptor.size:
            with contextlib.suppress(ContentError, NotFound):  # damaged, or gone by now
                return self._store.blobs.read(descriptor.digest)
        return self._remote.read_blob(descriptor)

    def keep(self, manifests: Iterable[Manifest]) -> None:
        """Store the manifests that were not in the store."""
        new = {manifest.digest: manifest.raw for manifest in manifests if manifest.digest not in self._stored}
        problems = self._store.blobs.put_all([(raw, digest) for digest, raw in new.items()])
        for problem in problems:
            if problem is not None:
                raise problem

    def _in_store(self, digest: Digest) -> Image | Index | None:
        if self._store.blobs.stat(digest) is None:
            return None
        try:
            raw = self._store.blobs.read(digest, limit=LARGEST_MANIFEST)
            manifest = parse_manifest(raw, None, algorithm=digest.algorithm)
        except (ContentError, InvalidManifest, NotFound, TooLarge):
            return None  # a damaged one is fetched once more
        self._stored.add(digest)
        return manifest


def manifests_for_platform(remote: Source, top: Image | Index, platform: Platform) -> list[Image | Index]:
    """Return the image of ``top`` for ``platform``, then the indexes that it is in, the innermost first.

    Raises :class:`NotFound`, :class:`SizeMismatch`, and what :class:`Repository` does.
    """
    if isinstance(top, Image):
        return [top]
    from digestry.images.platform_selection import select_image  # noqa: PLC0415 - for an index alone

    content = _content_of(remote)
    selection = select_image(top, platform, content)
    image = content.pull(selection.entry)
    return [image, *reversed(selection.inside), top]


def _content_of(remote: Source) -> IndexContent:
    return IndexContent(lambda descriptor: remote.pull_manifest(str(descriptor.digest)), remote.read_blob)
