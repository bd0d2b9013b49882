"""What changed in a registry: the answer of ``GET /v2/_digestry/changes`` (docs/http-api.md)."""

from __future__ import annotations

from typing import Final

import msgspec

MOST_REPOSITORIES: Final = 1000
"""The most repositories that an answer names; of more it says that everything may have changed."""


class Changes(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What changed since an earlier answer. ``token`` is for the next question.

    ``repositories`` are those in which a tag moved, or a manifest was pushed or deleted. ``everything`` means
    that this is not known, and that any may have changed. ``parts`` means that something was attached to a
    layer or config, which images of any repository may have, or removed from one.
    """

    token: str
    repositories: tuple[str, ...] = ()
    everything: bool = False
    parts: bool = False
