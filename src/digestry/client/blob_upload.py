"""Uploading a blob, unless it is there or can be mounted (distribution-spec, "Pushing blobs")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from digestry.blobs.verify import Verifier, verified
from digestry.client.blobs import has_blob
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.responses import Response, digest_disagreement
from digestry.client.transport_errors import broke_off
from digestry.errors import ProtocolViolation, Refused, StorageError, Unreachable
from digestry.model.descriptor import Descriptor

Outcome = Literal["present", "mounted", "sent"]
_CHUNK: Final = 1 << 20
_TOO_LARGE: Final = 413
_LARGEST_PART: Final = 8 << 20
_SMALLEST_PART: Final = 64 << 10
_SMALLEST_REFUSED: Final = 1 << 20  # what proxies let pass unless they are told otherwise


def push_blob(
    endpoint: RepositoryEndpoint,
    descriptor: Descriptor,
    source: Callable[[], BinaryIO],
    mount_from: str | None,
    progress: Callable[[int], None] | None,
) -> Outcome:
    """Make the repository have a blob, and return how. See :meth:`Repository.push_blob`."""
    if has_blob(endpoint, descriptor.digest):
        return "present"
    if mount_from is not None and mount_from != endpoint.repository.repository:
        mounted, begun = _mount(endpoint, descriptor, mount_from)
        if mounted:
            return "mounted"
    else:
        begun = None
    attempts = endpoint.connection.options.retries
    in_parts = False
    while True:
        upload = begun or _begin(endpoint, descriptor)
        begun = None
        sent = _Sent(progress)
        try:
            if not in_parts and _send_whole(endpoint, descriptor, source, upload, sent):
                return "sent"
            if not in_parts:
                # Too large for somebody on the way, who may have ended the upload too.
                in_parts = True
                sent.again()
                upload = _begin(endpoint, descriptor)
            _send_in_parts(endpoint, descriptor, source, upload, sent)
            return "sent"
        except Unreachable as error:
            attempts -= 1
            if attempts < 0:
                raise
            sent.again()
            # Who refuses a large body may do it by closing the connection.
            in_parts = in_parts or (broke_off(error) and descriptor.size > _SMALLEST_REFUSED)


class _Sent:
    """The number of bytes that were sent, reported to ``progress``."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self._progress = progress
        self.count = 0

    def more(self, count: int) -> None:
        self.count += count
        if self._progress is not None:
            self._progress(count)

    def again(self) -> None:
        """Take back what was reported: all of it will be sent once more."""
        if self.count:
            self.more(-self.count)


@dataclass(frozen=True, slots=True)
class _Upload:
    """An upload that the registry has begun: its address, and the fewest bytes of its parts but the last
    (``OCI-Chunk-Min-Length``).
    """

    location: str
    least: int = 0


def _mount(endpoint: RepositoryEndpoint, descriptor: Descriptor, origin: str) -> tuple[bool, _Upload | None]:
    """Return whether the blob was mounted, and the upload that the registry may have begun instead.

    A mount saves a transfer, and is the registry's to refuse, and the token server's: the blob is sent
    then, as all clients do it.
    """
    refused = endpoint.connection.cache.mounts_refused
    key = (endpoint.name, f"{endpoint.host}/{origin}")
    if key in refused:
        return False, None
    query = urlencode({"mount": str(descriptor.digest), "from": origin})
    scopes = [f"repository:{origin}:pull"]
    try:
        with endpoint.request(
            "POST", f"blobs/uploads/?{query}", push=True, scopes=scopes, headers={"Content-Length": "0"}
        ) as response:
            if response.status == 201:
                return True, None
            if response.status == 202 and response.headers.get("Location"):
                return False, _upload(endpoint, response)
    except (Refused, ProtocolViolation, Unreachable):
        pass  # whatever it is, it comes again if it is about more than the mount
    refused.add(key)
    return False, None


def _begin(endpoint: RepositoryEndpoint, descriptor: Descriptor) -> _Upload:
    query = ""
    if descriptor.digest.algorithm != "sha256":
        # A hint of the spec's draft.
        query = "?" + urlencode({"digest-algorithm": descriptor.digest.algorithm})
    with endpoint.request(
        "POST", f"blobs/uploads/{query}", push=True, headers={"Content-Length": "0"}
    ) as response:
        if response.status != 202:
            response.fail(f"begin an upload to {endpoint.name}")
        return _upload(endpoint, response)


