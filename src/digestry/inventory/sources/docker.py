"""Docker's engine, and whatever else speaks its API.

What an engine says about digests, and how far to believe it, differs between its two image stores:

- the classic store writes ``RepoDigests`` down at pull and push; ``Id`` is the config's digest;
- containerd's store makes ``RepoDigests`` up from the names that it has now, so that a local build
  has one; ``Id`` is the digest of an index or a manifest.

An image with a ``Descriptor``, or a container with an ``ImageManifestDescriptor`` (API 1.48), is in
containerd's store, and so is one whose ``Id`` is one of its ``RepoDigests``. Older engines with that
store show nothing of the kind for an image whose tag has moved. So an ID has no kind here, unless the
engine tells it: a registry's graph gives it one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import quote

from digestry.client.options import is_loopback
from digestry.errors import DigestryError, InvalidDigest, InvalidReference, RemoteNotFound
from digestry.inventory.engines.client import Engine, fields, items, text
from digestry.inventory.observation import (
    Claim,
    ContainerObservation,
    DigestKind,
    Observation,
    Unseen,
    now,
    repository_digest,
)
from digestry.model import media_types
from digestry.model.digest import Digest, shown
from digestry.model.platform import Platform
from digestry.model.reference import DOCKER_HUB, Reference

_CLASSIC_STORES: Final = frozenset(
    {"aufs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "vfs", "windowsfilter"}
)
"""What keeps the layers where an image's ID is its config's digest for sure: containerd's store has other
names, and some (btrfs, zfs) are of both."""
_COMPOSE_PROJECT: Final = "com.docker.compose.project"
_IMAGE_ID: Final = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)


class DockerSource:
    """The containers of one engine: those that run, or, with ``include_stopped``, all.

    ``made_up`` is True for an engine that pairs names and digests itself.
    """

    def __init__(
        self, name: str, engine: Engine, *, include_stopped: bool = False, made_up: bool = False
    ) -> None:
        self._name = name
        self._engine = engine
        self._made_up = made_up
        self._include_stopped = include_stopped

    @property
    def name(self) -> str:
        return self._name

    def observe(self) -> Iterator[Observation]:
        with contextlib.closing(self._engine):
            yield from self._observe()

    def _observe(self) -> Iterator[Observation]:
        try:
            listed = self._list()
        except DigestryError as error:
            yield Unseen(self._name, error.message, error.hint)
            return
        if not isinstance(listed, list):
            yield Unseen(self._name, f"{self._engine.url}: the list of containers is not a list")
            return
        host, platform, remark = self._describe()
        if remark is not None:
            yield remark

        def one(entry: object) -> Observation | None:
            return self._container(fields(entry), host, platform)

        with ThreadPoolExecutor(self._engine.parallel, "docker") as pool:
            gone = []
            for entry, found in zip(listed, pool.map(one, listed), strict=True):
                if found is None:
                    gone.append(fields(entry))
                else:
                    yield found
        if gone:
            yield from self._not_shown(gone, host, platform)

    def _list(self) -> Any:
        return self._engine.get("/containers/json", **({"all": "true"} if self._include_stopped else {}))

    def _not_shown(
        self, entries: list[dict[str, Any]], host: str, platform: Platform | None
    ) -> Iterator[Observation]:
        """Those of ``entries`` that are still listed, though the engine says that they are not there."""
        try:
            listed = {text(fields(entry).get("Id")) for entry in items(self._list())}
        except DigestryError as error:
            yield Unseen(self._name, error.message, error.hint)
            return
        for entry in entries:
            if text(entry.get("Id")) in listed:
                found = self._container(entry, host, platform, is_shown=False)
                if found is not None:
                    yield found

    def _describe(self) -> tuple[str, Platform | None, Unseen | None]:
        try:
            info = fields(self._engine.get("/info"))
        except DigestryError as error:
            # Rows without a host's name are still rows.
            return self._engine.url, None, Unseen(self._name, f"the host's name: {error.message}")
        platform = platform_of(info.get("Architecture"), info.get("OSType"))
        return text(info.get("Name")) or self._engine.url, platform, None

    def _container(
        self, entry: dict[str, Any], host: str, platform: Platform | None, *, is_shown: bool = True
    ) -> Observation | None:
        identity = text(entry.get("Id"))
        if not identity:
            return Unseen(self._name, f"{self._engine.url}: the list has a container without an ID")
        names = [text(name).removeprefix("/") for name in items(entry.get("Names"))]
        namespace = text(fields(entry.get("Labels")).get(_COMPOSE_PROJECT))
        remarks: list[str] = []
        detail: dict[str, Any] = {}
        image: dict[str, Any] = {}
        try:
            detail = fields(self._engine.get(f"/containers/{quote(identity, safe='')}/json"))
        except RemoteNotFound:
            if is_shown:
                return None  # it ended between the list and now, or so it seems
            remarks.append("the engine lists this container, and says that it is not there")
        except DigestryError as error:
            remarks.append(f"the engine does not show this container: {error.message}")
        detail = own_detail(identity, detail, remarks)
        image_id = image_id_of(detail, entry, remarks)
        if image_id is None:
            remarks.append("the engine gives no image ID for this container")
        else:
            try:
                image = fields(self._engine.get(f"/images/{image_id}/json"))
            except RemoteNotFound:
                remarks.append("the engine no longer has the image that this container runs")
            except DigestryError as error:
                remarks.append(f"the engine does not show this container's image: {error.message}")
        # The list's own `Image` is a bare ID as soon as the name means another image.
        typed = text(fields(detail.get("Config")).get("Image")) or text(entry.get("Image"))
        own = platform_of(image.get("Architecture"), image.get("Os"), image.get("Variant"))
        named = _parsed(typed)
        if self._engine.is_remote and named is not None and is_loopback(named.host):
            remarks.append(f"{named.host} is a registry on {host} itself; what was asked is the one here")
        return sighting(
            source=self._name,
            host=host,
            namespace=namespace,
            name=next((name for name in names if name), "") or text(detail.get("Name")).removeprefix("/"),
            identity=identity,
            typed=typed,
            image_id=image_id,
            detail=detail,
            image=image,
            platform=own or platform,
            remarks=remarks,
            made_up=self._made_up,
            platform_assumed=own is not None and not _same_machine(own, platform),
        )


def sighting(
    *,
    source: str,
    host: str,
    namespace: str,
    name: str,
    identity: str,
    typed: str,
    image_id: Digest | None,
    detail: dict[str, Any],
    image: dict[str, Any],
    platform: Platform | None,
    remarks: list[str],
    made_up: bool = False,
    platform_assumed: bool = False,
) -> ContainerObservation:
    """The sighting that an engine's ``detail`` of a container and of its ``image`` amount to.

    ``made_up`` is True for an engine that pairs names and digests itself.
    """
    child = fields(detail.get("ImageManifestDescriptor"))
    target = fields(image.get("Descriptor"))
    pairs = [repository_digest(entry) for entry in items(image.get("RepoDigests"))]
    in_containerd = bool(child or target) or any(pair is not None and pair[1] == image_id for pair in pairs)
    store = text(detail.get("Driver")) or text(fields(image.get("GraphDriver")).get("Name"))
    rewrites = in_containerd or (bool(store) and store not in _CLASSIC_STORES and not made_up)
    reference = _reference(typed, image_id, image, remarks)
    claims: list[Claim] = []
    parsed = _parsed(reference)
    if parsed is not None and parsed.digest is not None:
        # The runtime had to find this very digest to start the container.
        claims.append(
            Claim(
                parsed.digest,
                "unknown",
                parsed.repository_only(),
                "the container's name",
                "repo-digest",
                obtained=True,
            )
        )
    for entry, pair in zip(items(image.get("RepoDigests")), pairs, strict=True):
        if pair is None:
            if not text(entry).startswith("<none>@"):
                remarks.append(f"the engine gives a repository digest that is none: {shown(entry)}")
            continue
        claims.append(
            Claim(
                pair[1],
                _kind(target, pair[1]),
                pair[0],
                "RepoDigests",
                "repo-digest",
                obtained=not (made_up or in_containerd),
            )
        )
    if image_id is not None:
        claims.append(
            Claim(
                image_id,
                _kind(target, image_id),
                None,
                "the image ID",
                "image-id",
                obtained=False,
                rewritten=rewrites,
            )
        )
    named = parsed is not None and (parsed.host != DOCKER_HUB or typed.startswith(DOCKER_HUB + "/"))
    return ContainerObservation(
        source=source,
        host=host,
        namespace=namespace,
        name=name,
        id=identity,
        reference=reference,
        seen_at=now(),
        claims=tuple(dict.fromkeys(claims)),
        image_id=image_id,
        platform_manifest=digest_of(child.get("digest")),
        platform=platform,
        remarks=tuple(remarks),
        registry_named=named or any(claim.repository is not None for claim in claims),
        platform_assumed=platform_assumed,
    )


def own_detail(identity: str, detail: dict[str, Any], remarks: list[str]) -> dict[str, Any]:
    """``detail``, what an engine shows of the container ``identity``; nothing, and a remark, if it is of
    another one."""
    said = text(detail.get("Id"))
    if not said or said == identity:
        return detail
    remarks.append(f"the engine shows another container in its place: {shown(said)}")
    return {}


def image_id_of(detail: dict[str, Any], entry: dict[str, Any], remarks: list[str]) -> Digest | None:
    """The image ID of a container, which an engine shows of it, and lists with it; None, and a remark, if
    these are two."""
    of_detail, listed = digest_of(detail.get("Image")), digest_of(entry.get("ImageID"))
    if of_detail is not None and listed is not None and of_detail != listed:
        remarks.append(f"the engine lists this container with the image ID {listed}, and shows {of_detail}")
        return None
    return of_detail or listed


def _reference(typed: str, image_id: Digest | None, image: dict[str, Any], remarks: list[str]) -> str | None:
    if not typed:
        remarks.append("the engine does not say which image name this container was started from")
        return None
    match = _IMAGE_ID.fullmatch(typed)
    if match is None:
        return typed
    # Hex digits may be a repository's name as well: it is an ID if they begin this image's ID, or
    # are marked as one, and no tag of the image is so called.
    called = any(text(tag).partition(":")[0] == typed for tag in items(image.get("RepoTags")))
    begins = image_id is not None and image_id.encoded.startswith(match[1])
    if called or not (begins or typed.startswith("sha256:")):
        return typed
    remarks.append(f"the container was started by image ID ({shown(typed)}), so no tag is known")
    return None


def _parsed(reference: str | None) -> Reference | None:
    if not reference:
        return None
    try:
        return Reference.parse(reference)
    except InvalidReference:
        return None


def _same_machine(one: Platform, other: Platform | None) -> bool:
    return other is not None and (one.os, one.architecture) == (other.os, other.architecture)


def _kind(target: dict[str, Any], digest: Digest) -> DigestKind:
    if text(target.get("digest")) != str(digest):
        return "unknown"
    media_type = text(target.get("mediaType"))
    if media_type in media_types.INDEXES:
        return "index"
    return "manifest" if media_type in media_types.IMAGE_MANIFESTS else "unknown"


def digest_of(value: object) -> Digest | None:
    """A digest, with or without ``sha256:`` before it, as engines write image IDs; else None."""
    if not isinstance(value, str):
        return None
    try:
        return Digest.parse(value if ":" in value else f"sha256:{value}")
    except InvalidDigest:
        return None


def platform_of(architecture: object, system: object, variant: object = None) -> Platform | None:
    """An engine's words for a platform, in Go's or uname's names; None if they are not there."""
    parts = [text(system), text(architecture), text(variant)]
    if not parts[0] or not parts[1]:
        return None
    try:
        return Platform.parse("/".join(part for part in parts if part))
    except DigestryError:
        return None
