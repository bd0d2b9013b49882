"""The answer of another registry about one of its tags."""

from __future__ import annotations

from dataclasses import dataclass

from digestry.model.descriptor import Descriptor


@dataclass(frozen=True, slots=True)
class StatedRate:
    """The limit of requests that a registry states: so many are ``left``, of ``limit``, and in ``reset``
    seconds more are allowed. None for what it does not say."""

    left: int
    limit: int | None = None
    reset: float | None = None


@dataclass(frozen=True, slots=True)
class TagCheck:
    """What a registry says about a tag: where it points, or (None) that this has not changed since the
    answer with the validator that was sent along. ``etag`` is the answer's own validator."""

    descriptor: Descriptor | None
    etag: str = ""
    rate: StatedRate | None = None
