"""Pull and push: whole images between a registry and the local store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import ContentError, InvalidManifest, NotFound, RemoteNotFound, SizeMismatch, TooLarge
from digestry.images.platform_selection import DEEPEST, select_image
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Manifest
from digestry.model.platform import Platform, by_preference
from digestry.model.reference import Reference

_MOST_MANIFESTS: Final = 10_000
Stage = Literal["waiting", "present", "done", "mounted", "sent", "skipped"]


class Watcher(Protocol):
    """Who is told how a transfer goes on. Called from several threads at once."""

    def stage(self, descriptor: Descriptor, stage: Stage) -> None:
        """A blob came to ``stage``; ``waiting`` is its first, unless it is ``skipped``."""
        ...

    def moved(self, descriptor: Descriptor, count: int) -> None:
        """``count`` more bytes of a blob have travelled; less than 0 if it begins again."""
        ...


class Silence:
    """Nobody is told."""

    def stage(self, descriptor: Descriptor, stage: Stage) -> None:
        pass

    def moved(self, descriptor: Descriptor, count: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Skipped:
    """Content that was not transferred, and why."""

    descriptor: Descriptor
    reason: str


@dataclass(frozen=True, slots=True)
class PullResult:
    """``descriptor`` is what the name means: an index, or an image. ``images`` are what was pulled.

    ``before`` is what the tag meant in the local store. ``tag_now`` is set when a reference had a
    tag and a digest: what the registry's tag points to now.
    """

    reference: Reference
    descriptor: Descriptor
    images: tuple[Digest, ...]
    fetched: tuple[Descriptor, ...]
    present: tuple[Descriptor, ...]
    skipped: tuple[Skipped, ...]
    before: Digest | None = None
    tag_now: Digest | None = None


@dataclass(frozen=True, slots=True)
class PushResult:
    """``before`` is what the registry's tag pointed to: None if there was none, or no tag was set."""

    reference: Reference
    digest: Digest
    before: Digest | None
    sent: tuple[Descriptor, ...]
    mounted: tuple[Descriptor, ...]
    present: tuple[Descriptor, ...]
    skipped: tuple[Skipped, ...]


@dataclass(slots=True)
class _Tally:
    stages: dict[Stage, list[Descriptor]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, descriptor: Descriptor, stage: Stage) -> None:
        with self.lock:
            self.stages.setdefault(stage, []).append(descriptor)

    def of(self, stage: Stage) -> tuple[Descriptor, ...]:
        return tuple(self.stages.get(stage, ()))


class _Stopped(Exception):
    """Raised inside a transfer because another one has failed."""


def pull(
    session: Session,
    reference: Reference,
    store: ImageStore,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
    watcher: Watcher | None = None,
) -> PullResult:
    """Fetches an image into ``store`` and names it; of an index, the image for this machine,
    for ``platform``, or ``all_platforms``.

    A digest decides over a tag. Every byte is verified. Raises what :class:`Repository` does, and
    :class:`NotFound` for a platform that there is no image for.
    """
    remote = session.repository(reference)
    watch = watcher or Silence()
    tally = _Tally()
    with store.adding():
        top = remote.pull_manifest(reference.target)
        tag_now = None
        if reference.tag is not None and reference.digest is not None:
            try:
                tag_now = remote.resolve(reference.tag).digest
            except RemoteNotFound:
                tag_now = None
        if all_platforms:
            images = _everything(remote, top, tally)
        else:
            images = image_of(remote, top, platform or Platform.of_host())
        wanted = _blobs(images, tally, watch)
        if platform is not None and not top.is_index:
            _check_platform(remote, top, platform)

        def fetch(descriptor: Descriptor, progress: Callable[[int], None]) -> None:
            if store.blobs.stat(descriptor.digest) == descriptor.size:
                stage: Stage = "present"
            else:
                with store.blobs.begin(descriptor.digest, descriptor.size) as sink:
                    remote.pull_blob(descriptor, sink, progress)
                stage = "done"
            tally.add(descriptor, stage)
            watch.stage(descriptor, stage)

        _each(wanted, fetch, watch, session.options.parallel)
        for manifest in (*images, top):
            store.blobs.put(manifest.raw, manifest.digest)
        named = reference if reference.digest is None or tag_now == top.digest else _without_tag(reference)
        before = store.point(named, top.descriptor())
    return PullResult(
        reference,
        top.descriptor(),
        tuple(image.digest for image in images if not image.is_index),
        tally.of("done"),
        tally.of("present"),
        tuple(tally.skipped),
        before,
        tag_now,
    )


