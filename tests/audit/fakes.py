"""Registries in memory."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from digestry.errors import DigestryError, RemoteDamaged, RemoteNotFound, TooLarge
from digestry.model import media_types
from digestry.model.age_answers import PassedOver
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import Holder, Holders, TagEvent, TagSpan
from digestry.model.image_parts import LayerImage, LayerImages, PartReferrers
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference
from digestry.model.resolution import Resolution, Resolutions, ResolveQuery, TagState
from digestry.model.sightings import SightingReport, SightingsReceipt
from tests.inventory.fakes import START

HOST = "reg.example:5000"


@dataclass
class Image:
    """What a push made."""

    manifest: Digest
    config: Digest


@dataclass
class FakeRepository:
    """One repository; what the client's would do, without a network."""

    reference: Reference
    owner: FakeRegistries
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    pointers: dict[str, Digest] = field(default_factory=dict)
    events: list[TagEvent] = field(default_factory=list)
    forgotten: set[Digest] = field(default_factory=set)
    damaged: set[Digest] = field(default_factory=set)

    # -- what a test does ---------------------------------------------------------------------

    def put(self, document: dict[str, Any] | bytes, tag: str | None = None) -> Digest:
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        manifest = Manifest.parse(raw)
        self.manifests[manifest.digest] = manifest
        if tag is not None:
            self.point(tag, manifest.digest)
        return manifest.digest

    def image(
        self, code: str, tag: str | None = None, *, squeezed: str = "gzip", below: Sequence[str] = ()
    ) -> Image:
        """An image whose config is decided by ``code`` alone, its manifest by ``squeezed`` and the layers
        ``below`` its own as well."""
        layers = [*(text.encode() for text in below), f"{code} {squeezed}".encode()]
        document: dict[str, Any] = {"architecture": "amd64", "os": "linux", "code": code}
        if below:
            document["history"] = [{"created_by": f"ADD {layer.decode()}"} for layer in layers]
        config = json.dumps(document).encode()
        self.blobs |= {Digest.of(one): one for one in (config, *layers)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": entry(media_types.OCI_CONFIG, Digest.of(config), len(config)),
            "layers": [entry(media_types.OCI_LAYER_GZIP, Digest.of(one), len(one)) for one in layers],
        }
        return Image(self.put(manifest, tag), Digest.of(config))

    def index(self, children: dict[str, Image], tag: str | None = None, note: str = "") -> Digest:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [
                entry(
                    media_types.OCI_MANIFEST,
                    child.manifest,
                    self.manifests[child.manifest].size,
                    platform=dict(zip(("os", "architecture"), platform.split("/"), strict=True)),
                )
                for platform, child in children.items()
            ],
        }
        if note:
            document["annotations"] = {"note": note}
        return self.put(document, tag)

    def point(self, tag: str, digest: Digest | None) -> None:
        before = self.pointers.pop(tag, None)
        if digest is not None:
            self.pointers[tag] = digest
        kind = "deleted" if digest is None else "created" if before is None else "moved"
        at = START + datetime.timedelta(minutes=len(self.events))
        self.events.insert(0, TagEvent(at, self.reference.repository, tag, kind, before, digest))  # type: ignore[arg-type]

    def attach(
        self, subject: Digest, layer: bytes, *, kind: str = media_types.IN_TOTO, **annotations: str
    ) -> Digest:
        """Hangs ``layer`` on ``subject`` as a foreign tool would."""
        self.blobs[Digest.of(layer)] = layer
        self.blobs[Digest.of(b"{}")] = b"{}"
        return self.put(
            {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_MANIFEST,
                "artifactType": kind,
                "config": entry(media_types.OCI_EMPTY, Digest.of(b"{}"), 2),
                "layers": [entry(kind, Digest.of(layer), len(layer))],
                "subject": entry(media_types.OCI_MANIFEST, subject, 1),
                "annotations": {"n": str(len(self.manifests)), **annotations},
            }
        )

    def send(self, referrer: Digest, sent: dict[str, str]) -> None:
        """Adds a referrer and its layers to what a bulk answer sends along."""
        manifest = self.manifests[referrer]
        sent[str(referrer)] = manifest.raw.decode()
        for layer in manifest.layers:
            with contextlib.suppress(UnicodeDecodeError):
                sent[str(layer.digest)] = self.blobs[layer.digest].decode()

    # -- what the client does -----------------------------------------------------------------

    def _asked(self, what: str, key: object = "") -> None:
        self.owner.asked[what, self.reference.name, str(key)] += 1
        self.owner.trouble(self.reference, what)

    def resolve(self, target: str) -> Descriptor:
        self._asked("resolve", target)
        return self._find(target).descriptor()

    def pull_manifest(self, target: str) -> Manifest:
        self._asked("manifest", target)
        return self._find(target)

    def _find(self, target: str) -> Manifest:
        digest = Digest.parse(target) if ":" in target else self.pointers.get(target)
        if digest is None or digest not in self.manifests or digest in self.forgotten:
            raise RemoteNotFound(f"{self.reference.name} has no {target}", status=404)
        if digest in self.damaged:
            raise RemoteDamaged(f"{target} is damaged in {self.reference.name}", status=404)
        return self.manifests[digest]

    def read_blob(self, descriptor: Descriptor, *, limit: int = 32 << 20) -> bytes:
        self._asked("blob", descriptor.digest)
        if descriptor.size > limit:
            raise TooLarge("too large", limit=limit)
        return self.blobs[descriptor.digest]

    def push_blob(self, descriptor: Descriptor, source: Callable[[], BinaryIO]) -> None:
        content = source().read()
        assert Digest.of(content) == descriptor.digest
        assert len(content) == descriptor.size
        self.blobs[descriptor.digest] = content

    def push_manifest(self, raw: bytes, media_type: str, *, tags: Sequence[str] = ()) -> Digest:
        assert Manifest.parse(raw).media_type == media_type
        return self.put(raw, *tags)

    def tags(self) -> Iterator[str]:
        self._asked("tags")
        return iter(sorted(self.pointers))

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        self._asked("referrers", digest)
        return [
            Descriptor(
                one.media_type,
                one.digest,
                one.size,
                annotations=one.annotations,
                artifact_type=one.artifact_type,
            )
            for one in self.manifests.values()
            if one.subject is not None and one.subject.digest == digest
        ]

    def tag_history(self, tag: str) -> list[TagEvent] | None:
        self._asked("history", tag)
        return [event for event in self.events if event.tag == tag] if self.owner.remembers else None

    def tags_for_digest(self, digest: Digest, limit: int | None = None) -> list[TagSpan] | None:
        self._asked("whose", digest)
        if not self.owner.remembers:
            return None
        quiet = replace(self, owner=FakeRegistries())
        held = quiet.holders(digest)
        assert held is not None
        digests = {digest, *(one.digest for one in held.holders)}
        return [
            TagSpan(event.tag, event.to_digest, event.at, until is None, until)
            for place, event in enumerate(self.events)
            for until in [next((one.at for one in self.events[:place][::-1] if one.tag == event.tag), None)]
            if event.to_digest in digests
        ][:limit]

    def images_with_layer(self, layer: Digest, *, limit: int = 100) -> LayerImages | None:
        self._asked("layers", layer)
        if not self.owner.remembers:
            return None
        with contextlib.suppress(ValueError):
            return LayerImages(layer, (_smallest([self], layer),))
        return LayerImages(layer, ())

    def holders(self, digest: Digest) -> Holders | None:
        self._asked("holders", digest)
        if not self.owner.remembers:
            return None
        found: dict[Digest, Manifest] = {}
        grew = True
        while grew:
            grew = False
            for one in self.manifests.values():
                holds = one.digest == digest or (one.config is not None and one.config.digest == digest)
                holds = holds or any(child.digest in found for child in one.manifests)
                if holds and one.digest not in found:
                    found[one.digest] = one
                    grew = True
        return Holders(
            digest,
            tuple(
                Holder(
                    one.digest,
                    one.media_type,
                    one.size,
                    one.digest not in self.forgotten,
                    None if one.config is None else one.config.digest,
                    tuple(child.digest for child in one.manifests),
                )
                for one in found.values()
            ),
        )


