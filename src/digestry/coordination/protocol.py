"""Locks that all processes of one registry share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

from digestry.model.digest import Digest


class Job(StrEnum):
    """Work that one process of a registry does at a time."""

    SERVE = "serve"
    """Serving the registry, or making it anew."""
    COLLECTION = "collection"
    """Removing content, and copying all of it: garbage collection and backups."""
    SCRUB = "scrub"
    WEBHOOKS = "webhooks"


class Lock(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """Raise :class:`Conflict` if another may have the lock by now."""
        ...


class Coordination(Protocol):
    """The locks. Each is released at the end of its block, and when its process ends in any way."""

    def guard(
        self, digest: Digest, *, exclusive: bool = False, wait: bool = True
    ) -> AbstractContextManager[Lock]:
        """Keep the content of ``digest`` where it is, or with ``exclusive`` let it be removed.

        Whoever makes content visible holds the guard shared, from before its commit in the store until
        the catalog has committed. Whoever removes content that the catalog does not hold any more has the
        guard exclusively while it asks the catalog and removes the bytes. Without that, bytes could go
        between the two steps of a push. Without ``wait`` raises :class:`Conflict` if another has it.
        """
        ...

    def guard_group(self, digest: Digest) -> str:
        """Return which group of digests shares the guard of ``digest``."""
        ...

    def only_one(self, job: Job, *, wait: bool = False, held: str = "") -> AbstractContextManager[Lock]:
        """Do ``job`` alone. Without ``wait`` raises :class:`Conflict`, worded ``held``, if another does."""
        ...

    def turn(self, scope: str, *key: str) -> AbstractContextManager[Lock]:
        """Call for ``key`` one at a time. Blocks while another call in ``scope`` for the same key runs.

        Keys may share a turn within a scope; scopes never wait for each other.
        """
        ...
