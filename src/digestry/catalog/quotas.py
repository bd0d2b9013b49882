"""Quotas: how many bytes and tags repositories may hold, checked where they would become more.

Functions on a transaction, for ``catalog.py``: what is counted is what is there when the change is
made. Content that two repositories share counts in each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Select, func, select

from digestry.catalog.schema import links, manifests, repositories, tags
from digestry.errors import Forbidden
from digestry.model.pattern import matches


class OverQuota(Forbidden):
    """More bytes or tags than a quota allows."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What the repositories that match ``pattern`` may hold; None is without limit.

    ``each`` ``repository`` by itself, or ``pattern``: all of them together.
    """

    pattern: str
    bytes: int | None = None
    tags: int | None = None
    each: Literal["repository", "pattern"] = "repository"


def bytes_left(connection: Connection, quotas: Iterable[Quota], repository: str) -> int | None:
    """How many bytes more the repository may hold; negative if it is over, None for any number."""
    least = None
    for quota in quotas:
        if quota.bytes is not None and matches(quota.pattern, repository):
            left = quota.bytes - _held(connection, quota, repository)
            least = left if least is None else min(least, left)
    return least


def check_bytes(connection: Connection, quotas: Iterable[Quota], repository: str) -> None:
    """Raises :class:`OverQuota` if the repository holds too much, as the transaction has it now."""
    for quota in quotas:
        if quota.bytes is None or not matches(quota.pattern, repository):
            continue
        held = _held(connection, quota, repository)
        if held > quota.bytes:
            raise over(quota, repository, f"{held} bytes", f"{quota.bytes} bytes")


def check_tags(connection: Connection, quotas: Iterable[Quota], repository: str) -> None:
    """Raises :class:`OverQuota` if the repository has too many tags, as the transaction has it now."""
    for quota in quotas:
        if quota.tags is None or not matches(quota.pattern, repository):
            continue
        count = func.count(tags.c.name)
        found = _total(connection, select(count).select_from(tags.join(repositories)), quota, repository)
        if found > quota.tags:
            raise over(quota, repository, f"{found} tags", f"{quota.tags}")


def over(quota: Quota, repository: str, would: str, allowed: str) -> OverQuota:
    """The refusal, in words for whoever pushes."""
    what = repository if quota.each == "repository" else f"{quota.pattern} together"
    return OverQuota(
        f"the quota of repository {repository} is used up: {what} would hold {would}, {allowed} are allowed",
        hint="delete what is not needed any more, or ask who runs the registry for more",
    )


def _held(connection: Connection, quota: Quota, repository: str) -> int:
    of_links = select(func.coalesce(func.sum(links.c.size), 0)).select_from(links.join(repositories))
    of_manifests = (
        select(func.coalesce(func.sum(manifests.c.size), 0))
        .select_from(manifests.join(repositories))
        .where(manifests.c.deleted_at.is_(None))
    )
    return sum(_total(connection, query, quota, repository) for query in (of_links, of_manifests))


def _total(connection: Connection, query: Select[Any], quota: Quota, repository: str) -> int:
    if quota.each == "repository":
        return int(connection.execute(query.where(repositories.c.name == repository)).scalar() or 0)
    prefix = re.split(r"[*?]", quota.pattern, maxsplit=1)[0]
    names = select(repositories.c.name).where(repositories.c.name.startswith(prefix, autoescape=True))
    return sum(
        int(connection.execute(query.where(repositories.c.name == name)).scalar() or 0)
        for name in connection.execute(names).scalars().all()
        if matches(quota.pattern, name)
    )
