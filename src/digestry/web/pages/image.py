"""A digest: an index, an image with its layers and their history, or a blob, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.catalog.browsing import DigestDetails
from digestry.catalog.image_details import ManifestDetails, User
from digestry.catalog.manifest_rows import StoredManifest
from digestry.catalog.running_images import RunningPlace
from digestry.errors import NotFound
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import TagSpan
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image, Index
from digestry.web import advisories, documents
from digestry.web.advisories import Attached
from digestry.web.page import Page
from digestry.web.visit import Visit

_MOST: Final = 200
_SPANS: Final = 50
_PLACES: Final = 50
_LONGEST: Final = 4000
_LONGEST_VERSION: Final = 100


@dataclass(frozen=True, slots=True)
class Child:
    """An entry of an index. ``size`` is that of its config and layers in bytes, None if the repository does
    not have it. ``version`` is the system's, as images for Windows have it."""

    digest: Digest
    platform: str
    attests: bool
    size: int | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an image's build, with the layer that it made, if it made one."""

    command: str
    created: str
    layer: Descriptor | None


@dataclass(frozen=True, slots=True)
class ImageView:
    """What the page of a digest shows. ``kind`` is index, image, artifact, layer, config or blob; ``config``
    is the image's config. ``pull`` is the command that pulls it, empty if it cannot be pulled. ``places`` are
    where it runs or ran; None for visitors who may not know. ``more_elsewhere``: other repositories have more
    advisories on its layers than are looked at."""

    name: str
    digest: Digest
    kind: str
    manifest: ManifestDetails | None
    size: int | None
    annotations: Mapping[str, str]
    children: tuple[Child, ...]
    config: ImageConfig | None
    settings: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    layers_size: int
    spans: tuple[TagSpan, ...]
    users: tuple[User, ...]
    referrers: tuple[StoredManifest, ...]
    attached: Attached
    more_elsewhere: bool
    places: tuple[RunningPlace, ...] | None
    pull: str


def show(visit: Visit) -> Page:
    """Show all that the repository knows about a digest. Raises :class:`NotFound`, :class:`InvalidDigest`."""
    name = visit.repository()
    digest = Digest.parse(visit.path["digest"])
    audits = visit.visitor.audits(name)
    details = visit.catalog.browsing.digest(name, str(digest), limit=_MOST, visible=visit.visitor.may_see)
    if details.manifest is None and details.blob is None and not details.users:
        raise NotFound(f"repository {name} never had {digest}")
    spans = tuple(visit.catalog.tag_history.tags_for_digest(name, digest, limit=_SPANS))
    places = None
    if audits:
        now = visit.host.now()
        places = tuple(visit.catalog.browsing.places(name, str(digest), now=now, limit=_PLACES))
    view = _view(visit, name, digest, details, spans=spans, places=places)
    return Page("image.html", f"{name}@{str(digest)[:19]}", view, section="/")


def _view(
    visit: Visit,
    name: str,
    digest: Digest,
    details: DigestDetails,
    *,
    spans: tuple[TagSpan, ...],
    places: tuple[RunningPlace, ...] | None,
) -> ImageView:
    manifest = details.manifest
    there = manifest is not None and manifest.deleted_at is None and not manifest.damaged
    parsed = None
    if manifest is not None and there:
        parsed = documents.read_manifest(visit.host, digest, manifest.media_type, manifest.size)
    config = documents.read_config(visit.host, parsed) if isinstance(parsed, Image) else None
    tag = next((span.tag for span in spans if span.still and span.digest == digest), "")
    layers = parsed.layers if isinstance(parsed, Image) else ()
    mine = tuple(referrer for referrer in details.referrers if referrer.subject == digest)
    return ImageView(
        name=name,
        digest=digest,
        kind=_kind(manifest, parsed, config) if manifest is not None else _part(details),
        manifest=manifest,
        size=details.images.sizes.get(str(digest)) if manifest is not None else details.blob,
        annotations={} if parsed is None else parsed.annotations,
        children=_children(parsed, details) if isinstance(parsed, Index) else (),
        config=config,
        settings=() if config is None else tuple(_settings(config)),
        steps=_steps(config, layers),
        layers_size=sum(layer.size for layer in layers),
        spans=spans,
        users=details.users,
        referrers=mine,
        attached=advisories.read_attached(
            visit.host,
            name,
            details.referrers,
            details.elsewhere.rows,
            digest=digest,
            whole=_whole(digest, details),
        ),
        more_elsewhere=details.elsewhere.more,
        places=places,
        pull=f"docker pull {visit.registry}/{name}{':' if tag else ''}{tag}@{digest}" if there else "",
    )


def _whole(digest: Digest, details: DigestDetails) -> frozenset[Digest]:
    """Return the digests of an image, its config included, and of the indexes that list it."""
    names = [str(digest), *(user.digest for user in details.users if user.role == "manifest")]
    if details.manifest is not None and details.manifest.config is not None:
        names.append(details.manifest.config)
    return frozenset(map(Digest.parse, names))


def _part(details: DigestDetails) -> str:
    roles = {user.role for user in details.users}
    return roles.pop() if roles in ({"layer"}, {"config"}) else "blob"


def _kind(manifest: ManifestDetails, parsed: Image | Index | None, config: ImageConfig | None) -> str:
    if isinstance(parsed, Index) or (parsed is None and manifest.config is None):
        return "index"
    return "image" if config is not None or parsed is None else "artifact"


def _children(index: Index, details: DigestDetails) -> tuple[Child, ...]:
    sizes = details.images.sizes
    return tuple(
        Child(
            entry.digest,
            str(entry.platform) if entry.platform is not None and entry.platform.is_stated else "",
            entry.platform is not None and entry.platform.is_unknown,
            sizes.get(str(entry.digest)),
            "" if entry.platform is None else (entry.platform.os_version or "")[:_LONGEST_VERSION],
        )
        for entry in index.manifests[:_MOST]
    )


def _settings(config: ImageConfig) -> list[tuple[str, str]]:
    """Return the settings that a container of the image starts with, as one line each."""
    found = []
    for key, words in (
        ("Entrypoint", "Entry point"),
        ("Cmd", "Command"),
        ("WorkingDir", "Directory"),
        ("User", "User"),
        ("ExposedPorts", "Ports"),
        ("Volumes", "Volumes"),
        ("Env", "Environment"),
        ("Labels", "Labels"),
    ):
        value = config.settings.get(key)
        if isinstance(value, dict):
            lines = [f"{name}={text}" if isinstance(text, str) else str(name) for name, text in value.items()]
        elif isinstance(value, list):
            lines = [str(item) for item in value]
        else:
            lines = [value] if isinstance(value, str) else []
        separator = "\n" if key in {"Env", "Labels"} else " "
        text = separator.join(lines)[:_LONGEST]
        if text:
            found.append((words, text))
    return found


def _steps(config: ImageConfig | None, layers: Sequence[Descriptor]) -> tuple[Step, ...]:
    """Return the steps of the build with their layers; the layers alone if the history does not fit them."""
    history = () if config is None else config.history
    if sum(not step.empty_layer for step in history) != len(layers):
        return tuple(Step("", "", layer) for layer in layers)
    left = iter(layers)
    return tuple(
        Step(
            (step.created_by or step.comment or "")[:_LONGEST],
            (step.created or "")[:10],
            None if step.empty_layer else next(left),
        )
        for step in history
    )
