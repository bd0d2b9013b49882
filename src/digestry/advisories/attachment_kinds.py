"""Kinds of attachments that state nothing about vulnerabilities, by media type and predicate type.

Everything else is fetched and looked into: a name is its author's word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.manifest import Manifest

PREDICATE_ANNOTATIONS: Final = (
    "in-toto.io/predicate-type",
    "predicateType",
    media_types.BUNDLE_PREDICATE_TYPE,
)
"""The annotations with the type of an in-toto statement's predicate: BuildKit's, cosign's in its ``.att``
tags, and cosign's for a bundle."""

_MEDIA_TYPES: Final = (
    "application/vnd.cncf.notary.",
    "application/vnd.dev.cosign.simplesigning.",
    "application/vnd.dev.cosign.artifact.sig.",
    "text/spdx",
    "application/vnd.syft+json",
    "application/vnd.amazon.soci.",
    "application/vnd.cncf.helm.",
    "application/vnd.wasm.",
    "application/wasm",
)
_LAYERS: Final = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_EMPTY_SIZE: Final = len("{}")
_PREDICATES: Final = (
    "https://slsa.dev/",
    "https://spdx.dev/Document/v2",
    "https://syft.dev/",
    "https://sigstore.dev/cosign/sign/",
    "https://in-toto.io/Link/",
    "https://in-toto.io/attestation/link/",
    "https://in-toto.io/attestation/release/",
    "https://in-toto.io/attestation/scai/",
    "https://in-toto.io/attestation/test-result/",
    "https://mobyproject.org/buildkit",
    "https://tekton.dev/",
)
_EXACT: Final = frozenset({"cosign.sigstore.dev/attestation/sign/v1"})
_SPDX: Final = "https://spdx.dev/Document"
"""Of any version: SPDX 2 states nothing of vulnerabilities, and SPDX 3 may."""
_SPDX_TYPE: Final = "application/spdx"
_MENTIONS: Final = re.compile(
    rb"vuln|\bcve-\d|\bghsa-|openvex|\bvex\b|vexstatus|csaf|affected\b|exploitable", re.IGNORECASE
)


def is_other_media_type(media_type: str) -> bool:
    """Return whether content of this type is known to state nothing."""
    kind = media_type.lower()
    if kind.startswith(_SPDX_TYPE):
        return "json" not in kind or "version=2" in kind
    return kind.startswith(_MEDIA_TYPES)


def is_spdx(name: str) -> bool:
    """Return whether a media type or a predicate type is that of a bill of materials in SPDX."""
    return name.startswith(_SPDX) or name.lower().startswith(_SPDX_TYPE)


def is_file_system(layer: Descriptor, manifest: Manifest) -> bool:
    """Return whether ``layer`` is one of an image's. ORAS gives every file the media type of one."""
    config = manifest.config
    if config is None or config.media_type not in media_types.IMAGE_CONFIGS or config.size <= _EMPTY_SIZE:
        return False
    return layer.media_type.startswith(_LAYERS)


def is_other_predicate(predicate_type: str) -> bool:
    """Return whether an in-toto predicate of this type is known to state nothing."""
    return predicate_type in _EXACT or predicate_type.startswith(_PREDICATES)


def announced_predicate_type(annotations: Mapping[str, str] | None) -> str:
    """Return the predicate type in annotations; empty if there is none."""
    known = annotations or {}
    return next((known[name] for name in PREDICATE_ANNOTATIONS if known.get(name)), "")


def may_mention_vulnerabilities(content: bytes) -> bool:
    """Return whether ``content``, in a format without a reader here, may mention vulnerabilities; True for
    content that is not text."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return b"\0" in content or _MENTIONS.search(content) is not None
