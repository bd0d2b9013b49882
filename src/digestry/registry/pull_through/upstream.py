"""The protocol that a mirror asks an upstream by. ``digestry.upstream`` implements it over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.tag_check import TagCheck
from digestry.registry.pull_through.config import MirrorConfig

PATIENCE: Final = 3
"""An answer to a question may take so many times the timeout in all, however it trickles in. Blobs
may take longer."""


LEAST_RATE: Final = 8 << 10
"""Bytes of a blob in a second, on the average: an upstream that sends fewer is too slow."""


class BlobStream(Protocol):
    """The bytes of a blob as they arrive."""

    @property
    def start(self) -> int:
        """The byte that it begins at."""
        ...

    @property
    def size(self) -> int | None:
        """The whole blob's size in bytes, as upstream says, if it does."""
        ...

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes that have arrived; empty at the end. Raises :class:`Unreachable`."""
        ...


class Upstream(Protocol):
    """An upstream registry. Thread-safe; every method blocks, and asks once.

    Each may raise the errors of :class:`~digestry.errors.RemoteError`: Unreachable, RemoteNotFound,
    Unauthorized, Refused (429 with how long to wait), ProtocolViolation.
    """

    def resolve(self, repository: str, target: str, limit: int) -> Descriptor:
        """Return the descriptor of a tag now. ``limit`` is as for :meth:`manifest`, which may be used."""
        ...

    def check(self, repository: str, tag: str, etag: str, limit: int) -> TagCheck:
        """Return what upstream says about a tag now, by HEAD; only if that gives no digest, by GET, which is
        conditional on ``etag``, the validator of an earlier answer. Raises :class:`RemoteNotFound` with the
        registry's error code, if it gives one."""
        ...

    def manifest(self, repository: str, target: str, limit: int) -> Manifest:
        """Return a manifest by tag or digest, verified, of at most ``limit`` bytes. Raises
        :class:`ContentError`, and :class:`AnswerTooLong`."""
        ...

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, if the upstream states it."""
        ...

    def blob(self, repository: str, digest: Digest, start: int) -> AbstractContextManager[BlobStream]:
        """Open a blob, unverified, from byte ``start`` on or, if the upstream cannot, from its first."""
        ...

    def tags(self, repository: str, most: int, pace: Callable[[], None] | None = None) -> Sequence[str]:
        """Return the first ``most`` tags. ``pace`` is called before each page after the first."""
        ...

    def referrers(self, repository: str, digest: Digest) -> Sequence[Descriptor]:
        """Return the referrers of a manifest."""
        ...

    def staleness(self, repository: str, target: str) -> str:
        """Return why the last answer about a tag, or about referrers, may be out of date, in a word of
        upstream's, which is a mirror itself; empty if they are not."""
        ...

    def close(self) -> None: ...


MakeUpstream = Callable[[MirrorConfig], Upstream]
"""Called in each worker process; given to :func:`digestry.registry.server.serve`, and pickled."""
