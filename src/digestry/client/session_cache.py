"""The cache of a session: the properties of registries, from their responses."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import msgspec

from digestry.model.digest import Digest

if TYPE_CHECKING:
    from digestry.client.configuration.policy import Policy

Name = tuple[str, str]
"""A repository (``host/name``) and a tag or digest of it."""


class SessionCache(msgspec.Struct):
    """The cache that the requests of one session share. Its entries are only ever set whole."""

    extension_endpoints: dict[str, frozenset[str] | None] = msgspec.field(default_factory=dict)
    """The endpoints of the extensions of each registry; None if its answer was no list."""
    bulk_refused: set[str] = msgspec.field(default_factory=set)
    """The registries that did not answer a bulk query."""
    upstream_status: MutableMapping[Name, str] = msgspec.field(default_factory=dict)
    """The statements of pull-through registries about their upstreams (``Digestry-Upstream``)."""
    head_digests: MutableMapping[Name, Digest] = msgspec.field(default_factory=dict)
    ages: MutableMapping[Name, str] = msgspec.field(default_factory=dict)
    """The digests of tags that are known from HEAD alone, of registries that count no pulls."""
    mounts_refused: set[tuple[str, str]] = msgspec.field(default_factory=set)
    """Pairs of repositories (``host/name``): the first does not mount blobs from the second."""
    mirrors_left_out: set[str] = msgspec.field(default_factory=set)
    """The repositories on mirrors (``host/name``) that failed, and are not used again."""
    policy: Policy | None = None
    """The policy for images, once it was read."""
    notices: set[str] = msgspec.field(default_factory=set)
    """The sentences that were printed already."""
    warnings: dict[str, set[str]] = msgspec.field(default_factory=dict)
    """The warnings of each registry that were reported."""
