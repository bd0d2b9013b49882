"""Bringing a blob into a store on the disk, from where an earlier command left off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from digestry.errors import (
    Conflict,
    ContentError,
    DigestMismatch,
    NotFound,
    ProtocolViolation,
    RemoteNotFound,
    StorageFull,
)

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest
    from digestry.blobs.protocols import BlobStore
    from digestry.model.descriptor import Descriptor

_WORTH_KEEPING: Final = 256 << 10
"""Bytes of a blob from which its beginning is kept for the next command."""
_READ_AGAIN: Final = 4 << 20
"""Bytes of a blob up to which one that is there is read and verified, which takes milliseconds."""

Progress = Callable[[int], None]
"""Called with the number of bytes that have arrived since the last call."""


def fetch_blob(
    fetch: Callable[[Ingest, Progress], None], blobs: BlobStore, descriptor: Descriptor, progress: Progress
) -> Literal["present", "done"]:
    """Make ``blobs`` have a blob, and return whether it was there.

    ``fetch`` writes into the ingest what that lacks, and commits it, as :meth:`Repository.pull_blob` does.
    What has arrived when the transfer breaks off, or the process is killed, is where the next command goes
    on; its bytes are verified with the rest. On a full disk it is removed. Raises what ``fetch`` does.
    """
    if blobs.stat(descriptor.digest) == descriptor.size and _is_whole(blobs, descriptor):
        return "present"
    if descriptor.size < _WORTH_KEEPING:
        with blobs.begin(descriptor.digest, descriptor.size) as sink:
            fetch(sink, progress)
        return "done"
    try:
        _go_on(fetch, blobs, descriptor, progress)
    except Conflict:
        # Another process fetches it, and may take longer than this one, or be stopped.
        with blobs.begin(descriptor.digest, descriptor.size) as sink:
            fetch(sink, progress)
    return "done"


def _is_whole(blobs: BlobStore, descriptor: Descriptor) -> bool:
    """Return whether a blob that is there has its bytes. Large ones are taken to have them: reading them
    would make every pull of what is there slow."""
    if descriptor.size > _READ_AGAIN:
        return True
    try:
        blobs.read(descriptor.digest)
    except (DigestMismatch, NotFound):  # damaged, or gone by now
        return False
    return True


def _go_on(
    fetch: Callable[[Ingest, Progress], None], blobs: BlobStore, descriptor: Descriptor, progress: Progress
) -> None:
    name = f"pull-{descriptor.digest.encoded[:64]}"
    with blobs.ingest(name, algorithm=descriptor.digest.algorithm) as sink:
        if sink.offset > descriptor.size:
            sink.resume(0)
        begun = sink.offset
        progress(begun)
        try:
            fetch(sink, progress)
            return
        except DigestMismatch:
            if not begun:
                raise  # the commit has removed the file
        except (ContentError, ProtocolViolation, RemoteNotFound):
            sink.abort()  # nobody goes on with what a registry lied about, or does not have
            raise
        except StorageFull:
            sink.abort()  # its beginning would keep the disk full, for everybody
            raise
    # What was there from before may be what is damaged, as after a power loss.
    progress(-descriptor.size)
    with blobs.begin(descriptor.digest, descriptor.size) as again:
        fetch(again, progress)
