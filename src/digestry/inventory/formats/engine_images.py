"""The image of a container, as the engines of docker and podman show it.

What an engine says about digests, and how far to believe it, differs between its two image stores:

- the classic store writes ``RepoDigests`` down at pull and push; ``Id`` is the config's digest;
- containerd's store makes ``RepoDigests`` up from the names that it has now, so that a local build
  has one; ``Id`` is the digest of an index or a manifest.

An image with a ``Descriptor``, or a container with an ``ImageManifestDescriptor`` (API 1.48), is in
containerd's store, and so is one whose ``Id`` is one of its ``RepoDigests``. Older engines with that
store show nothing of the kind for an image whose tag has moved. So an ID has no kind here, unless the
engine tells it: a registry's graph gives it one.

Podman pairs every name of an image with every digest that it had, so that many ``RepoDigests``
never were in any registry, and an image that lost its name has none at all. Its containers'
``ImageDigest``, which only its own API and its program show, survives both.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from digestry.inventory.engine_values import digest_of, kind_of_media_type, reference_of, repository_digest
from digestry.inventory.observation import Claim, DigestKind, ImageFacts, pinned_claim
from digestry.model.digest import Digest, shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.platform import Platform
from digestry.model.reference import DOCKER_HUB

_CLASSIC_STORES: Final = frozenset(
    {"aufs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "vfs", "windowsfilter"}
)
"""What keeps the layers where an image's ID is its config's digest for sure: containerd's store has other
names, and some (btrfs, zfs) are of both."""
_IMAGE_ID: Final = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)
_LOCAL_HOST: Final = "localhost"


def shown_image(
    *,
    typed: str,
    image_id: Digest | None,
    detail: JsonObject,
    image: JsonObject,
    platform: Platform | None,
    remarks: list[str],
    made_up: bool = False,
    platform_assumed: bool = False,
) -> ImageFacts:
    """Return what an engine's ``detail`` of a container and of its ``image`` say of the image that runs.

    ``made_up`` is True for an engine that pairs names and digests itself. What is odd is added to
    ``remarks``.
    """
    child = as_object(detail.get("ImageManifestDescriptor"))
    target = as_object(image.get("Descriptor"))
    reference = _typed_reference(typed, image_id, image, remarks)
    parsed = reference_of(reference)
    claims: list[Claim] = []
    pinned = pinned_claim(parsed, "the container's name")
    if pinned is not None:
        claims.append(pinned)
    pairs = [repository_digest(entry) for entry in as_list(image.get("RepoDigests"))]
    in_containerd = bool(child or target) or any(pair is not None and pair[1] == image_id for pair in pairs)
    claims += _paired_claims(image, target, remarks, obtained=not (made_up or in_containerd))
    if image_id is not None:
        store = as_text(detail.get("Driver")) or as_text(as_object(image.get("GraphDriver")).get("Name"))
        claims.append(
            Claim(
                image_id,
                _kind(target, image_id),
                None,
                "the image ID",
                "image-id",
                obtained=False,
                rewritten=in_containerd or (bool(store) and store not in _CLASSIC_STORES and not made_up),
            )
        )
    named = parsed is not None and (parsed.host != DOCKER_HUB or typed.startswith(DOCKER_HUB + "/"))
    return ImageFacts(
        reference=reference,
        claims=tuple(dict.fromkeys(claims)),
        image_id=image_id,
        platform_manifest=digest_of(child.get("digest")),
        platform=platform,
        platform_assumed=platform_assumed,
        registry_named=named or any(claim.repository is not None for claim in claims),
    )


def with_podman_digest(image: ImageFacts, value: object, remarks: list[str]) -> ImageFacts:
    """Return ``image`` with what podman's ``ImageDigest`` of its container adds to it, and takes away."""
    digest = digest_of(value)
    claims = list(image.claims)
    if digest is not None:
        # It names no repository, and may be the image's digest or its list's. The more exact
        # pairs with a repository come first; the image ID stays the last resort.
        claim = Claim(digest, "unknown", None, "the container's ImageDigest", "repo-digest", obtained=False)
        claims.insert(max(len(claims) - 1, 0), claim)
    elif value:
        remarks.append(f"podman gives an image digest that is none: {shown(value)}")
    local = (image.reference or "").startswith(f"{_LOCAL_HOST}/")
    if local:
        # Podman's way to name what no registry has: "localhost" without a port.
        remarks.append("podman's name localhost/… means built or loaded locally, in no registry")
        claims = [
            claim for claim in claims if claim.repository is None or claim.repository.host != _LOCAL_HOST
        ]
    return replace(image, claims=tuple(claims), registry_named=image.registry_named and not local)


def own_detail(identity: str, detail: JsonObject, remarks: list[str]) -> JsonObject:
    """``detail``, what an engine shows of the container ``identity``; nothing, and a remark, if it is of
    another one."""
    said = as_text(detail.get("Id"))
    if not said or said == identity:
        return detail
    remarks.append(f"the engine shows another container in its place: {shown(said)}")
    return {}


def image_id_of(detail: JsonObject, entry: JsonObject, remarks: list[str]) -> Digest | None:
    """The image ID of a container, which an engine shows of it, and lists with it; None, and a remark, if
    these are two."""
    of_detail, listed = digest_of(detail.get("Image")), digest_of(entry.get("ImageID"))
    if of_detail is not None and listed is not None and of_detail != listed:
        remarks.append(f"the engine lists this container with the image ID {listed}, and shows {of_detail}")
        return None
    return of_detail or listed


def _typed_reference(
    typed: str, image_id: Digest | None, image: JsonObject, remarks: list[str]
) -> str | None:
    if not typed:
        remarks.append("the engine does not say which image name this container was started from")
        return None
    match = _IMAGE_ID.fullmatch(typed)
    if match is None:
        return typed
    # Hex digits may be a repository's name as well: it is an ID if they begin this image's ID, or
    # are marked as one, and no tag of the image is so called.
    called = any(as_text(tag).partition(":")[0] == typed for tag in as_list(image.get("RepoTags")))
    begins = image_id is not None and image_id.encoded.startswith(match[1])
    if called or not (begins or typed.startswith("sha256:")):
        return typed
    remarks.append(f"the container was started by image ID ({shown(typed)}), so no tag is known")
    return None


def _kind(target: JsonObject, digest: Digest) -> DigestKind:
    if as_text(target.get("digest")) != str(digest):
        return "unknown"
    return kind_of_media_type(as_text(target.get("mediaType")))


def _paired_claims(
    image: JsonObject, target: JsonObject, remarks: list[str], *, obtained: bool
) -> list[Claim]:
    """Return the claims of an image's ``RepoDigests``, in their order."""
    claims = []
    for entry in as_list(image.get("RepoDigests")):
        pair = repository_digest(entry)
        if pair is not None:
            kind = _kind(target, pair[1])
            claims.append(Claim(pair[1], kind, pair[0], "RepoDigests", "repo-digest", obtained))
        elif not as_text(entry).startswith("<none>@"):
            remarks.append(f"the engine gives a repository digest that is none: {shown(entry)}")
    return claims
