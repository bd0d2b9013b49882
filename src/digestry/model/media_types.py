"""The media types of images (image-spec, media-types.md) and of docker's schema 2."""

from __future__ import annotations

from typing import Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
"""containerd's and buildkit's; docker's own specification has none."""
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"

SCHEMA_1: Final = frozenset(
    f"application/vnd.docker.distribution.manifest.v1+{form}" for form in ("json", "prettyjws")
)
"""Docker's first manifests, which are not supported."""

IN_TOTO: Final = "application/vnd.in-toto+json"
PREDICATE_TYPE: Final = "in-toto.io/predicate-type"
"""Annotation of an in-toto referrer: the type of its statement's predicate."""
BUNDLE_PREDICATE_TYPE: Final = "dev.sigstore.bundle.predicateType"
"""cosign's annotation of a Sigstore bundle: the same."""
OPENVEX: Final = "https://openvex.dev/ns"
"""How the predicate type of an OpenVEX document begins."""

IMAGE_MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS: Final = IMAGE_MANIFESTS | INDEXES
IMAGE_CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})

# Layers that a registry need not hold: their bytes are fetched from the descriptor's URLs.
_FOREIGN: Final = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)

_LAYERS: Final = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")


def is_foreign(media_type: str) -> bool:
    """Return whether a layer of this type may be absent from the registry that has its manifest."""
    return media_type.startswith(_FOREIGN)


def is_image_layer(media_type: str) -> bool:
    """Return whether this is a layer of a container image's root file system."""
    return media_type.startswith(_LAYERS)


def bare(content_type: str) -> str:
    """Return a ``Content-Type`` without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
