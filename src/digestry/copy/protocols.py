"""The protocols of where images are copied from and to. ``tests/copy/contract.py`` tests each implementation.

A name is an image's name within a place: a tag or a digest in a registry's repository, the text of an
``org.opencontainers.image.ref.name`` in a layout. None is the only image of a place without names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Protocol

from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, Manifest

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest

Progress = Callable[[int], None]
"""Called with the number of bytes that moved since the last call. Its errors end the transfer."""

Outcome = Literal["present", "mounted", "sent"]
"""How a target came to have a blob."""


def digest_of_name(name: str | None) -> Digest | None:
    """Return the digest that ``name`` is; None for a name of another kind. Raises :class:`InvalidDigest`."""
    if name is None or not name.startswith(("sha256:", "sha512:")):
        return None
    return Digest.parse(name)


COSIGN_SUFFIXES: Final = (".sig", ".att", ".sbom")
"""The suffixes of the tags under which cosign attaches artifacts that do not refer to an image."""


def cosign_names(digest: Digest) -> list[str]:
    """Return the tags by which cosign attaches to ``digest``."""
    return [f"{digest.algorithm}-{digest.encoded}{suffix}" for suffix in COSIGN_SUFFIXES]


@dataclass(frozen=True, slots=True)
class RepositoryLocation:
    """A repository of a registry: blobs can be mounted from one to another of the same host."""

    host: str
    repository: str


class BlobContent(Protocol):
    """The bytes of a blob of a source, not verified."""

    def open(self) -> BinaryIO:
        """Return a stream of the bytes. Each call begins at the first.

        Reading raises the source's errors, and OSError.
        """
        ...

    def fetch(self, sink: Ingest, progress: Progress) -> None:
        """Write the bytes that ``sink`` lacks into it, and commit it. Raises the errors of the source and the
        sink."""
        ...

    def forget(self) -> None:
        """Remove the bytes that are kept here for another attempt: they are wrong, or no longer needed."""
        ...

    def close(self) -> None:
        """Let go of the content. Bytes that arrived are kept for another attempt."""
        ...


class ImageSource(Protocol):
    """A place that images are copied from. Thread-safe."""

    @property
    def description(self) -> str:
        """The place for messages."""
        ...

    @property
    def repository(self) -> RepositoryLocation | None:
        """The repository that the images are in, if it is a registry's."""
        ...

    @property
    def is_far(self) -> bool:
        """Whether each question to the place takes long, so that several are asked at the same time."""
        ...

    def resolve(self, name: str | None, *, read: bool = False) -> Descriptor:
        """Return the descriptor of ``name``. With ``read``, its manifest is asked for next.

        Raises :class:`NotFound` or :class:`RemoteNotFound`.
        """
        ...

    def names(self) -> Iterable[str]:
        """Return the names of all images, in the place's order; digests that have no other name are none."""
        ...

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        """Return a manifest by its digest, verified.

        Raises :class:`NotFound` or :class:`RemoteNotFound`, and errors for content that is damaged.
        """
        ...

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a small blob, verified. Raises as :meth:`manifest` does."""
        ...

    def blob(self, descriptor: Descriptor) -> BlobContent:
        """Return the bytes of a blob, to be read later. Asks nothing."""
        ...

    def referrers(self, digest: Digest) -> list[Descriptor]:
        """Return the manifests that refer to ``digest`` as their subject."""
        ...

    def attached_names(self, digest: Digest) -> list[str]:
        """Return the names of cosign's artifacts that are attached to ``digest``."""
        ...

    def close(self) -> None:
        """Let go of files and processes."""
        ...


class ImageTarget(Protocol):
    """A place that images are copied to. Thread-safe, except for :meth:`finish`.

    Content is sent before the manifests that refer to it. No existing name is changed before :meth:`point`
    or, where ``is_written_whole``, :meth:`finish`.
    """

    @property
    def description(self) -> str:
        """The place for messages."""
        ...

    @property
    def repository(self) -> RepositoryLocation | None:
        """The repository that the images come into, if it is a registry's."""
        ...

    @property
    def is_far(self) -> bool:
        """Whether each question to the place takes long, so that several are asked at the same time."""
        ...

    @property
    def may_lack_images(self) -> bool:
        """Whether an index may list images that are not there."""
        ...

    @property
    def keeps_index(self) -> bool:
        """Whether a name means the index when one image of it is copied, as after a pull."""
        ...

    @property
    def holds_indexes(self) -> bool:
        """Whether an index can be kept; else one image of it is."""
        ...

    @property
    def doubtful_layers(self) -> frozenset[str]:
        """The media types of layers that some programs which read the target do not know."""
        ...

    @property
    def is_written_whole(self) -> bool:
        """Whether everything is written anew, and is there after :meth:`finish` and not before."""
        ...

    @property
    def loss(self) -> str:
        """What the place loses of an image, as a sentence; empty if it keeps everything."""
        ...

    def current(self, name: str | None) -> Digest | None:
        """Return the digest of ``name`` now; None if there is no such name."""
        ...

    def has_manifest(self, descriptor: Descriptor) -> bool:
        """Return whether the place has a manifest, and so all that it needs."""
        ...

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Return whether the place has a blob."""
        ...

    def put_blob(
        self,
        descriptor: Descriptor,
        content: BlobContent,
        *,
        mount_from: str | None,
        progress: Progress,
    ) -> Outcome:
        """Make the place have a blob, verified, and return how.

        ``mount_from`` is a repository of the same registry that has it.
        """
        ...

    def put_manifest(self, manifest: Manifest) -> None:
        """Store a manifest under its digest."""
        ...

    def point(self, names: Sequence[tuple[str | None, Manifest]]) -> None:
        """Make each name mean its manifest, and store that; by None it has no name but its digest."""
        ...

    def finish(self) -> None:
        """Make the written content durable, and visible."""
        ...

    def close(self) -> None:
        """Close files; unfinished content stays for the next copy, where that is possible."""
        ...
