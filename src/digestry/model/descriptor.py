"""The descriptor: media type, digest and size of some content (image-spec, descriptor.md)."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from digestry.errors import InvalidDigest
from digestry.model.digest import Digest
from digestry.model.platform import Platform

LARGEST_SIZE: Final = 2**63 - 1

Size = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SIZE)]

# Less strict than RFC 6838: a registry must accept unknown types, and clients write parameters and empty
# ones. But values that are sent in headers have no control characters.
MediaType = Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]*\Z")]


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A manifest's description of one piece of content. ``size`` is in bytes.

    Only for reading, and for new content: a received descriptor is never written out again from this, since
    unknown fields would be lost. ``data`` is the content itself; it was checked against ``digest`` and
    ``size`` (image-spec, descriptor.md, "Embedded Content"), and other bytes raise :class:`ValueError`.
    """

    media_type: MediaType
    digest: Digest
    size: Size
    urls: tuple[str, ...] | None = None
    annotations: dict[str, str] | None = None
    data: bytes | None = None
    platform: Platform | None = None
    artifact_type: MediaType | None = None

    def __post_init__(self) -> None:
        # A ValueError, not an error of digestry's: msgspec adds the JSON path to it.
        if self.data is None:
            return
        if len(self.data) != self.size:
            raise ValueError(f"the data has {len(self.data)} bytes, but the size is {self.size}")
        if Digest.of(self.data, self.digest.algorithm) != self.digest:
            raise ValueError(f"the data does not match the digest {self.digest}")

    def __hash__(self) -> int:
        return hash((self.media_type, self.digest, self.size))


def decode_hook(kind: type, value: Any) -> object:
    """Return ``value`` as ``kind``, for msgspec: a type of this package that JSON does not have."""
    if kind is Digest:
        try:
            return Digest.parse(value)
        except InvalidDigest as error:
            # msgspec adds the JSON path to a ValueError.
            raise ValueError(error.message) from error
    raise NotImplementedError(kind)


def encode_hook(value: object) -> object:
    """Return ``value`` as JSON has it, for msgspec: a type of this package that JSON does not have."""
    if isinstance(value, Digest):
        return str(value)
    raise NotImplementedError(type(value))
