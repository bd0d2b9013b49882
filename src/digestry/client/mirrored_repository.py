"""A repository whose images are read from its mirrors before its registry is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from digestry.blobs.bounded_read import SMALL
from digestry.blobs.verify import wrong_hash
from digestry.client.blob_download import fill
from digestry.client.connection import Connection
from digestry.client.manifests import LARGEST_MANIFEST
from digestry.client.repository import Progress, Repository
from digestry.errors import ContentError, DigestryError, RemoteError, RemoteNotFound

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest
    from digestry.model.descriptor import Descriptor
    from digestry.model.digest import Digest
    from digestry.model.manifest import Image, Index
    from digestry.model.reference import Reference

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class MirrorRepository:
    """A repository on a mirror, and whether it is asked for tags, and for digests."""

    repository: Repository
    by_tag: bool
    by_digest: bool


@runtime_checkable
class _Restartable(Protocol):
    """An ingest that has the digest of its bytes, and can drop them."""

    def digest(self, algorithm: str | None = None) -> Digest: ...

    def resume(self, offset: int, known: Digest | None = None) -> None: ...


class MirroredRepository(Repository):
    """A repository that reads manifests and blobs from ``mirrors``, in order, and else from its registry.

    All other requests, such as lists of tags, go to the registry itself. A mirror that fails, or that sends
    content with another digest, is not used again; one that lacks some content may have other content.
    Content by digest is verified from any source; the mirror decides where a tag points. ``registry`` is the
    location of the images in the registry itself, if it differs from their name.
    """

    def __init__(
        self,
        connection: Connection,
        reference: Reference,
        mirrors: Sequence[MirrorRepository],
        registry: Repository | None,
    ) -> None:
        super().__init__(connection, reference)
        self._mirrors = mirrors
        self._last = registry or Repository(connection, reference)
        self._left_out: set[str] = connection.cache.mirrors_left_out
        self._reported: set[str] = set()

    def expect(self, requests: int) -> None:
        """Prepare for so many requests to the first mirror, or else to the registry."""
        self._likely.expect(requests)

    @property
    def is_far(self) -> bool:
        """Whether the first mirror, or else the registry, is known to be far away."""
        return self._likely.is_far

    @property
    def _likely(self) -> Repository:
        """The first mirror that may answer, or else the registry."""
        mirrors = [one.repository for one in self._mirrors]
        return next((one for one in mirrors if one.reference.name not in self._left_out), self._last)

    def resolve(self, target: str, *, limit: int = LARGEST_MANIFEST) -> Descriptor:
        """Return the descriptor of a tag or digest from a mirror or the registry."""
        return self._first(target, lambda place: place.resolve(target, limit=limit))

    def find(self, target: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest from a mirror or the registry; None if all lack it."""
        try:
            return self.resolve(target)
        except RemoteNotFound:
            return None

    def pull_manifest(self, target: str, *, limit: int = LARGEST_MANIFEST) -> Image | Index:
        """Return the image or index that a tag or digest points to, verified."""
        return self._first(target, lambda place: place.pull_manifest(target, limit=limit))

    def describe_blob(self, digest: Digest) -> Descriptor:
        """Return the descriptor of a blob, with its size as a mirror or the registry says it."""
        return self._first(str(digest), lambda place: place.describe_blob(digest))

    def read_blob(self, descriptor: Descriptor, *, limit: int = SMALL) -> bytes:
        """Return the bytes of a small blob, verified."""
        name = str(descriptor.digest)
        return self._first(name, lambda place: place.read_blob(descriptor, limit=limit))

    def stream_blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield the bytes of a blob of any size, verified; from the registry alone."""
        return self._last.stream_blob(descriptor)

    def pull_blob(self, descriptor: Descriptor, sink: Ingest, progress: Progress | None = None) -> None:
        """Stream a blob into ``sink`` and commit it. The next mirror continues what one began."""
        for mirror in self._usable(str(descriptor.digest)):
            begun = sink.offset
            try:
                fill(mirror.endpoint, descriptor, sink, progress)
                if isinstance(sink, _Restartable):
                    found = sink.digest(descriptor.digest.algorithm)
                    if found != descriptor.digest:
                        raise wrong_hash(descriptor.digest, found)
            except ContentError as error:
                if not begun:  # else the bytes that were here before may be wrong
                    self._leave_out(mirror, error)
                if not isinstance(sink, _Restartable):
                    raise
                if progress is not None:
                    progress(-sink.offset)
                sink.resume(0)
            except RemoteError as error:
                self._failed(mirror, error)
            else:
                self._report_once(mirror)
                sink.commit(descriptor.digest, descriptor.size)
                return
        self._last.pull_blob(descriptor, sink, progress)

    def _usable(self, target: str) -> list[Repository]:
        """Return the mirrors to use for a tag or digest now."""
        return [
            mirror.repository
            for mirror in self._mirrors
            if (mirror.by_digest if ":" in target else mirror.by_tag)
            and mirror.repository.reference.name not in self._left_out
        ]

    def _first(self, target: str, ask: Callable[[Repository], _T]) -> _T:
        for mirror in self._usable(target):
            try:
                answer = ask(mirror)
            except (RemoteError, ContentError) as error:
                self._failed(mirror, error)
            else:
                self._report_once(mirror)
                return answer
        return ask(self._last)

    def _failed(self, mirror: Repository, error: DigestryError) -> None:
        if not isinstance(error, RemoteNotFound):
            self._leave_out(mirror, error)

    def _leave_out(self, mirror: Repository, error: DigestryError) -> None:
        name = mirror.reference.name
        if name not in self._left_out:
            self._left_out.add(name)
            self._tell(f"the mirror {name} is left out: {error.message}")

    def _report_once(self, mirror: Repository) -> None:
        name = mirror.reference.name
        if name not in self._reported:
            self._reported.add(name)
            self._tell(f"{self.reference} is read from the mirror {name}")

    def _tell(self, text: str) -> None:
        if self.connection.options.tell is not None:
            self.connection.options.tell(text)
