"""The advisories on layers and configs, which affect every image that has these.

A digestry registry lists the layers and configs with referrers in its bulk answers, those in other
repositories too. Any other registry is asked about each layer, in the image's own repository.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from digestry.advisories.advisory import AdvisoryReading, ImagePart
from digestry.advisories.attachments import read_advisories
from digestry.advisories.statements import GOOD
from digestry.audit.referred_parts import ReferredPart
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference

MOST_QUESTIONS: Final = 1000
"""Layers and configs that a registry without bulk answers is asked about, each in one repository."""
_LARGEST_CONFIG: Final = 4 << 20
_LONGEST_STEP: Final = 300


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a repository."""

    repository: Reference
    digest: Digest


class PartAdvisories:
    """Reads the advisories on the layers and configs of images, each once for all images. Thread-safe."""

    def __init__(self, queries: RegistryQueries) -> None:
        self._queries = queries
        self._lock = threading.Lock()
        self._readings: dict[tuple[Reference, Digest], AdvisoryReading] = {}
        self._manifests: dict[Digest, Manifest] = {}
        self._steps: dict[tuple[str, Digest], str] = {}
        self._asked: Counter[str] = Counter()

    def read(self, repository: Reference, images: Iterable[Digest]) -> AdvisoryReading:
        """Return the advisories on the parts of ``images``, manifests of ``repository``. Errors are
        reasons."""
        result = AdvisoryReading()
        seen: set[tuple[Reference, Digest]] = set()
        for digest in sorted(images):
            image = _Image(repository, digest)
            try:
                parts = list(self._parts(image, result))
            except DigestryError as error:
                result.miss(repository, f"the layers of {digest} could not be looked at: {error.message}")
                continue
            for part in parts:
                for where in part.repositories:
                    if (where, part.digest) not in seen:
                        seen.add((where, part.digest))
                        result.add(self._reading(where, part, image))
        return result

    def _parts(self, image: _Image, result: AdvisoryReading) -> Iterator[ReferredPart]:
        """Yield the parts of ``image`` that may have advisories, with the repositories to be read."""
        found = self._queries.referred_parts(image.repository, image.digest)
        if found is not None:
            yield from found.parts
            if found.everywhere:
                return
        manifest = self._manifest(image)
        if manifest is None or not _is_image(manifest):
            return
        here = (image.repository,)
        own = [ReferredPart(layer, "layer", here) for layer in dict.fromkeys(_layers(manifest))]
        if manifest.config is not None:
            own.append(ReferredPart(manifest.config.digest, "config", here))
        for number, part in enumerate(own):
            if not self._may_ask(image.repository, part.digest):
                result.miss(
                    image.repository,
                    f"{image.repository.host} was asked about {MOST_QUESTIONS} layers: whether anything is"
                    f" stated about {len(own) - number} parts of {image.digest} is not known",
                )
                return
            yield part

    def _manifest(self, image: _Image) -> Manifest | None:
        """Return the manifest of ``image``, from the first repository that had it."""
        with self._lock:
            known = self._manifests.get(image.digest)
        if known is None:
            known = self._queries.manifest(image.repository, image.digest)
            if known is not None:
                with self._lock:
                    self._manifests[image.digest] = known
        return known

    def _may_ask(self, repository: Reference, part: Digest) -> bool:
        """Return whether one more part may be asked about, and count it."""
        with self._lock:
            if (repository, part) in self._readings:
                return True
            self._asked[repository.host] += 1
            return self._asked[repository.host] <= MOST_QUESTIONS

    def _reading(self, where: Reference, part: ReferredPart, image: _Image) -> AdvisoryReading:
        """Return the advisories on ``part`` in the repository ``where``."""
        key = where, part.digest
        with self._lock:
            known = self._readings.get(key)
        if known is None:
            known = read_advisories(self._queries, where, [part.digest], tags=False)
            if any(advisory.statement.status not in GOOD for advisory in known.advisories):
                made_by = self._step(part, image) if part.kind == "layer" else ""
                about = ImagePart(part.kind, part.digest, part.base, made_by)
            else:
                about = ImagePart(part.kind, part.digest)
            known.advisories = [replace(advisory, part=about) for advisory in known.advisories]
            known.reasons = [f"on the {part.kind} {part.digest}: {reason}" for reason in known.reasons]
            with self._lock:
                self._readings[key] = known
        if part.kind == "config" and where == image.repository:
            # The config is the image's code: what its own repository states is about the image.
            return replace(known, advisories=[replace(one, part=None) for one in known.advisories])
        return known

    def _step(self, part: ReferredPart, image: _Image) -> str:
        """Return the step of a build that made a layer, by the config of an image with it; empty if that is
        not known."""
        key = image.repository.host, part.digest
        with self._lock:
            known = self._steps.get(key)
        if known is None:
            try:
                known = self._read_step(part.digest, image)
            except DigestryError:
                known = ""
            with self._lock:
                self._steps[key] = known
        return known

    def _read_step(self, layer: Digest, image: _Image) -> str:
        manifest = self._manifest(image)
        return "" if manifest is None else _step(self._queries, image.repository, manifest, layer)


def step_of(queries: RegistryQueries, image: Reference, layer: Digest) -> str:
    """Return the step of a build that made ``layer`` of ``image``, a manifest or an index of one; empty if it
    is not known. Raises what the queries raise."""
    assert image.digest is not None  # noqa: S101 - the caller has resolved it
    manifest = queries.manifest(image.repository_only(), image.digest)
    if manifest is None:
        return ""
    for child in manifest.manifests:
        inner = queries.manifest(image.repository_only(), child.digest)
        if inner is not None and layer in _layers(inner):
            return _step(queries, image.repository_only(), inner, layer)
    return _step(queries, image.repository_only(), manifest, layer)


def _step(queries: RegistryQueries, repository: Reference, manifest: Manifest, layer: Digest) -> str:
    if manifest.config is None or layer not in _layers(manifest):
        return ""
    raw = queries.blob(repository, manifest.config, limit=_LARGEST_CONFIG)
    config = ImageConfig.parse(raw, algorithm=manifest.config.digest.algorithm)
    return config.step_of(_layers(manifest).index(layer))[:_LONGEST_STEP]


def _layers(manifest: Manifest) -> list[Digest]:
    return [layer.digest for layer in manifest.layers]


def _is_image(manifest: Manifest) -> bool:
    return manifest.config is not None and manifest.config.media_type in media_types.IMAGE_CONFIGS
