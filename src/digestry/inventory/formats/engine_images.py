"""The image of a container, as the engines of docker and podman show it.

The digests that an engine reports, and how far to believe them, differ between its two image stores:

- the classic store writes ``RepoDigests`` down at pull and push; ``Id`` is the config's digest;
- containerd's store makes ``RepoDigests`` up from the names that it has now, so that a local build
  has one; ``Id`` is the digest of an index or a manifest.

An image with a ``Descriptor``, or a container with an ``ImageManifestDescriptor`` (API 1.48), is in
containerd's store, and so is one whose ``Id`` is one of its ``RepoDigests``. Older engines with that store
show nothing of the kind for an image whose tag has moved. So an ID has no kind here, unless the engine states
it: a registry's graph gives it one.

Podman pairs every name of an image with every digest that it had, so that many ``RepoDigests``
never were in any registry, and an image that lost its name has none at all. Its containers'
``ImageDigest``, which only its own API and its program show, survives both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from digestry.inventory.engine_values import digest_of, kind_of_media_type, reference_of, repository_digest
from digestry.inventory.formats.engine_documents import (
    NO_IMAGE,
    ImageRecord,
    InspectedContainer,
    ListedContainer,
)
from digestry.inventory.observation import Claim, DigestKind, ImageFacts, pinned_claim
from digestry.model.digest import Digest, shown
from digestry.model.platform import Platform
from digestry.model.reference import DOCKER_HUB

INFRASTRUCTURE: Final = "this is its pod's own pause container"
"""The remark on a container that podman has started for a pod itself."""

_CLASSIC_STORES: Final = frozenset(
    {"aufs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "vfs", "windowsfilter"}
)
"""The storage drivers with which an image's ID is its config's digest for sure: containerd's store has other
drivers, and some (btrfs, zfs) are in both."""
_IMAGE_ID: Final = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)
_LOCAL_HOST: Final = "localhost"


def shown_image(
    *,
    typed: str,
    image_id: Digest | None,
    image: ImageRecord = NO_IMAGE,
    manifest: str = "",
    driver: str = "",
    platform: Platform | None,
    remarks: list[str],
    made_up: bool = False,
    platform_assumed: bool = False,
) -> ImageFacts:
    """Return the image that a container runs, as an engine shows it.

    ``typed`` is the name that it was started by, ``manifest`` the digest of the manifest that runs,
    ``driver`` the storage driver of its layers, each "" if the engine does not show it. ``made_up`` is True
    for an engine that pairs names and digests itself. Oddities are added to ``remarks``.
    """
    reference = _typed_reference(typed, image_id, image.repo_tags, remarks)
    named = reference_of(reference)
    pinned = pinned_claim(named, "the container's name")
    claims = [] if pinned is None else [pinned]
    in_containerd = _is_in_containerd(image_id, image, manifest)
    claims += _paired_claims(image, remarks, obtained=not (made_up or in_containerd))
    if image_id is not None:
        store = driver or image.driver
        claims.append(
            Claim(
                image_id,
                _kind(image, image_id),
                None,
                "the image ID",
                "image-id",
                obtained=False,
                rewritten=in_containerd or (bool(store) and store not in _CLASSIC_STORES and not made_up),
            )
        )
    has_host = named is not None and (named.host != DOCKER_HUB or typed.startswith(DOCKER_HUB + "/"))
    return ImageFacts(
        reference=reference,
        claims=tuple(dict.fromkeys(claims)),
        image_id=image_id,
        platform_manifest=digest_of(manifest or None),
        platform=platform,
        platform_assumed=platform_assumed,
        registry_named=has_host or any(claim.repository is not None for claim in claims),
    )


def _is_in_containerd(image_id: Digest | None, image: ImageRecord, manifest: str) -> bool:
    """Return whether an image is known to be in containerd's store."""
    if manifest or image.target is not None:
        return True
    pairs = (repository_digest(text) for text in image.repo_digests)
    return any(pair is not None and pair[1] == image_id for pair in pairs)


def with_podman_digest(image: ImageFacts, text: str, remarks: list[str]) -> ImageFacts:
    """Return ``image`` with the claims that podman's ``ImageDigest`` of its container adds and removes."""
    digest = digest_of(text)
    claims = list(image.claims)
    if digest is not None:
        # It names no repository, and may be the image's digest or its list's. The more exact
        # pairs with a repository come first; the image ID stays the last resort.
        claim = Claim(digest, "unknown", None, "the container's ImageDigest", "repo-digest", obtained=False)
        claims.insert(max(len(claims) - 1, 0), claim)
    elif text:
        remarks.append(f"podman gives an image digest that is not valid: {shown(text)}")
    local = (image.reference or "").startswith(f"{_LOCAL_HOST}/")
    if local:
        # Podman's name for images that no registry has: "localhost" without a port.
        remarks.append("podman's name localhost/… means built or loaded locally, in no registry")
        claims = [
            claim for claim in claims if claim.repository is None or claim.repository.host != _LOCAL_HOST
        ]
    return replace(image, claims=tuple(claims), registry_named=image.registry_named and not local)


def own_detail(identity: str, detail: InspectedContainer | None, remarks: list[str]) -> InspectedContainer:
    """Return ``detail``, an engine's document of the container ``identity``.

    If it is of another container, return nothing of it, and add a remark.
    """
    if detail is not None and detail.id in {"", identity}:
        return detail
    if detail is not None:
        remarks.append(f"the engine shows another container in its place: {shown(detail.id)}")
    return InspectedContainer("")


def image_id_of(detail: InspectedContainer, entry: ListedContainer, remarks: list[str]) -> Digest | None:
    """Return a container's image ID, which an engine lists and shows; None and a remark if these differ."""
    of_detail, listed = digest_of(detail.image), digest_of(entry.image_id)
    if of_detail is not None and listed is not None and of_detail != listed:
        remarks.append(f"the engine lists this container with the image ID {listed}, and shows {of_detail}")
        return None
    return of_detail or listed


def _typed_reference(
    typed: str, image_id: Digest | None, tags: Iterable[str], remarks: list[str]
) -> str | None:
    """Return the name that a container was started by, or None and a remark if it was started by an ID."""
    if not typed:
        remarks.append("the engine does not say which image name this container was started from")
        return None
    match = _IMAGE_ID.fullmatch(typed)
    if match is None:
        return typed
    # Hex digits may be a repository's name as well: it is an ID if they begin this image's ID, or
    # are marked as one, and no tag of the image is so called.
    called = any(tag.partition(":")[0] == typed for tag in tags)
    begins = image_id is not None and image_id.encoded.startswith(match[1])
    if called or not (begins or typed.startswith("sha256:")):
        return typed
    remarks.append(f"the container was started by image ID ({shown(typed)}), so no tag is known")
    return None


def _kind(image: ImageRecord, digest: Digest) -> DigestKind:
    """Return the kind of ``digest``, by the image's own descriptor."""
    if image.target is None or image.target.digest != str(digest):
        return "unknown"
    return kind_of_media_type(image.target.media_type)


def _paired_claims(image: ImageRecord, remarks: list[str], *, obtained: bool) -> list[Claim]:
    """Return the claims of an image's ``RepoDigests``, in their order."""
    claims = []
    for text in image.repo_digests:
        pair = repository_digest(text)
        if pair is not None:
            kind = _kind(image, pair[1])
            claims.append(Claim(pair[1], kind, pair[0], "RepoDigests", "repo-digest", obtained))
        elif not text.startswith("<none>@"):
            remarks.append(f"the engine gives a repository digest that is not valid: {shown(text)}")
    return claims
