"""The kubelet's ``imageID``, which each runtime fills in differently.

- dockershim and cri-dockerd: ``docker-pullable://repository@digest``, or ``docker://sha256:…``;
- containerd: the first, in sorted order, of the pulled ``repository@digest`` that have the
  container's config: maybe of another repository than the container's, and never made up; for an
  image that was imported, the bare digest of the config;
- CRI-O: a repository and a digest, each of which the image has, but which need never have belonged
  together; or the bare ID.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from digestry.inventory.engine_values import digest_of, has_registry, repository_digest
from digestry.inventory.observation import Claim, DigestKind
from digestry.model.digest import Digest, shown
from digestry.model.reference import Reference

NO_REGISTRY: Final = "localhost/… without a port means built or loaded locally, in no registry"
"""Podman's, buildah's and CRI-O's name for such images."""
NO_HOST: Final = "localhost"

_PULLABLE: Final = "docker-pullable://"
_DOCKER: Final = "docker://"
_BARE: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}", re.ASCII)
_SHORT: Final = re.compile(r"(?:sha256:)?[0-9a-f]{4,63}", re.ASCII)
_IMPORTED: Final = re.compile(r"import-\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageID:
    """The parsed ``imageID``: ``claims``, the bare ID if it was one, and remarks about it."""

    claims: tuple[Claim, ...] = ()
    image_id: Digest | None = None
    remarks: tuple[str, ...] = ()


def read_image_id(text: str, *, runtime: str, own: Reference | None, field: str = "imageID") -> ImageID:
    """Read ``text``, the ``imageID`` of a container of ``runtime`` (``containerd``, ``cri-o`` …).

    ``own`` is the repository that the container was started from, if it is known. Never raises: an unreadable
    text is a remark.
    """
    if not text:
        return ImageID(remarks=(f"the kubelet gives no {field} for it",))
    if text.startswith(_PULLABLE):
        return _pair(text.removeprefix(_PULLABLE), text, "docker", own, field)
    if text.startswith(_DOCKER):
        # With containerd's store below it, Docker's ID is no config's: the kind is not certain.
        return _bare(text.removeprefix(_DOCKER), text, "unknown", field)
    if "@" in text:
        return _pair(text, text, runtime, own, field)
    # CRI-O's ID is a config's too, unless the image was pulled in parts (zstd:chunked).
    return _bare(text, text, "config" if runtime == "containerd" else "unknown", field)


def _bare(text: str, whole: str, kind: DigestKind, field: str) -> ImageID:
    digest = digest_of(text) if _BARE.fullmatch(text) else None
    if digest is not None:
        claim = Claim(digest, kind, None, field, "image-id", obtained=False)
        return ImageID((claim,), digest)
    if _SHORT.fullmatch(text):
        return ImageID(remarks=(f"its {field} is a shortened ID, which identifies nothing: {shown(whole)}",))
    return ImageID(remarks=(f"its {field} is in no known form: {shown(whole)}",))


def _pair(text: str, whole: str, runtime: str, own: Reference | None, field: str) -> ImageID:
    name, _, digest_text = text.rpartition("@")
    digest = digest_of(digest_text) if ":" in digest_text else None
    if digest is None:
        return ImageID(remarks=(f"its {field} is in no known form: {shown(whole)}",))
    pair = repository_digest(text)
    if pair is not None and pair[0].host == NO_HOST:
        claim = Claim(digest, "unknown", None, field, "repo-digest", obtained=False)
        claims = [claim] if own is None else [claim, replace(claim, repository=own)]
        return ImageID(tuple(claims), remarks=(f"its {field} names {shown(name)}: {NO_REGISTRY}",))
    imported = _IMPORTED.fullmatch(name.rpartition("/")[2]) is not None
    if pair is None or imported or (runtime == "containerd" and not has_registry(name)):
        # containerd writes whole names down when it pulls; `import-2026-11-21@sha256:…` (in docker.io/
        # library/, for the kubelet) is its own invention for an archive, and `<none>` is Docker's.
        origin = "an import" if imported else "which is not a repository"
        claim = Claim(digest, "unknown", None, field, "repo-digest", obtained=False)
        return ImageID((claim,), remarks=(f"its {field} names {shown(name)}, {origin}",))
    obtained = runtime in {"containerd", "docker"}
    claims = [Claim(digest, "unknown", pair[0], field, "repo-digest", obtained)]
    if own is not None and own != pair[0]:
        # The digest may still be of the container's own repository.
        claims.append(Claim(digest, "unknown", own, field, "repo-digest", obtained=False))
    return ImageID(tuple(claims))