def _without_tag(reference: Reference) -> Reference:
    assert reference.digest is not None  # noqa: S101 - the caller has looked
    return reference.with_digest(reference.digest)


def image_of(remote: Repository, top: Manifest, platform: Platform) -> list[Manifest]:
    """The image of ``top`` for ``platform``, then the indexes that it is in, the innermost first.

    Raises :class:`NotFound`, :class:`SizeMismatch`, and what :class:`Repository` does.
    """
    if not top.is_index:
        return [top]
    content = _Remote(remote, top)
    chosen = select_image(top, platform, content)
    image = content.fetched(chosen.entry)
    return [image, *reversed(chosen.inside), top]


def _everything(remote: Repository, top: Manifest, tally: _Tally) -> list[Manifest]:
    """The manifests to pull below and including ``top``, children before the indexes they are in."""
    content = _Remote(remote, top)
    found: dict[Digest, Manifest] = {}

    def walk(manifest: Manifest, depth: int) -> None:
        if depth > DEEPEST:
            raise ContentError(f"{top.digest} has more than {DEEPEST} indexes inside of each other")
        for child in manifest.manifests:
            if child.media_type not in media_types.MANIFESTS:
                tally.skipped.append(Skipped(child, f"{child.media_type} is not a kind of manifest"))
            elif child.digest not in found:
                if len(found) >= _MOST_MANIFESTS:
                    raise ContentError(f"{top.digest} lists more than {_MOST_MANIFESTS} manifests")
                walk(content.fetched(child), depth + 1)
        found.setdefault(manifest.digest, manifest)

    walk(top, 0)
    return list(found.values())


class _Remote:
    """What the registry has of an index."""

    def __init__(self, remote: Repository, top: Manifest) -> None:
        self._remote = remote
        self._top = top

    def fetched(self, descriptor: Descriptor) -> Manifest:
        manifest = self._remote.pull_manifest(str(descriptor.digest))
        if manifest.size != descriptor.size:
            raise SizeMismatch(
                f"{self._top.digest} says that {descriptor.digest} has {descriptor.size} bytes; "
                f"it has {manifest.size}"
            )
        return manifest

    def manifest(self, descriptor: Descriptor) -> Manifest | None:
        try:
            return self.fetched(descriptor)
        except RemoteNotFound:
            return None

    def platform(self, image: Manifest) -> Platform | None:
        try:
            config = _config(self._remote, image)
        except RemoteNotFound:
            return None
        return None if config is None else config.platform


def _blobs(images: Iterable[Manifest], tally: _Tally, watch: Watcher) -> list[Descriptor]:
    """Every blob once; those that no registry need have are skipped, and said."""
    wanted: dict[Digest, Descriptor] = {}
    for image in images:
        for descriptor in image.blobs():
            if media_types.is_foreign(descriptor.media_type) and descriptor.urls:
                if all(descriptor.digest != skipped.descriptor.digest for skipped in tally.skipped):
                    reason = "its licence keeps it out of registries: engines fetch it from its own address"
                    tally.skipped.append(Skipped(descriptor, reason))
                    watch.stage(descriptor, "skipped")
            else:
                wanted.setdefault(descriptor.digest, descriptor)
    # The largest first: the transfer ends when the last one does.
    return sorted(wanted.values(), key=lambda descriptor: -descriptor.size)


def _check_platform(remote: Repository, image: Manifest, platform: Platform) -> None:
    config = _config(remote, image)
    if config is None or not config.platform.is_stated:
        return
    if not by_preference([config.platform], platform):
        raise NotFound(f"{remote.reference}: this image is for {config.platform}, not for {platform}")


def _config(remote: Repository, image: Manifest) -> ImageConfig | None:
    """The config of an image; None of what is none. Raises :class:`ContentError` if it is unusable."""
    if image.config is None or image.config.media_type not in media_types.IMAGE_CONFIGS:
        return None
    try:
        return ImageConfig.parse(remote.read_blob(image.config), algorithm=image.config.digest.algorithm)
    except (InvalidManifest, TooLarge) as error:
        raise ContentError(f"the config of {image.digest} cannot be used: {error.message}") from error


