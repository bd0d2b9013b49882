"""Quotas: how many bytes and tags repositories may hold, checked where they would become more.

Functions on a transaction, for ``catalog.py``: each counts the content at the time of the change, from the
table that triggers keep, and the bytes that unfinished uploads have reserved, which are on the disk as well.
Content that two repositories share counts in each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Column, Connection, case, func, select

from digestry.catalog import transaction_locks
from digestry.catalog.schema import repositories, uploads, usage
from digestry.errors import Forbidden
from digestry.model.name_pattern import matches


class OverQuota(Forbidden):
    """More bytes or tags than a quota allows."""


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of the repositories that match ``pattern``; None means no limit.

    ``each`` is ``repository`` for a limit per repository, or ``pattern`` for a limit on all of them together.
    """

    pattern: str
    bytes: int | None = None
    tags: int | None = None
    each: Literal["repository", "pattern"] = "repository"


def limits_bytes(quotas: Iterable[Quota], repository: str) -> bool:
    """Return whether there is a quota for the repository's bytes."""
    return any(quota.bytes is not None and matches(quota.pattern, repository) for quota in quotas)


def bytes_left(
    connection: Connection, quotas: Iterable[Quota], repository: str, *, locked: bool = False
) -> int | None:
    """Return how many bytes more the repository may hold; negative if it is over, None for any number.

    With ``locked`` no other transaction can use them before this one ends.
    """
    least = None
    for quota in quotas:
        if quota.bytes is not None and matches(quota.pattern, repository):
            if locked:
                _lock(connection, "bytes", quota, repository)
            left = quota.bytes - _bytes(connection, quota, repository)
            least = left if least is None else min(least, left)
    return least


def check_bytes(connection: Connection, quotas: Iterable[Quota], repository: str) -> None:
    """Raise :class:`OverQuota` if the repository holds too much, as the transaction has it now."""
    for quota in quotas:
        if quota.bytes is None or not matches(quota.pattern, repository):
            continue
        _lock(connection, "bytes", quota, repository)
        held = _bytes(connection, quota, repository)
        if held > quota.bytes:
            raise over(quota, repository, f"{held} bytes, with unfinished uploads", f"{quota.bytes} bytes")


def check_tags(connection: Connection, quotas: Iterable[Quota], repository: str) -> None:
    """Raise :class:`OverQuota` if the repository has too many tags, as the transaction has it now."""
    for quota in quotas:
        if quota.tags is None or not matches(quota.pattern, repository):
            continue
        _lock(connection, "tags", quota, repository)
        found = _held(connection, quota, repository, usage.c.tags)
        if found > quota.tags:
            raise over(quota, repository, f"{found} tags", f"{quota.tags}")


def over(quota: Quota, repository: str, would: str, allowed: str) -> OverQuota:
    """Return the refusal, in words for the client."""
    what = repository if quota.each == "repository" else f"{quota.pattern} together"
    return OverQuota(
        f"the quota of repository {repository} is used up: {what} would hold {would}, {allowed} are allowed",
        hint="delete what is no longer needed, or ask the registry's operator for more",
    )


def _lock(connection: Connection, what: str, quota: Quota, repository: str) -> None:
    """Lock the repositories of a quota, after they grew and before they are counted."""
    whose = f"repository {repository}" if quota.each == "repository" else f"pattern {quota.pattern}"
    transaction_locks.lock(connection, f"quota of {what}, {whose}")


def _bytes(connection: Connection, quota: Quota, repository: str) -> int:
    return _held(connection, quota, repository, usage.c.bytes) + _unfinished(connection, quota, repository)


def _unfinished(connection: Connection, quota: Quota, repository: str) -> int:
    held = case((uploads.c.offset > uploads.c.reserved, uploads.c.offset), else_=uploads.c.reserved)
    query = select(uploads.c.repository, func.sum(held))
    if quota.each == "repository":
        query = query.where(uploads.c.repository == repository)
    rows = connection.execute(query.group_by(uploads.c.repository))
    return sum(int(size) for name, size in rows if quota.each == "repository" or matches(quota.pattern, name))


def _held(connection: Connection, quota: Quota, repository: str, column: Column[int]) -> int:
    query = select(repositories.c.name, column).select_from(usage.join(repositories))
    if quota.each == "repository":
        row = connection.execute(query.where(repositories.c.name == repository)).first()
        return 0 if row is None else int(row[1])
    prefix = re.split(r"[*?]", quota.pattern, maxsplit=1)[0]
    rows = connection.execute(query.where(repositories.c.name.startswith(prefix, autoescape=True)))
    return sum(held for name, held in rows if matches(quota.pattern, name))
