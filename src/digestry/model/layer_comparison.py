"""Which layers two images share, which only one of them has, and whether they have the same base."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from digestry.errors import InvalidDigest
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image

BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
"""Annotation of an image: the digest of its base (image-spec, annotations.md)."""


class ComparedLayer(msgspec.Struct, frozen=True):
    """A layer of an image: ``size`` is its bytes as it is kept; ``diff_id`` is the digest of its archive, and
    ``created_by`` the command of its build step, None where the config does not say it."""

    digest: Digest
    size: int
    media_type: str
    diff_id: Digest | None
    created_by: str | None


class RecompressedLayer(msgspec.Struct, frozen=True):
    """A layer with the same files in both images, compressed or encoded in another way."""

    old: ComparedLayer
    new: ComparedLayer


class LayerChanges(msgspec.Struct, frozen=True):
    """The layers of both images, with sums of their sizes.

    ``reordered`` means that the shared layers have another order.
    """

    shared: tuple[ComparedLayer, ...] = ()
    removed: tuple[ComparedLayer, ...] = ()
    added: tuple[ComparedLayer, ...] = ()
    recompressed: tuple[RecompressedLayer, ...] = ()
    shared_size: int = 0
    removed_size: int = 0
    added_size: int = 0
    reordered: bool = False


BaseVerdict = Literal["same", "likely same", "different", "unknown"]


class BaseComparison(msgspec.Struct, frozen=True):
    """Whether two images were built on the same base.

    ``old`` and ``new`` are the digests that the images state, and ``common_layers`` is the number of layers
    from the lowest one on that both have. The verdict is ``same`` if they state the same base and have the
    same lowest layer, ``different`` if they state different ones or their lowest layers differ, and ``likely
    same`` if only the lowest layers say it.
    """

    verdict: BaseVerdict
    common_layers: int
    old: Digest | None
    new: Digest | None

    def described(self) -> str:
        """Return the verdict with its reason, as one phrase."""
        if self.verdict == "same":
            return f"the same: both name {self.old}"
        if self.verdict == "likely same":
            lowest = "layer is" if self.common_layers == 1 else f"{self.common_layers} layers are"
            return f"likely the same: the lowest {lowest} the same"
        if self.verdict == "unknown":
            return "unknown: an image has no layers"
        if self.old is not None and self.new is not None and self.old != self.new:
            return f"different: {self.old} and {self.new}"
        return "different: the lowest layers differ"


def layers_of(image: Image, config: ImageConfig | None) -> tuple[ComparedLayer, ...]:
    """Return an image's layers, the lowest first, with what the config says of each."""
    diff_ids: Sequence[Digest] = () if config is None else config.diff_ids
    history = () if config is None else config.history
    steps = [step.created_by for step in history if not step.empty_layer]
    return tuple(
        ComparedLayer(
            layer.digest,
            layer.size,
            layer.media_type,
            diff_ids[position] if len(diff_ids) == len(image.layers) else None,
            # Builders that squash layers leave more steps than layers: then nothing says which is whose.
            steps[position] if len(steps) == len(image.layers) else None,
        )
        for position, layer in enumerate(image.layers)
    )


def compare_layers(old: Sequence[ComparedLayer], new: Sequence[ComparedLayer]) -> LayerChanges:
    """Return the layers that both images have, and those that only one has.

    An image may have a layer several times: each of them has its own counterpart.
    """
    shared, new_alone = _split(new, Counter(layer.digest for layer in old))
    shared_before, old_alone = _split(old, Counter(layer.digest for layer in new))
    recompressed, removed, added = _recompressed(old_alone, new_alone)
    return LayerChanges(
        shared=tuple(shared),
        removed=tuple(removed),
        added=tuple(added),
        recompressed=tuple(recompressed),
        shared_size=_size(shared),
        removed_size=_size(removed),
        added_size=_size(added),
        reordered=[layer.digest for layer in shared] != [layer.digest for layer in shared_before],
    )


def compare_bases(
    old: Image, old_layers: Sequence[ComparedLayer], new: Image, new_layers: Sequence[ComparedLayer]
) -> BaseComparison:
    """Return whether two images have the same base, as far as they show it."""
    common = 0
    for before, after in zip(old_layers, new_layers, strict=False):
        if before.digest != after.digest and (before.diff_id is None or before.diff_id != after.diff_id):
            break
        common += 1
    stated = _stated_base(old), _stated_base(new)
    verdict: BaseVerdict = "unknown"
    if old_layers and new_layers:
        verdict = "likely same" if common else "different"
    if None not in stated and verdict != "different":
        verdict = "same" if stated[0] == stated[1] else "different"
    return BaseComparison(verdict, common, *stated)


def _split(
    layers: Sequence[ComparedLayer], others: Counter[Digest]
) -> tuple[list[ComparedLayer], list[ComparedLayer]]:
    """Return the layers that are among ``others``, and the rest."""
    both, rest = [], []
    for layer in layers:
        if others[layer.digest] > 0:
            others[layer.digest] -= 1
            both.append(layer)
        else:
            rest.append(layer)
    return both, rest


def _recompressed(
    old: Sequence[ComparedLayer], new: Sequence[ComparedLayer]
) -> tuple[list[RecompressedLayer], list[ComparedLayer], list[ComparedLayer]]:
    """Return the pairs of the same files, the rest of ``old`` and the rest of ``new``."""
    waiting: dict[Digest, deque[ComparedLayer]] = {}
    removed: list[ComparedLayer] = []
    for layer in old:
        if layer.diff_id is None:
            removed.append(layer)
        else:
            waiting.setdefault(layer.diff_id, deque()).append(layer)
    pairs: list[RecompressedLayer] = []
    added: list[ComparedLayer] = []
    for layer in new:
        same = None if layer.diff_id is None else waiting.get(layer.diff_id)
        if same:
            pairs.append(RecompressedLayer(same.popleft(), layer))
        else:
            added.append(layer)
    removed += (layer for layers in waiting.values() for layer in layers)
    return pairs, removed, added


def _stated_base(image: Image) -> Digest | None:
    text = image.annotations.get(BASE_DIGEST)
    try:
        return None if text is None else Digest.parse(text)
    except InvalidDigest:
        return None


def _size(layers: Sequence[ComparedLayer]) -> int:
    return sum(layer.size for layer in layers)
