"""The config of an image: its platform, its settings, its layers' digests and its history.

OCI image-spec config.md. Every optional field may be null there ("Properties"), and docker writes null for
required ones too.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.document import decode_document
from digestry.model.json_types import prepared
from digestry.model.platform import Platform


class _RootFS(msgspec.Struct, frozen=True):
    type: str | None = None
    diff_ids: tuple[Digest, ...] | None = None


class HistoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of an image's build (image-spec, config.md, "history")."""

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


_config: Final = msgspec.json.Decoder(prepared(_ConfigJSON), dec_hook=decode_hook)


class ImageConfig:
    """An image's config, with its bytes. Its digest is the image ID (image-spec, config.md).

    Missing and null fields are empty. ``rootfs_type`` is ``layers`` in every image that can be unpacked; code
    that unpacks must refuse any other.
    """

    __slots__ = (
        "_history",
        "architecture",
        "created",
        "diff_ids",
        "digest",
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
        self._history = parsed.history or ()

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """Return the steps of the image's build."""
        return tuple(
            HistoryEntry(step.created, step.created_by, step.comment, bool(step.empty_layer))
            for step in self._history
        )

    @property
    def platform(self) -> Platform:
        """Return the platform that the config names, which may be empty."""
        return Platform(self.architecture, self.os, self.variant, self.os_version)

    def step_of(self, layer: int) -> str:
        """Return the step of the build that made the layer at this position, from 0; empty if the history
        does not say."""
        steps = [step for step in self.history if not step.empty_layer]
        return (steps[layer].created_by or "") if layer < len(steps) else ""

    @classmethod
    def parse(cls, raw: bytes, *, algorithm: str = "sha256", verified: Digest | None = None) -> ImageConfig:
        """Parse ``raw``. ``algorithm`` is the digest's; ``verified`` is the digest itself, if somebody has
        hashed it already.

        Raises :class:`~digestry.errors.InvalidManifest`, which says what is wrong and where in the JSON.
        """
        return cls(raw, decode_document(_config, raw, "image config"), verified or Digest.of(raw, algorithm))
