"""The options of a catalog: what a registry's configuration says about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from digestry.catalog.blob_links import LEASE
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.quotas import Quota
from digestry.catalog.tag_policy import TagPolicy


@dataclass(frozen=True, slots=True)
class CatalogOptions:
    """What a registry's configuration says about its catalog.

    ``lease`` is for how many microseconds content is kept after it was pushed, mounted or found. Every move
    of a tag goes by ``policy``, and is queued for the ``subscriptions`` that ask for it. What makes a
    repository larger goes by the ``quotas``. In repositories that a pattern of ``sparse`` matches, an index
    may list manifests that are not there. With ``uploads_last`` the bytes of uploads that are under way
    outlive a restart of the machine, and every machine has the same.
    """

    lease: int = LEASE
    policy: TagPolicy = field(default_factory=TagPolicy)
    subscriptions: tuple[Subscription, ...] = ()
    quotas: tuple[Quota, ...] = ()
    sparse: tuple[str, ...] = ()
    uploads_last: bool = False
