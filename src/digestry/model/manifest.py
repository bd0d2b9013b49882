"""Manifests and indexes: parsed for what they say, kept as the exact bytes that came in.

OCI image-spec manifest.md and image-index.md, and docker's schema 2 manifest and list.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from digestry.errors import InvalidManifest
from digestry.model import go_json, media_types
from digestry.model.descriptor import Descriptor, MediaType, decode_hook, encode_hook
from digestry.model.digest import Digest, shown
from digestry.model.platform import Platform

_SchemaVersion = Annotated[int, msgspec.Meta(ge=2, le=2)]


class _ManifestJSON(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: _SchemaVersion
    config: Descriptor
    # Go writes an empty list that was never set as null, and some who build from nothing leave it out.
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
    schema_version: Any = None
    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_probe: Final = msgspec.json.Decoder(_Probe)
_manifest: Final = msgspec.json.Decoder(_ManifestJSON, dec_hook=decode_hook)
_index: Final = msgspec.json.Decoder(_IndexJSON, dec_hook=decode_hook)


class Manifest:
    """An image manifest or an index, with its bytes. Immutable.

    ``raw`` is what came in, and what ``digest`` is of; ``size`` is in bytes. An image manifest has
    ``config`` and ``layers``; an index has ``manifests``; each has the other's empty.
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

    def __init__(
        self, raw: bytes, media_type: str, digest: Digest, parsed: _ManifestJSON | _IndexJSON
    ) -> None:
        self.raw = raw
        self.media_type = media_type
        self.digest = digest
        self.config: Descriptor | None = None
        self.layers: tuple[Descriptor, ...] = ()
        self.manifests: tuple[Descriptor, ...] = ()
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
    def parse(cls, raw: bytes, media_type: str | None = None, *, algorithm: str = "sha256") -> Manifest:
        """Reads a manifest or index of the kind ``media_type``, or, without it, of the kind it says.

        Raises :class:`InvalidManifest`, which says what is wrong and where in the JSON.
        """
        text = _as_go_reads(raw) if go_json.is_odd(raw) else raw
        try:
            kind, parsed = _parsed(text, media_type)
        except InvalidManifest as error:
            try:
                kind, parsed = _parsed(_as_go_reads(raw), media_type)
            except InvalidManifest:
                raise error from None  # about what came in
        # One document that is both kinds would mean different things to different readers
        # (image-spec, GHSA-77vh-xpmg-72qh): it is refused.
        if isinstance(parsed, _ManifestJSON):
            if parsed.manifests is not msgspec.UNSET:
                raise InvalidManifest('the manifest has both "config" and "manifests": it is ambiguous')
        elif parsed.config is not msgspec.UNSET or parsed.layers is not msgspec.UNSET:
            raise InvalidManifest('the index has "config" or "layers" beside "manifests": it is ambiguous')
        return cls(raw, kind, Digest.of(raw, algorithm), parsed)

    @property
    def size(self) -> int:
        return len(self.raw)

    @property
    def is_index(self) -> bool:
        return self.media_type in media_types.INDEXES

    def descriptor(self) -> Descriptor:
        """A descriptor of this manifest, without its annotations."""
        return Descriptor(self.media_type, self.digest, self.size)

    def blobs(self) -> tuple[Descriptor, ...]:
        """The config and the layers, in that order; empty for an index."""
        return () if self.config is None else (self.config, *self.layers)

    def __repr__(self) -> str:
        return f"Manifest({str(self.digest)!r}, {self.media_type!r})"


def _parsed(text: bytes, media_type: str | None) -> tuple[str, _ManifestJSON | _IndexJSON]:
    kind = _kind(text, media_type)
    decoder = _manifest if kind in media_types.IMAGE_MANIFESTS else _index
    return kind, _decode(decoder, text, "manifest")


def _as_go_reads(raw: bytes) -> bytes:
    """The manifest in its usual form, if it has one; else as it is, so that the error is about that."""
    try:
        return go_json.plain(raw)
    except (ValueError, RecursionError):
        return raw


def _kind(raw: bytes, media_type: str | None) -> str:
    probe: _Probe = _decode(_probe, raw, "manifest")
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


def _decode(decoder: msgspec.json.Decoder[Any], raw: bytes, what: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidManifest(f"the {what} is not valid: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidManifest(f"the {what} is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidManifest(f"the {what} is nested too deeply") from error


# -- configs ------------------------------------------------------------------------------------


# Every optional field may be null (image-spec, config.md, "Properties"), and docker writes null for
# required ones too.


class _RootFS(msgspec.Struct, frozen=True):
    type: str | None = None
    diff_ids: tuple[Digest, ...] | None = None


class HistoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of an image's making (image-spec, config.md, "history")."""

    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class _HistoryJSON(msgspec.Struct, frozen=True):
    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class _ConfigJSON(msgspec.Struct, frozen=True, rename={"os_version": "os.version"}):
    architecture: str | None = None
    os: str | None = None
    variant: str | None = None
    os_version: str | None = None
    created: str | None = None
    config: dict[str, Any] | None = None
    rootfs: _RootFS | None = None
    history: tuple[_HistoryJSON, ...] | None = None


_config: Final = msgspec.json.Decoder(_ConfigJSON, dec_hook=decode_hook)


class ImageConfig:
    """An image's config, with its bytes. Its digest is the image ID (image-spec, config.md).

    What it does not say, or says as null, is empty. ``rootfs_type`` is ``layers`` in every image
    that can be unpacked; whoever unpacks must refuse another.
    """

    __slots__ = (
        "architecture",
        "created",
        "diff_ids",
        "digest",
        "history",
        "os",
        "os_version",
        "raw",
        "rootfs_type",
        "settings",
        "variant",
    )

    def __init__(self, raw: bytes, parsed: _ConfigJSON, digest: Digest) -> None:
        self.raw = raw
        self.digest = digest
        self.architecture = parsed.architecture or ""
        self.os = parsed.os or ""
        self.os_version = parsed.os_version
        self.variant = parsed.variant
        self.created = parsed.created
        self.settings = parsed.config or {}
        rootfs = parsed.rootfs or _RootFS()
        self.rootfs_type = rootfs.type or ""
        self.diff_ids = rootfs.diff_ids or ()
        self.history = tuple(
            HistoryEntry(step.created, step.created_by, step.comment, bool(step.empty_layer))
            for step in parsed.history or ()
        )

    @property
    def platform(self) -> Platform:
        """What it says that it is for, which may be nothing."""
        return Platform(self.architecture, self.os, self.variant, self.os_version)

    @classmethod
    def parse(cls, raw: bytes, *, algorithm: str = "sha256") -> ImageConfig:
        """Raises :class:`InvalidManifest`, which says what is wrong and where in the JSON."""
        return cls(raw, _decode(_config, raw, "image config"), Digest.of(raw, algorithm))


def encode(value: Any) -> bytes:
    """New content as JSON bytes: keys in the given order, no spaces, so that a digest repeats."""
    return msgspec.json.encode(value, enc_hook=encode_hook)