def _no_trouble(reference: Reference, what: str) -> None:
    """The network as one would like it."""


class FakeRegistries:
    """Every registry there is. ``remembers``: whether they keep history and know who holds what.
    ``bulk``: whether they answer many questions at once. ``trouble`` is called before each answer,
    and may raise or sleep. ``asked`` counts; ``recorded`` is what they were told of what runs."""

    def __init__(self, *, remembers: bool = True, bulk: bool = False) -> None:
        self.remembers = remembers
        self.bulk = bulk
        self.trouble: Callable[[Reference, str], None] = _no_trouble
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.recorded: list[tuple[str, SightingReport]] = []
        self.outdated: dict[tuple[str, str], str] = {}
        """What a mirror says of tags, and of the referrers of digests, that it could not look at."""
        self.accounts: set[str] = set()
        """The hosts that ask who asks."""
        self._repositories: dict[str, FakeRepository] = {}
        self._lock = threading.Lock()

    def repository(self, reference: Reference) -> FakeRepository:
        with self._lock:
            name = reference.name
            if name not in self._repositories:
                self._repositories[name] = FakeRepository(reference.repository_only(), self)
            return self._repositories[name]

    def resolve_many(
        self, host: str, queries: Sequence[ResolveQuery], *, contents: bool = False
    ) -> Resolutions | None:
        """As a digestry registry: what was asked, its children, and their configs."""
        if not self.bulk:
            return None
        with self._lock:
            self.asked["many", host, str(sorted(query.repository for query in queries))] += 1
        self.trouble(Reference(host, "library/any"), "many")
        sent: dict[str, str] = {}
        quiet = FakeRegistries(remembers=self.remembers)
        quiet.copy(self)
        answers = []
        for query in queries:
            known = self.repository(Reference(host, query.repository))
            answers.append(_resolution(replace(known, owner=quiet), query, sent))
        return Resolutions(tuple(answers), sent if contents else {})

    def copy(self, other: FakeRegistries) -> None:
        """Has the repositories of ``other``, and counts for itself."""
        with other._lock:
            self._repositories = {name: replace(one, owner=self) for name, one in other._repositories.items()}

    def repositories_of(self, host: str) -> list[FakeRepository]:
        with self._lock:
            return [one for one in self._repositories.values() if one.reference.host == host]

    def staleness(self, repository: Reference, target: str) -> str:
        return self.outdated.get((repository.name, target), "")

    def passed_over(self, repository: Reference, tag: str) -> PassedOver | None:
        return None

    def head_get_mismatch(self, repository: Reference, tag: str) -> str:
        return ""

    def authenticated(self, host: str) -> bool:
        return host in self.accounts

    def record_sightings(self, host: str, sightings: Sequence[SightingReport]) -> SightingsReceipt | None:
        """As a digestry registry that knows all of it."""
        with self._lock:
            self.asked["record", host, ""] += 1
        self.trouble(Reference(host, "library/any"), "record")
        if not self.remembers:
            return None
        self.recorded += [(host, one) for one in sightings]
        return SightingsReceipt(len(sightings))

    def at(self, name: str) -> FakeRepository:
        return self.repository(Reference.parse(name))

    def fail(self, host: str, error: DigestryError, *, only: str = "") -> None:
        def trouble(reference: Reference, what: str) -> None:
            if reference.host == host and only in {"", what}:
                raise error

        self.trouble = trouble


