"""An upload that a registry has begun: where it is, and how much of it came (distribution-spec)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.responses import Response
from digestry.errors import ProtocolViolation, Refused, Unreachable
from digestry.model.descriptor import Descriptor

_HAS_STATUS: Final = frozenset({200, 202, 204})


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload: its address, how many bytes the registry has of it, and the fewest bytes of its parts but
    the last (``OCI-Chunk-Min-Length``).
    """

    location: str
    offset: int = 0
    least: int = 0

    def closing_url(self, descriptor: Descriptor) -> str:
        """Return the address that makes the upload the blob ``descriptor``."""
        parts = urlsplit(self.location)
        digest = urlencode({"digest": str(descriptor.digest)})
        # The location is opaque: its own query stays as it is.
        return urlunsplit(parts._replace(query=f"{parts.query}&{digest}" if parts.query else digest))


def begin_upload(endpoint: RepositoryEndpoint, descriptor: Descriptor) -> UploadSession:
    """Begin an upload."""
    query = ""
    if descriptor.digest.algorithm != "sha256":
        # A hint of the spec's draft.
        query = "?" + urlencode({"digest-algorithm": descriptor.digest.algorithm})
    with endpoint.request(
        "POST", f"blobs/uploads/{query}", push=True, headers={"Content-Length": "0"}
    ) as response:
        if response.status != 202:
            response.fail(f"begin an upload to {endpoint.name}")
        return _begun(endpoint, response)


def mount_blob(
    endpoint: RepositoryEndpoint, descriptor: Descriptor, origin: str
) -> tuple[bool, UploadSession | None]:
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
                return False, _begun(endpoint, response)
    except (Refused, ProtocolViolation, Unreachable):
        pass  # whatever it is, it comes again if it is about more than the mount
    refused.add(key)
    return False, None


def _begun(endpoint: RepositoryEndpoint, response: Response) -> UploadSession:
    location = response.headers.get("Location")
    if not location:
        raise ProtocolViolation(f"{response.host} began an upload and does not say where")
    least = response.headers.get("OCI-Chunk-Min-Length", "").strip()
    return UploadSession(
        endpoint.connection.transport.follow(response.url, location),
        least=int(least) if least.isascii() and least.isdigit() and len(least) <= 12 else 0,
    )


def moved(endpoint: RepositoryEndpoint, session: UploadSession, response: Response) -> str:
    """Return the address of an upload after ``response``, which may name another."""
    following = response.headers.get("Location")
    if not following:
        return session.location
    return endpoint.connection.transport.follow(response.url, following)


def find_upload(endpoint: RepositoryEndpoint, location: str, size: int) -> UploadSession | None:
    """Return the upload at ``location`` as the registry has it ("Get Blob Upload Status").

    None if it has ended, or if the registry does not say how much of ``size`` bytes came.
    """
    with contextlib.suppress(ProtocolViolation, Refused, Unreachable):
        if "://" not in location:
            return None
        base = endpoint.connection.base(endpoint.host)
        # It may be of another time, with other settings.
        location = endpoint.connection.transport.follow(f"{base}/v2/", location)
        with endpoint.request("GET", location, push=True) as response:
            last = last_byte(response)
            if response.status in _HAS_STATUS and last is not None and last < size:
                # ``0-0`` is what many registries say of an upload without a byte.
                known = UploadSession(location, last + 1 if last else 0)
                return UploadSession(moved(endpoint, known, response), known.offset)
    return None


def last_byte(response: Response) -> int | None:
    """Return the last byte that the registry has by its ``Range`` header; None if it does not say."""
    _, dash, last = response.headers.get("Range", "").strip().rpartition("-")
    return int(last) if dash and last.isascii() and last.isdigit() and len(last) <= 19 else None
