"""The options of a catalog: what a registry's configuration says about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from digestry.catalog.age_policy import AgePolicy
from digestry.catalog.blob_links import LEASE
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.quotas import Quota
from digestry.catalog.tag_policy import TagPolicy


@dataclass(frozen=True, slots=True)
class CatalogOptions:
    """What a registry's configuration says about its catalog.

    ``lease`` is how long content is kept after it was pushed, mounted or found, in microseconds. ``policy``
    decides on every move of a tag, which is then queued for its ``subscriptions``. ``quotas`` limit the
    growth of repositories. In repositories that a pattern of ``sparse`` matches, an index may list missing
    manifests. What tags resolve to under their minimum ages, ``ages``, is kept. With ``uploads_last`` the
    bytes of uploads that are under way outlive a restart of the machine, and every machine has the same.
    """

    lease: int = LEASE
    policy: TagPolicy = field(default_factory=TagPolicy)
    subscriptions: tuple[Subscription, ...] = ()
    quotas: tuple[Quota, ...] = ()
    sparse: tuple[str, ...] = ()
    ages: AgePolicy = field(default_factory=AgePolicy)
    uploads_last: bool = False
