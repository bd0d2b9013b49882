"""Pushing a blob: is it there, can it be mounted, else send it (distribution-spec, "Pushing blobs")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from digestry.blobs.verify import verified
from digestry.client.answers import complain_digest
from digestry.errors import ProtocolViolation, StorageError, Unreachable
from digestry.model.descriptor import Descriptor

if TYPE_CHECKING:
    from digestry.client.repository import Repository

Outcome = Literal["present", "mounted", "sent"]
_CHUNK: Final = 1 << 20


def push_blob(
    repository: Repository,
    descriptor: Descriptor,
    source: Callable[[], BinaryIO],
    mount_from: str | None,
    progress: Callable[[int], None] | None,
) -> Outcome:
    """See :meth:`Repository.push_blob`."""
    if repository.has_blob(descriptor.digest):
        return "present"
    attempts = repository.session.options.retries
    while True:
        location = _begin(repository, descriptor, mount_from)
        if location is None:
            return "mounted"
        sent = [0]
        try:
            _send(repository, descriptor, source, location, progress=progress, sent=sent)
            return "sent"
        except Unreachable:
            attempts -= 1
            if attempts < 0:
                raise
            if progress is not None:
                progress(-sent[0])
            mount_from = None


def _begin(repository: Repository, descriptor: Descriptor, mount_from: str | None) -> str | None:
    """Begins an upload and returns its address; None if the blob was mounted instead."""
    query: dict[str, str] = {}
    scopes: list[str] = []
    if mount_from is not None and mount_from != repository.reference.repository:
        query = {"mount": str(descriptor.digest), "from": mount_from}
        scopes = [f"repository:{mount_from}:pull"]
    elif descriptor.digest.algorithm != "sha256":
        query = {"digest-algorithm": descriptor.digest.algorithm}  # a hint of the spec's draft
    path = "blobs/uploads/" + (f"?{urlencode(query)}" if query else "")
    with repository.ask("POST", path, push=True, scopes=scopes, headers={"Content-Length": "0"}) as answer:
        if answer.status == 201 and mount_from is not None:
            return None
        if answer.status != 202:
            answer.fail(f"begin an upload to {repository.reference.name}")
        location = answer.headers.get("Location")
        if not location:
            raise ProtocolViolation(f"{answer.host} began an upload and does not say where")
        return repository.session.transport.follow(answer.url, location)


def _send(
    repository: Repository,
    descriptor: Descriptor,
    source: Callable[[], BinaryIO],
    location: str,
    *,
    progress: Callable[[int], None] | None,
    sent: list[int],
) -> None:
    parts = urlsplit(location)
    digest = urlencode({"digest": str(descriptor.digest)})
    # The location is opaque: its own query stays as it is.
    url = urlunsplit(parts._replace(query=f"{parts.query}&{digest}" if parts.query else digest))

    def body() -> Iterator[bytes]:
        # verified() holds the last chunk back, so that damaged bytes are never a whole upload.
        for chunk in verified(_read(source), descriptor.digest, descriptor.size):
            yield chunk
            sent[0] += len(chunk)
            if progress is not None:
                progress(len(chunk))

    headers = {"Content-Length": str(descriptor.size), "Content-Type": "application/octet-stream"}
    with repository.ask("PUT", url, headers=headers, body=body, push=True, repeatable=False) as answer:
        if answer.status not in {201, 204}:
            answer.fail(f"push blob {descriptor.digest} to {repository.reference.name}")
        said = answer.digest()
        if said is not None and said.algorithm == descriptor.digest.algorithm and said != descriptor.digest:
            raise complain_digest(answer.host, said, descriptor.digest)


def _read(source: Callable[[], BinaryIO]) -> Iterator[bytes]:
    with source() as file:
        while True:
            try:
                chunk = file.read(_CHUNK)
            except OSError as error:  # would be taken for a broken connection
                raise StorageError(f"cannot read {file.name}: {error.strerror or error}") from error
            if not chunk:
                return
            yield chunk