def push(
    session: Session,
    reference: Reference,
    store: ImageStore,
    *,
    what: Descriptor | None = None,
    watcher: Watcher | None = None,
) -> PushResult:
    """Sends an image, or an index with the images of it that are here, to its registry: ``what``, or
    else what ``reference`` means in ``store``.

    Raises :class:`NotFound` if it, or a part that the registry lacks too, is not in ``store``;
    :class:`ContentError` if the store's copy is damaged; and what :class:`Repository` does.
    """
    remote = session.repository(reference)
    watch = watcher or Silence()
    tally = _Tally()
    with store.adding():  # so that no sweep takes away what is being sent
        top = store.manifest(what or store.find(reference))
        before = None
        if reference.tag is not None:
            try:
                before = remote.resolve(reference.tag).digest
            except RemoteNotFound:
                before = None
        parts = _parts(store, remote, top)
        origins = _origins(store, reference)

        def send(descriptor: Descriptor, progress: Callable[[int], None]) -> None:
            if store.blobs.stat(descriptor.digest) is None:
                if not remote.has_blob(descriptor.digest):
                    raise NotFound(
                        f"{descriptor.digest}, a part of {reference}, is not in the local store",
                        hint=f"fetch it again: digestry pull {reference}",
                    )
                outcome: Stage = "present"
            else:
                outcome = remote.push_blob(
                    descriptor,
                    lambda: store.blobs.open(descriptor.digest),
                    mount_from=origins.get(descriptor.digest),
                    progress=progress,
                )
            tally.add(descriptor, outcome)
            watch.stage(descriptor, outcome)

        _each(_blobs(parts, tally, watch), send, watch, session.options.parallel)
        for part in parts:
            if part is not top:
                remote.push_manifest(part.raw, part.media_type, digest=part.digest)
        remote.push_manifest(
            top.raw, top.media_type, tags=[reference.tag] if reference.tag else [], digest=top.digest
        )
    return PushResult(
        reference,
        top.digest,
        before,
        tally.of("sent"),
        tally.of("mounted"),
        tally.of("present"),
        tuple(tally.skipped),
    )


def _parts(store: ImageStore, remote: Repository, top: Manifest) -> list[Manifest]:
    """The manifests to push, children before their index."""
    found: dict[Digest, Manifest] = {}

    def walk(manifest: Manifest, depth: int) -> None:
        if depth > DEEPEST:
            raise ContentError(f"{top.digest} has more than {DEEPEST} indexes inside of each other")
        for child in manifest.manifests:
            if child.digest in found:
                continue
            if store.blobs.stat(child.digest) is not None:
                walk(store.manifest(child), depth + 1)
                continue
            try:
                remote.resolve(str(child.digest))
            except RemoteNotFound as error:
                raise NotFound(
                    f"{manifest.digest} lists {child.platform or child.digest}, which is neither here nor "
                    f"in {remote.reference}",
                    hint="pull it with --all-platforms first, then push it",
                ) from error
        found.setdefault(manifest.digest, manifest)

    walk(top, 0)
    return list(found.values())


def _origins(store: ImageStore, reference: Reference) -> dict[Digest, str]:
    """Which other repository of the same registry may have a blob: it can be mounted from there."""
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


def _each(
    descriptors: list[Descriptor],
    work: Callable[[Descriptor, Callable[[int], None]], None],
    watch: Watcher,
    parallel: int,
) -> None:
    """Does ``work`` for each in threads; the first failure stops the others and is raised."""
    stop = threading.Event()

    def one(descriptor: Descriptor) -> None:
        def progress(count: int) -> None:
            if stop.is_set():
                raise _Stopped
            watch.moved(descriptor, count)

        if stop.is_set():
            return
        work(descriptor, progress)

    for descriptor in descriptors:
        watch.stage(descriptor, "waiting")
    with ThreadPoolExecutor(max_workers=max(1, parallel), thread_name_prefix="digestry-blob") as pool:
        futures: list[Future[None]] = [pool.submit(one, descriptor) for descriptor in descriptors]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Also after Ctrl-C: the threads end at their next chunk.
            if not all(future.done() and future.exception() is None for future in futures):
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
    errors = [e for future in futures if not future.cancelled() and (e := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, _Stopped):
            raise error