def _upload(endpoint: RepositoryEndpoint, response: Response) -> _Upload:
    location = response.headers.get("Location")
    if not location:
        raise ProtocolViolation(f"{response.host} began an upload and does not say where")
    least = response.headers.get("OCI-Chunk-Min-Length", "").strip()
    return _Upload(
        endpoint.connection.transport.follow(response.url, location),
        int(least) if least.isascii() and least.isdigit() and len(least) <= 12 else 0,
    )


def _send_whole(
    endpoint: RepositoryEndpoint,
    descriptor: Descriptor,
    source: Callable[[], BinaryIO],
    upload: _Upload,
    sent: _Sent,
) -> bool:
    """Send the blob in one request; return False if that is too large for somebody on the way."""

    def body() -> Iterator[bytes]:
        sent.again()  # it may be sent on to somewhere else
        # verified() holds the last chunk back, so that damaged bytes are never a whole upload.
        for chunk in verified(_read(source), descriptor.digest, descriptor.size):
            yield chunk
            sent.more(len(chunk))

    headers = {"Content-Length": str(descriptor.size), "Content-Type": "application/octet-stream"}
    with endpoint.request(
        "PUT",
        _closing(upload.location, descriptor),
        headers=headers,
        body=body,
        push=True,
        repeatable=False,
    ) as response:
        if response.status == _TOO_LARGE and descriptor.size > _SMALLEST_PART:
            return False
        _check_end(endpoint, descriptor, response)
    return True


def _send_in_parts(
    endpoint: RepositoryEndpoint,
    descriptor: Descriptor,
    source: Callable[[], BinaryIO],
    upload: _Upload,
    sent: _Sent,
) -> None:
    """Send the blob in parts (distribution-spec, "Pushing a blob in chunks").

    Parts that are refused as too large are made smaller.
    """
    size = _LARGEST_PART
    while size >= descriptor.size and size > _SMALLEST_PART:
        size //= 2
    verifier = Verifier(descriptor.digest, descriptor.size)
    location, offset, held = upload.location, 0, b""
    with source() as file:
        while True:
            size = max(size, upload.least)
            if len(held) < size:
                more = _some(file, size - len(held))
                verifier.update(more)
                held += more
            if not held:
                break
            part = held[:size]
            headers = {
                "Content-Length": str(len(part)),
                "Content-Range": f"{offset}-{offset + len(part) - 1}",
                "Content-Type": "application/octet-stream",
            }
            with endpoint.request(
                "PATCH", location, headers=headers, body=part, push=True, repeatable=False
            ) as response:
                if response.status == _TOO_LARGE and size > max(_SMALLEST_PART, upload.least):
                    size = max(size // 2, _SMALLEST_PART)
                    continue
                if response.status not in {202, 204}:
                    response.fail(f"push a part of blob {descriptor.digest} to {endpoint.name}")
                following = response.headers.get("Location")
                if following:
                    location = endpoint.connection.transport.follow(response.url, following)
                _check_range(response, offset + len(part))
            sent.more(len(part))
            offset += len(part)
            held = held[len(part) :]
    verifier.finish()  # before the registry is told that this is all
    with endpoint.request(
        "PUT",
        _closing(location, descriptor),
        headers={"Content-Length": "0"},
        body=b"",
        push=True,
        repeatable=False,
    ) as response:
        _check_end(endpoint, descriptor, response)


def _check_range(response: Response, expected: int) -> None:
    """Raise :class:`ProtocolViolation` if the registry has less than was sent to it."""
    _, dash, last = response.headers.get("Range", "").strip().rpartition("-")
    if dash and last.isascii() and last.isdigit() and len(last) <= 19 and int(last) + 1 != expected:
        raise ProtocolViolation(f"{response.host} was sent {expected} bytes, and says that it has {last}")


def _closing(location: str, descriptor: Descriptor) -> str:
    parts = urlsplit(location)
    digest = urlencode({"digest": str(descriptor.digest)})
    # The location is opaque: its own query stays as it is.
    return urlunsplit(parts._replace(query=f"{parts.query}&{digest}" if parts.query else digest))


def _check_end(endpoint: RepositoryEndpoint, descriptor: Descriptor, response: Response) -> None:
    if response.status not in {201, 204}:
        response.fail(f"push blob {descriptor.digest} to {endpoint.name}")
    said = response.digest()
    if said is not None and said.algorithm == descriptor.digest.algorithm and said != descriptor.digest:
        raise digest_disagreement(response.host, said, descriptor.digest)


def _read(source: Callable[[], BinaryIO]) -> Iterator[bytes]:
    with source() as file:
        while chunk := _some(file, _CHUNK):
            yield chunk


def _some(file: BinaryIO, count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:  # would be taken for a broken connection
        raise StorageError(f"cannot read {file.name}: {error.strerror or error}") from error
