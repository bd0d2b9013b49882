"""Manifests and indexes: decoded, with the exact bytes kept.

OCI image-spec manifest.md and image-index.md, and docker's schema 2 manifest and list.
"""

from __future__ import annotations

from typing import Annotated, Final, Self

import msgspec

from digestry.errors import InvalidManifest
from digestry.model import go_json, media_types
from digestry.model.descriptor import Descriptor, MediaType, decode_hook, encode_hook
from digestry.model.digest import Digest, shown
from digestry.model.document import decode_document
from digestry.model.json_types import prepared
from digestry.model.platform import Platform

DEEPEST: Final = 8
"""How many indexes may be inside of each other."""
MOST_MANIFESTS: Final = 10_000
"""The manifests below one index that are looked at, in all of its indexes together."""

_SchemaVersion = Annotated[int, msgspec.Meta(ge=2, le=2)]


class _ManifestJSON(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: _SchemaVersion
    config: Descriptor
    # Go writes an empty list that was never set as null, and some builders of empty images leave it out.
    layers: tuple[Descriptor, ...] | None = None
    media_type: str | None = None
    artifact_type: MediaType | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None
    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _IndexJSON(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: _SchemaVersion
    manifests: tuple[Descriptor, ...] | None
    media_type: str | None = None
    artifact_type: MediaType | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None
    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    layers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Probe(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str | None = None
    schema_version: object = None
    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_probe: Final = msgspec.json.Decoder(prepared(_Probe))
_manifest: Final = msgspec.json.Decoder(prepared(_ManifestJSON), dec_hook=decode_hook)
_index: Final = msgspec.json.Decoder(prepared(_IndexJSON), dec_hook=decode_hook)


class Manifest:
    """The base of :class:`Image` and :class:`Index`. Immutable.

    ``raw`` is the exact bytes that were received, and ``digest`` is the digest of those bytes. ``subject`` is
    the manifest that this one refers to. An index has no ``config`` and no ``layers``, an image no
    ``manifests``. Two are equal if their bytes and media types are.
    """

    __slots__ = (
        "annotations",
        "artifact_type",
        "config",
        "digest",
        "layers",
        "manifests",
        "media_type",
        "raw",
        "subject",
    )

    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]

    def __init__(
        self, raw: bytes, media_type: str, digest: Digest, parsed: _ManifestJSON | _IndexJSON
    ) -> None:
        self.raw = raw
        self.media_type = media_type
        self.digest = digest
        self.config = None
        self.layers = ()
        self.manifests = ()
        if isinstance(parsed, _ManifestJSON):
            self.config = parsed.config
            self.layers = parsed.layers or ()
        else:
            self.manifests = parsed.manifests or ()
        self.subject = parsed.subject
        self.annotations = parsed.annotations or {}
        declared = parsed.artifact_type or None
        # distribution-spec, "Listing Referrers": without one, a manifest's is its config's type.
        self.artifact_type = declared or (self.config.media_type if self.config else None)

    @classmethod
    def parse(cls, raw: bytes, media_type: str | None = None, *, algorithm: str = "sha256") -> Self:
        """Parse ``raw``, and return the image or index. ``Image.parse`` and ``Index.parse`` take that kind
        only.

        Without ``media_type`` the document itself decides its kind. ``algorithm`` is the digest's. Raises
        :class:`~digestry.errors.InvalidManifest`, which says what is wrong and where in the JSON.
        """
        found = parse_manifest(raw, media_type, algorithm=algorithm)
        if not isinstance(found, cls):
            raise InvalidManifest(f"{found.digest} is {'an index' if found.is_index else 'an image'}")
        return found

    @property
    def size(self) -> int:
        """The number of bytes of ``raw``."""
        return len(self.raw)

    @property
    def is_index(self) -> bool:
        """Whether this is an :class:`Index`."""
        return isinstance(self, Index)

    def descriptor(self) -> Descriptor:
        """Return a descriptor of this manifest, without its annotations."""
        return Descriptor(self.media_type, self.digest, self.size)

    def blobs(self) -> tuple[Descriptor, ...]:
        """Return the config and the layers, in that order; nothing for an index."""
        return () if self.config is None else (self.config, *self.layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and (self.raw, self.media_type) == (other.raw, other.media_type)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.digest)!r}, {self.media_type!r})"