def _resolution(known: FakeRepository, query: ResolveQuery, sent: dict[str, str]) -> Resolution:
    every = set(known.manifests) | {one.config.digest for one in known.manifests.values() if one.config}
    beginning = {
        prefix: tuple(sorted(one for one in every if one.encoded.startswith(prefix)))
        for prefix in query.prefixes
    }
    targets = {tag: known.manifests[known.pointers[tag]] for tag in query.tags if tag in known.pointers}
    pending = [*query.digests, *(one.digest for one in targets.values())]
    pending += [digest for digests in beginning.values() for digest in digests]
    nodes: dict[Digest, Holder] = {}
    holding: dict[str, tuple[Digest, ...]] = {}
    for digest in pending:
        found = known.holders(digest)
        assert found is not None
        holding[str(digest)] = tuple(holder.digest for holder in found.holders)
        nodes |= {holder.digest: holder for holder in found.holders}
        manifest = known.manifests.get(digest)
        further = [child.digest for child in manifest.manifests] if manifest else []
        further += [manifest.config.digest] if manifest and manifest.config else []
        pending += [one for one in further if one not in pending]
    attached = {digest: known.referrers(digest) for digest in {*nodes, *pending}}
    for referrer in (one for some in attached.values() for one in some):
        known.send(referrer.digest, sent)
    for node in nodes.values():
        if node.config is None and node.digest not in known.forgotten:
            sent[str(node.digest)] = known.manifests[node.digest].raw.decode()
    return Resolution(
        query.repository,
        tuple(nodes.values()),
        holding,
        tuple(
            TagState(
                tag,
                targets[tag].descriptor() if tag in targets else None,
                tuple(event for event in known.events if event.tag == tag),
            )
            for tag in query.tags
        ),
        {str(digest): tuple(some) for digest, some in attached.items()},
        beginning,
        {
            str(one): tuple(span for span in known.tags_for_digest(one) or () if span.digest == one)
            for one in nodes
        },
        *_parts(known, nodes.values(), sent),
    )


