"""Blobs of a repository that are read as they come: their size, and their bytes, verified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from digestry.blobs.verify import Verifier
from digestry.client.endpoint import RepositoryEndpoint
from digestry.errors import ProtocolViolation, Unreachable
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest

_CHUNK: Final = 1 << 20
_BYTES: Final = "application/octet-stream"
_HEAD_REFUSED: Final = frozenset({400, 403, 405, 500, 501})
_PART: Final = 206


def describe_blob(endpoint: RepositoryEndpoint, digest: Digest) -> Descriptor:
    """Return the descriptor of a blob by its digest. See :meth:`Repository.describe_blob`."""
    with endpoint.request("HEAD", f"blobs/{digest}") as response:
        if response.status == 200 and response.length is not None:
            return Descriptor(_BYTES, digest, response.length)
        if response.status != 200 and response.status not in _HEAD_REFUSED:
            response.fail(f"find blob {digest} of {endpoint.name}")
    with endpoint.request("GET", f"blobs/{digest}") as response:
        if response.status != 200:
            response.fail(f"find blob {digest} of {endpoint.name}")
        if response.length is None:
            raise ProtocolViolation(f"{response.host} does not say how many bytes {digest} has")
        return Descriptor(_BYTES, digest, response.length)


def stream_blob(endpoint: RepositoryEndpoint, descriptor: Descriptor) -> Iterator[bytes]:
    """Yield the bytes of a blob, verified. See :meth:`Repository.stream_blob`."""
    verifier = Verifier(descriptor.digest, descriptor.size)
    held = b""
    attempts = endpoint.connection.options.retries
    while verifier.seen < descriptor.size:
        before = verifier.seen
        try:
            for chunk in _from(endpoint, descriptor, before):
                verifier.update(chunk)
                if held:
                    yield held
                held = chunk
            break
        except Unreachable:
            # An attempt that received bytes does not count: the connection is bad, but not dead.
            attempts -= verifier.seen == before
            if attempts < 0:
                raise
    verifier.finish()
    if held:
        yield held


def _from(endpoint: RepositoryEndpoint, descriptor: Descriptor, start: int) -> Iterator[bytes]:
    """Yield the bytes of one response from ``start`` on."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    with endpoint.request("GET", f"blobs/{descriptor.digest}", headers=headers) as response:
        skip = 0
        if start and response.status == 200:
            skip = start  # Range is a wish: a registry may send everything again (RFC 9110, 14.2)
        elif start and response.status == _PART:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise ProtocolViolation(f"{response.host} was asked for byte {start}, and sends another part")
        elif response.status != 200:
            response.fail(f"get blob {descriptor.digest} of {endpoint.name}")
        if response.encoding and response.length != descriptor.size - start + skip:
            response.decode(of_gzip=descriptor.media_type.endswith("gzip"))
        for chunk in response.chunks(_CHUNK):
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            yield chunk[skip:]
            skip = 0