class Image(Manifest):
    """An image manifest or an artifact: a config and layers (image-spec, manifest.md). Immutable.

    Made by :meth:`parse` from bytes. ``config`` and ``layers`` are descriptors: a repository or a local store
    reads the content.
    """

    __slots__ = ()

    config: Descriptor


class Index(Manifest):
    """An image index: one image for each platform (image-spec, image-index.md). Immutable.

    Made by :meth:`parse` from bytes. ``manifests`` are descriptors of images, and of further indexes.
    """

    __slots__ = ()

    config: None

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms that the entries name, each once, in their order."""
        named = (entry.platform for entry in self.manifests if entry.platform is not None)
        return tuple(dict.fromkeys(platform for platform in named if platform.is_stated))


def parse_manifest(
    raw: bytes, media_type: str | None = None, *, algorithm: str = "sha256", verified: Digest | None = None
) -> Image | Index:
    """Parse ``raw``, and return the image or index. Raises as :meth:`Manifest.parse` does.

    ``verified`` is its digest, if somebody has hashed it already.
    """
    text = _as_go_reads(raw) if go_json.is_odd(raw) else raw
    try:
        kind, parsed = _parsed(text, media_type)
    except InvalidManifest as error:
        try:
            kind, parsed = _parsed(_as_go_reads(raw), media_type)
        except InvalidManifest:
            raise error from None  # about received content
    # A document of both kinds would be read differently by different clients (image-spec,
    # GHSA-77vh-xpmg-72qh): it is refused.
    digest = verified or Digest.of(raw, algorithm)
    if isinstance(parsed, _ManifestJSON):
        if parsed.manifests is not msgspec.UNSET:
            raise InvalidManifest('the manifest has both "config" and "manifests": it is ambiguous')
        return Image(raw, kind, digest, parsed)
    if parsed.config is not msgspec.UNSET or parsed.layers is not msgspec.UNSET:
        raise InvalidManifest('the index has "config" or "layers" beside "manifests": it is ambiguous')
    return Index(raw, kind, digest, parsed)


def _parsed(text: bytes, media_type: str | None) -> tuple[str, _ManifestJSON | _IndexJSON]:
    kind = _kind(text, media_type)
    if kind in media_types.IMAGE_MANIFESTS:
        return kind, decode_document(_manifest, text, "manifest")
    return kind, decode_document(_index, text, "manifest")


def _as_go_reads(raw: bytes) -> bytes:
    """Return the manifest in its usual form; as it is if it has none, so that the error is about that."""
    try:
        return go_json.plain(raw)
    except (ValueError, RecursionError):
        return raw


def _kind(raw: bytes, media_type: str | None) -> str:
    probe = decode_document(_probe, raw, "manifest")
    if probe.schema_version == 1 and not isinstance(probe.schema_version, bool):
        raise InvalidManifest(
            "this is a docker schema 1 manifest, which is not supported", hint="push it with a newer client"
        )
    if media_type is not None and media_type not in media_types.MANIFESTS:
        raise InvalidManifest(
            f"media type {shown(media_type)} is not one of a manifest",
            hint="use an OCI image manifest or index, or docker's schema 2 manifest or list",
        )
    if probe.media_type:  # Go writes an empty one for none
        if media_type is not None and probe.media_type != media_type:
            raise InvalidManifest(
                f"the manifest says it is {shown(probe.media_type)}, but came as {shown(media_type)}",
                hint="send it with the Content-Type that its mediaType field has",
            )
        if probe.media_type not in media_types.MANIFESTS:
            raise InvalidManifest(f"media type {shown(probe.media_type)} is not one of a manifest")
        return probe.media_type
    if media_type is not None:
        return media_type
    if probe.manifests is not msgspec.UNSET:
        return media_types.OCI_INDEX
    if probe.config is not msgspec.UNSET:
        return media_types.OCI_MANIFEST
    raise InvalidManifest('the manifest has no "mediaType", and neither "config" nor "manifests" to tell by')


def encode(value: object) -> bytes:
    """Return new content as JSON bytes: keys in the given order, no spaces, so that its digest repeats."""
    return msgspec.json.encode(value, enc_hook=encode_hook)