def entry(media_type: str, digest: Digest, size: int, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size, **more}


def _parts(
    known: FakeRepository, nodes: Iterable[Holder], sent: dict[str, str]
) -> tuple[dict[str, tuple[Digest, ...]], tuple[PartReferrers, ...], dict[str, LayerImage]]:
    """The layers and configs of the images that something in any repository of the registry refers to, what
    that is, and the smallest images."""
    every = known.owner.repositories_of(known.reference.host)
    parts: dict[str, tuple[Digest, ...]] = {}
    referrers: dict[tuple[Digest, str], PartReferrers] = {}
    bases: dict[str, LayerImage] = {}
    for node in nodes:
        if node.config is None:
            continue
        image = known.manifests[node.digest]
        mine = []
        for part in dict.fromkeys([*(layer.digest for layer in image.layers), node.config]):
            for there in every:
                found = tuple(there.referrers(part))
                if found:
                    mine.append(part)
                    name = there.reference.repository
                    referrers[part, name] = PartReferrers(part, name, found)
                    for one in found:
                        there.send(one.digest, sent)
            if part in mine and part != node.config:
                bases[str(part)] = _smallest(every, part)
        parts[str(node.digest)] = tuple(dict.fromkeys(mine))
    return parts, tuple(referrers.values()), bases


def _smallest(every: Iterable[FakeRepository], layer: Digest) -> LayerImage:
    images = [
        (len(image.layers), there, image)
        for there in every
        for image in there.manifests.values()
        if layer in {one.digest for one in image.layers} and image.subject is None
    ]
    number, there, image = min(images, key=lambda found: found[0])
    tag = next((event.tag for event in there.events if event.to_digest == image.digest), "")
    return LayerImage(
        there.reference.repository, image.digest, image.media_type, image.size, number, tag=tag,
        tag_digest=image.digest if tag else None,
    )  # fmt: skip
