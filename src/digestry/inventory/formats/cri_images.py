"""The image fields of a CRI container, from the API or from a file.

containerd's ListContainers gives the digest of the image's config, its ContainerStatus a
``repository@digest``; CRI-O gives pairs that need never have been, or a bare ID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from digestry.inventory.engine_values import digest_of, reference_of
from digestry.inventory.formats.image_ids import read_image_id
from digestry.inventory.observation import Claim, DigestKind, ImageFacts, pinned_claim
from digestry.model.digest import Digest
from digestry.model.platform import Platform

CONTAINERD: Final = "containerd"
CRI_O: Final = "cri-o"

_CHOSEN: Final = (
    "is one name that the runtime knows it by: which one it was started by, and so its tag, is not known"
)
_NO_NAME: Final = "the runtime does not say which image name this container was started from"
_IN_IMAGES: Final = "repoDigests"


@dataclass(frozen=True, slots=True)
class CriImage:
    """An image of a CRI runtime, with the remarks about it."""

    facts: ImageFacts
    remarks: tuple[str, ...]


def read_cri_image(
    typed: str,
    shown: str,
    *remarks: str,
    image_ref: str = "",
    image_id: str = "",
    runtime: str = "",
    platform: Platform | None = None,
    repo_digests: Callable[[Digest], tuple[str, ...]] = lambda _: (),
) -> CriImage:
    """Return the image of a container of a CRI runtime, by its ``imageRef`` and ``imageId``.

    ``typed`` is the name that it was started by, ``shown`` the one that the runtime shows, each ""
    if there is none; ``runtime`` is "" if it is not known. ``repo_digests`` returns the pairs
    that the runtime lists for an image ID.
    """
    notes = list(remarks)
    if not typed:
        # A name that the runtime chose of several is no tag to be judged by.
        is_name = shown and digest_of(shown) is None and not shown.startswith("sha256:")
        notes.append(f"{shown} {_CHOSEN}" if is_name else _NO_NAME)
    name = reference_of(typed)
    own = None if name is None else name.repository_only()
    claims: list[Claim] = []
    identity = digest_of(image_id) or digest_of(shown)
    if image_ref:
        read = read_image_id(image_ref, runtime=runtime, own=own, field="imageRef")
        claims += read.claims
        notes += read.remarks
        identity = read.image_id or identity
    elif identity is None:
        notes.append("only the image's name is in it, which may have moved since")
    if identity is not None:
        given = any(claim.digest == identity for claim in claims)
        for pair in repo_digests(identity):
            claims += read_image_id(pair, runtime=runtime, own=None, field=_IN_IMAGES).claims
        if not given:
            kind: DigestKind = "config" if runtime == CONTAINERD else "unknown"
            claims.append(Claim(identity, kind, None, "the image ID", "image-id", obtained=False))
    pinned = pinned_claim(name, "the container's image name")
    if pinned is not None:
        claims.append(pinned)
    # Pairs of repository and digest before the bare ID, which is the last resort.
    ordered = sorted(dict.fromkeys(claims), key=lambda candidate: candidate.found_by == "image-id")
    facts = ImageFacts(typed or None, tuple(ordered), identity, platform=platform)
    return CriImage(facts, tuple(dict.fromkeys(notes)))
