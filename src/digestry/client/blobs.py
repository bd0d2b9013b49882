"""Blobs of a repository that are small: whether one is there, and its bytes, read whole and verified."""

from __future__ import annotations

from typing import Final

from digestry.blobs.bounded_read import SMALL
from digestry.blobs.verify import Verifier
from digestry.client.endpoint import RepositoryEndpoint
from digestry.errors import TooLarge
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest

_CHUNK: Final = 1 << 20
_HEAD_REFUSED: Final = frozenset({400, 403, 405, 500, 501})


def has_blob(endpoint: RepositoryEndpoint, digest: Digest) -> bool:
    """Return whether the repository has a blob."""
    with endpoint.request("HEAD", f"blobs/{digest}") as response:
        if response.status in {200, 404}:
            return response.status == 200
        if response.status not in _HEAD_REFUSED:
            response.fail(f"look for blob {digest} in {endpoint.name}")
    # Storage may have signed its address for GET alone.
    with endpoint.request("GET", f"blobs/{digest}", headers={"Range": "bytes=0-0"}) as response:
        return response.status in {200, 206}


def read_blob(endpoint: RepositoryEndpoint, descriptor: Descriptor, *, limit: int = SMALL) -> bytes:
    """Return the bytes of a blob, verified. See :meth:`Repository.read_blob`."""
    if descriptor.size > limit:
        raise TooLarge(
            f"{descriptor.digest} of {endpoint.name} has {descriptor.size} bytes, "
            f"more than the {limit} that are read at once",
            limit=limit,
        )
    with endpoint.request("GET", f"blobs/{descriptor.digest}") as response:
        if response.status != 200:
            response.fail(f"get blob {descriptor.digest} of {endpoint.name}")
        if response.encoding and response.length != descriptor.size:
            response.decode(of_gzip=descriptor.media_type.endswith("gzip"))
        verifier = Verifier(descriptor.digest, descriptor.size)
        parts: list[bytes] = []
        for chunk in response.chunks(min(_CHUNK, descriptor.size + 1)):
            verifier.update(chunk)
            parts.append(chunk)
    verifier.finish()
    return b"".join(parts)
