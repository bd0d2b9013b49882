"""Locks and keys that all processes of one registry share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection

from digestry.model.digest import Digest


class Job(StrEnum):
    """Work that one process of a registry does at a time."""

    SERVE = "serve"
    """Serving the registry, or making it anew."""
    COLLECTION = "collection"
    """Removing content, and copying all of it: garbage collection and backups."""
    SCRUB = "scrub"
    WEBHOOKS = "webhooks"
    SEQUENCING = "sequencing"
    """Giving the journal's entries their positions in the registry."""
    ASSESSMENT = "assessment"
    """Judging the images that agents reported."""
    SCANNING = "scanning"
    """Having a scanner look at the images that run."""
    LOG = "log"
    """Signing the journal as a transparency log."""
    WITNESSES = "witnesses"
    """Having witnesses cosign the log."""
    FLEET = "fleet"
    """Removing what agents reported long ago."""
    ADVICE = "advice"
    """Letting through what advisories name as the fix."""
    OBSERVATION = "observation"
    """Asking other registries where their tags point."""


class Lock(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """Raise :class:`Conflict` if another may have the lock by now."""
        ...


class FencedLock(Lock, Protocol):
    """A lock whose holder changes the catalog only while it has it."""

    def require_held(self, connection: Connection) -> None:
        """Raise :class:`Conflict` unless the lock is held until the catalog's transaction ends.

        ``connection`` is the transaction's. Its changes are then made by one holder at a time, even if a
        holder was paused for so long that another took its place.
        """
        ...


class KeyStore(Protocol):
    """The keys that a registry signs with, as bytes by ID.

    All methods block, and raise :class:`StorageError` for keys that cannot be read or written.
    """

    def version(self) -> int:
        """Return a number that differs after a key was added or removed."""
        ...

    def ids(self) -> list[str]:
        """Return the IDs of all keys, sorted."""
        ...

    def read(self, key_id: str) -> bytes:
        """Return the bytes of a key. Raises :class:`NotFound`."""
        ...

    def check_private(self, key_id: str) -> None:
        """Raise :class:`StorageError` if others can read a key, and :class:`NotFound` without one."""
        ...

    def add(self, key_id: str, content: bytes) -> None:
        """Store a key durably, readable by the registry only."""
        ...

    def remove(self, key_id: str) -> None:
        """Remove a key durably."""
        ...

    def location(self, key_id: str) -> str:
        """Return where a person finds a key, for messages."""
        ...


class Notes(Protocol):
    """Short documents that the processes leave each other, by name.

    All methods block, and raise :class:`StorageError`.
    """

    def read(self, name: str) -> bytes | None:
        """Return a note, or None if there is none of this name."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Store a note durably, in place of an older one."""
        ...

    def location(self, name: str) -> str:
        """Return where a person finds a note, for messages."""
        ...


class Backoff(Protocol):
    """Until when no request is sent to an upstream, and why. It outlives the processes. All methods block."""

    def start(self, seconds: float, why: str) -> None:
        """Start the back-off, for so many seconds. A failure to store it is not raised."""
        ...

    def end(self) -> None:
        """End the back-off. A failure to store that is not raised."""
        ...

    def remaining(self) -> tuple[float, str]:
        """Return the seconds that are left, and the reason; 0 if there is no back-off, or it is not known."""
        ...


class LoginFailures(Protocol):
    """How often each network sent wrong passwords, or very many. All methods block.

    All methods raise :class:`StorageError`.
    """

    def add(self, strikes: Mapping[str, int], seconds: float) -> None:
        """Add to the strikes of networks, which are forgotten after so many seconds without another."""
        ...

    def suspects(self, more_than: int) -> dict[str, int]:
        """Return the networks with more strikes than that, and how many."""
        ...


class Coordination(Protocol):
    """What the processes share: locks, keys and a few states.

    A lock is released at the end of its block, and when its process ends in any way.
    """

    @property
    def keys(self) -> KeyStore:
        """The keys that the registry signs with."""
        ...

    def prepare(self) -> None:
        """Make the files or rows of the locks, durably, before the first is taken. Raises
        :class:`StorageError`."""
        ...

    def check(self) -> None:
        """Raise :class:`StorageError` if the locks do not keep others out where they are."""
        ...

    @property
    def notes(self) -> Notes:
        """The notes of the registry's processes."""
        ...

    @property
    def login_failures(self) -> LoginFailures | None:
        """The failed logins at all nodes; None if each process counts its own."""
        ...

    def backoff(self, host: str, *, longest: float) -> Backoff:
        """Return the back-off from the upstream ``host``, which never lasts ``longest`` seconds."""
        ...

    def guard(
        self, digest: Digest, *, exclusive: bool = False, wait: bool = True
    ) -> AbstractContextManager[Lock]:
        """Protect the content of ``digest`` from removal, or with ``exclusive`` allow its removal.

        A push holds the guard shared, from before its commit in the store until the catalog has committed. A
        removal of content that the catalog no longer holds has the guard exclusively while it asks the
        catalog and removes the bytes. Without that, bytes could be removed between the two steps of a push.
        Without ``wait`` raises :class:`Conflict` if another has it.
        """
        ...

    def guard_group(self, digest: Digest) -> str:
        """Return which group of digests shares the guard of ``digest``."""
        ...

    def only_one(self, job: Job, *, wait: bool = False, held: str = "") -> AbstractContextManager[FencedLock]:
        """Do ``job`` alone. Without ``wait`` raises :class:`Conflict`, worded ``held``, if another does."""
        ...

    def holders(self) -> Mapping[Job, str]:
        """Return which node does which job now, where there are several. Raises :class:`StorageError`."""
        ...

    def turn(self, scope: str, *key: str) -> AbstractContextManager[Lock]:
        """Call for ``key`` one at a time. Blocks while another call in ``scope`` for the same key runs.

        Keys may share a turn within a scope; scopes never wait for each other.
        """
        ...
