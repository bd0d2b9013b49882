"""Pushing an image from the local store to its registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import ContentError, NotFound
from digestry.images.store import ImageStore
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
from digestry.model.manifest import DEEPEST, Image, Index, Manifest
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class PushResult:
    """What was pushed. ``before`` is what the registry's tag pointed to; None if it is new, or none was set.

    ``sent``, ``mounted`` and ``present`` are the blobs, by how the registry came to have them; ``skipped`` is
    what was left out.
    """

    reference: Reference
    digest: Digest
    before: Digest | None
    sent: tuple[Descriptor, ...]
    mounted: tuple[Descriptor, ...]
    present: tuple[Descriptor, ...]
    skipped: tuple[Skipped, ...]


def push(
    session: Session,
    reference: Reference,
    store: ImageStore,
    *,
    source: Descriptor | None = None,
    observer: TransferObserver | None = None,
) -> PushResult:
    """Push an image, or an index with those of its images that are here, to its registry.

    It is ``source``, or else what ``reference`` means in ``store``. Raises :class:`NotFound` if it, or a part
    that the registry lacks too, is not in ``store``; :class:`ContentError` if the store's copy is damaged;
    and what :class:`Repository` does.
    """
    remote = session.repository(reference)
    observer = observer or SilentObserver()
    tally = TransferTally()
    with store.adding():  # so that what is being sent is not removed meanwhile
        top = store.manifest(source or store.find(reference))
        remote.expect(EXPECTED)
        before = _tag_before(remote, reference)
        manifests = _manifests(store, remote, top)
        origins = _mount_origins(store, reference)

        def send(descriptor: Descriptor, progress: Callable[[int], None]) -> None:
            stage = _send(
                store,
                remote,
                reference,
                descriptor,
                origin=origins.get(descriptor.digest),
                progress=progress,
            )
            tally.add(descriptor, stage)
            observer.stage(descriptor, stage)

        blobs = transferable_blobs(manifests, tally, observer)
        transfer_each(blobs, send, observer, session.options.parallel, is_far=remote.is_far)
        for manifest in manifests:
            if manifest is not top:
                remote.push_manifest(manifest.raw, manifest.media_type, digest=manifest.digest)
        tags = [reference.tag] if reference.tag else []
        remote.push_manifest(top.raw, top.media_type, tags=tags, digest=top.digest)
    return PushResult(
        reference,
        top.digest,
        before,
        tally.at("sent"),
        tally.at("mounted"),
        tally.at("present"),
        tuple(tally.skipped),
    )


def _tag_before(remote: Repository, reference: Reference) -> Digest | None:
    """Return what the registry's tag points to; None if there is none."""
    if reference.tag is None:
        return None
    found = remote.find(reference.tag)
    return None if found is None else found.digest


def _send(
    store: ImageStore,
    remote: Repository,
    reference: Reference,
    descriptor: Descriptor,
    *,
    origin: str | None,
    progress: Callable[[int], None],
) -> Stage:
    """Make the registry have a blob, and return how."""
    if store.blobs.stat(descriptor.digest) is not None:
        return remote.push_blob(
            descriptor, lambda: store.blobs.open(descriptor.digest), mount_from=origin, progress=progress
        )
    if remote.has_blob(descriptor.digest):
        return "present"
    raise NotFound(
        f"{descriptor.digest}, a part of {reference}, is not in the local store",
        hint=f"fetch it again: digestry pull {reference}",
    )


def _manifests(store: ImageStore, remote: Repository, top: Image | Index) -> list[Manifest]:
    """Return the manifests to push, children before their index.

    Raises :class:`NotFound` for one that is neither in ``store`` nor in the registry.
    """
    found: dict[Digest, Manifest] = {}

    def walk(manifest: Image | Index, depth: int) -> None:
        if depth > DEEPEST:
            raise ContentError(f"{top.digest} has more than {DEEPEST} indexes inside of each other")
        for child in manifest.manifests:
            if child.digest in found:
                continue
            if store.blobs.stat(child.digest) is not None:
                walk(store.manifest(child), depth + 1)
                continue
            if remote.find(str(child.digest)) is None:
                raise NotFound(
                    f"{manifest.digest} lists {child.platform or child.digest}, which is neither here nor "
                    f"in {remote.reference}",
                    hint="pull it with --all-platforms first, then push it",
                )
        found.setdefault(manifest.digest, manifest)

    walk(top, 0)
    return list(found.values())


def _mount_origins(store: ImageStore, reference: Reference) -> dict[Digest, str]:
    """Return by blob another repository of the same registry that may have it, to mount it from."""
    found: dict[Digest, str] = {}
    for entry in store.entries():
        known = entry.reference
        if known is None or known.host != reference.host or known.repository == reference.repository:
            continue
        try:
            images = store.present_images(store.manifest(entry.descriptor))
        except (ContentError, NotFound):
            continue  # only a short cut is lost
        for image in images:
            for blob in image.blobs():
                found.setdefault(blob.digest, known.repository)
    return found
