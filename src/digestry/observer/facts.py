"""The facts about a move: what both images show, and nothing that has to be believed.

Pure functions: what could not be looked at is passed in as such, and stays unknown.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from digestry.model.history import EventKind
from digestry.model.observations import Concern, Likeness, MoveFacts

_VERSION: Final = re.compile(r"v?[0-9]+\.[0-9]+\.[0-9]+(?:[.+_-][0-9A-Za-z.+_-]+)?", re.ASCII)
_ATTACHED: Final = re.compile(r"sha(?:256|512)-[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image of one platform shows. ``layers`` are the digests of its uncompressed layers, from the
    base on; ``base`` is the digest of the base image that its annotations name. ``author`` and ``created``
    are what the publisher wrote; empty for nothing."""

    layers: tuple[str, ...] = ()
    author: str = ""
    created: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class TagFacts:
    """What a tag pointed to. ``images`` are by platform, such as ``linux/arm64``; ``platforms`` are all that
    the index names. Without a config of an image it ``is_artifact``. If it is not ``readable``, neither its
    kind nor its platforms are known. ``attachments`` are the kinds of its signatures, attestations and other
    referrers, or None if they are not known. ``unknown`` says what could not be looked at, and why."""

    is_index: bool = False
    images: Mapping[str, ImageFacts] = field(default_factory=dict)
    platforms: frozenset[str] = frozenset()
    attachments: frozenset[str] | None = None
    unknown: tuple[str, ...] = ()
    is_artifact: bool = False
    readable: bool = True

    @property
    def kind(self) -> tuple[bool, bool]:
        """An image, an index or an artifact."""
        return self.is_index, self.is_artifact


def is_version(tag: str) -> bool:
    """Return whether the tag names one release, which is not expected to move: ``1.5.2``, ``v1.5.2``,
    ``1.5.2-alpine``; not ``1.5`` or ``latest``."""
    return _VERSION.fullmatch(tag) is not None


def is_attachment(tag: str) -> bool:
    """Return whether the tag is that of a digest's referrers or signatures, which grow."""
    return _ATTACHED.match(tag) is not None


def facts_of(
    tag: str,
    event: EventKind,
    before: TagFacts | None,
    after: TagFacts | None,
    pointed_until: datetime.datetime | None = None,
) -> MoveFacts:
    """Return the facts about a move from ``before`` to ``after``.

    ``pointed_until`` is when the tag left ``after`` earlier, if it ever pointed there.
    """
    version = is_version(tag)
    if event == "deleted":
        concerns: tuple[Concern, ...] = ("version-tag-deleted",) if version else ()
        return MoveFacts(
            version_tag=version, concerns=concerns, unknown=() if before is None else before.unknown
        )
    attachments = () if after is None or after.attachments is None else tuple(sorted(after.attachments))
    if before is None or after is None:
        back: tuple[Concern, ...] = () if pointed_until is None else ("moved-back",)
        unknown = () if after is None else after.unknown
        created = _created(after)
        return MoveFacts(
            version_tag=version,
            pointed_until=pointed_until,
            created_after=created,
            attachments=attachments,
            concerns=back,
            unknown=unknown,
        )
    shared, layers = _shared_layers(before, after)
    # What could not be read at all has no kind and no platforms.
    known = before.readable and after.readable
    lost = tuple(sorted(before.platforms - after.platforms)) if known else ()
    facts = MoveFacts(
        version_tag=version,
        pointed_until=pointed_until,
        author=_author(before, after),
        base=_base(before, after, shared),
        shared_layers=shared,
        layers=layers,
        created_before=_created(before),
        created_after=_created(after),
        platforms_lost=lost,
        platforms_gained=tuple(sorted(after.platforms - before.platforms)) if known else (),
        attachments=attachments,
        attachments_lost=_attachments_lost(before, after),
        unknown=tuple(dict.fromkeys((*before.unknown, *after.unknown))),
    )
    return MoveFacts(
        **{name: getattr(facts, name) for name in facts.__struct_fields__ if name != "concerns"},
        concerns=_concerns(facts, kind_changed=before.kind != after.kind and known),
    )


def _concerns(facts: MoveFacts, *, kind_changed: bool) -> tuple[Concern, ...]:
    found: list[tuple[Concern, bool]] = [
        ("version-tag-moved", facts.version_tag),
        ("moved-back", facts.pointed_until is not None),
        ("platforms-lost", bool(facts.platforms_lost)),
        ("attachments-lost", bool(facts.attachments_lost)),
        ("author-changed", facts.author == "changed"),
        ("base-changed", facts.base == "changed"),
        ("created-earlier", _is_earlier(facts.created_after, facts.created_before)),
        ("kind-changed", kind_changed),
    ]
    return tuple(name for name, holds in found if holds)


def _pairs(before: TagFacts, after: TagFacts) -> list[tuple[ImageFacts, ImageFacts]]:
    """Return the images of both that are for the same platform."""
    return [(before.images[name], after.images[name]) for name in before.images if name in after.images]


def _author(before: TagFacts, after: TagFacts) -> Likeness:
    pairs = _pairs(before, after)
    if not pairs or not any(old.author or new.author for old, new in pairs):
        return "unknown"  # nobody is named: that is no evidence
    return "same" if all(old.author == new.author for old, new in pairs) else "changed"


def _shared_layers(before: TagFacts, after: TagFacts) -> tuple[int, int]:
    """Return how many layers at the beginning both have, of how many: of the pair that shares least."""
    found = [(_common(old.layers, new.layers), len(old.layers)) for old, new in _pairs(before, after)]
    return min(found, default=(0, 0))


def _common(old: tuple[str, ...], new: tuple[str, ...]) -> int:
    count = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        count += 1
    return count


def _base(before: TagFacts, after: TagFacts, shared: int) -> Likeness:
    pairs = [(old, new) for old, new in _pairs(before, after) if old.layers and new.layers]
    if not pairs:
        return "unknown"
    stated = [(old.base, new.base) for old, new in pairs if old.base and new.base]
    if shared or (len(stated) == len(pairs) and all(old == new for old, new in stated)):
        return "same"
    return "changed"


def _attachments_lost(before: TagFacts, after: TagFacts) -> tuple[str, ...]:
    if before.attachments is None or after.attachments is None:
        return ()
    return tuple(sorted(before.attachments - after.attachments))


def _created(facts: TagFacts | None) -> str | None:
    """Return the latest time that an image of ``facts`` says it was created at."""
    times = [] if facts is None else [one.created for one in facts.images.values() if _moment(one.created)]
    return max(times, key=lambda text: _moment(text) or _EPOCH, default=None)


_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _is_earlier(after: str | None, before: str | None) -> bool:
    new, old = _moment(after), _moment(before)
    # A reproducible build writes a constant.
    return new is not None and old is not None and _EPOCH < new < old


def _moment(text: str | None) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)
