"""Coordination of the processes on one host: locks on files, and keys, in the registry's directory.

::

    ROOT/<job>.lock                   :meth:`FileCoordination.only_one`
    ROOT/guards/<two digits>          :meth:`FileCoordination.guard`
    ROOT/keys/<id>.json               :attr:`FileCoordination.keys`
    ROOT/mirror/<scope>.<two digits>.lock   :meth:`FileCoordination.turn`
    ROOT/mirror/<host>.limit          :meth:`FileCoordination.backoff`
    ROOT/<note>.json                  :attr:`FileCoordination.notes`
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from digestry.coordination import key_files
from digestry.coordination.backoff_files import BackoffFile
from digestry.coordination.key_files import KeyFiles
from digestry.coordination.note_files import NoteFiles
from digestry.coordination.protocol import Backoff, FencedLock, Job, KeyStore, LoginFailures, Notes
from digestry.file_locks import Lock, check_locks, locked
from digestry.fsio import make_directory, storage_errors
from digestry.model.digest import Digest

TURNS_DIRECTORY: Final = "mirror"
"""The directory of the root that holds the locks of :meth:`FileCoordination.turn`."""
_BESIDE: Final = {Job.SERVE: "ingest", Job.COLLECTION: "blobs"}
"""Directories that are locked as well: unlike lock files, they are never removed."""
_TURNS: Final = 256


def lock_file(job: Job) -> str:
    """Return the name of the file in the root that is locked for ``job``."""
    return f"{job}.lock"


class FileLock:
    """The lock of a job: it is held until its process ends, so that no transaction can outlive it."""

    __slots__ = ("_lock",)

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def check(self) -> None:
        """Raise :class:`Conflict` if another may have the lock by now."""
        self._lock.check()

    def require_held(self, _connection: Connection) -> None:
        """Do as :meth:`check` does; see :meth:`FencedLock.require_held`."""
        self._lock.check()


class FileCoordination:
    """The locks and keys in the directory ``root``. Nothing is touched before a method is called."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._guards = root / "guards"
        self._turns = root / TURNS_DIRECTORY
        self.keys: KeyStore = KeyFiles(root / key_files.DIRECTORY)
        self.notes: Notes = NoteFiles(root)
        self.login_failures: LoginFailures | None = None

    def prepare(self) -> None:
        """Make the directories that are locked; see :meth:`Coordination.prepare`."""
        make_directory(self._root / _BESIDE[Job.SERVE])

    def check(self) -> None:
        """Raise :class:`StorageError` for a file system without locks; see :meth:`Coordination.check`."""
        check_locks(self._root)

    def guard(
        self, digest: Digest, *, exclusive: bool = False, wait: bool = True
    ) -> AbstractContextManager[Lock]:
        """Keep the content of ``digest`` where it is; see :meth:`Coordination.guard`."""
        with storage_errors("create the directory", self._guards):
            if not self._guards.is_dir():
                self._guards.mkdir(mode=0o700, exist_ok=True)
        name = self._guards / self.guard_group(digest)
        held = f"{digest} is being pushed"
        return locked(name, shared=not exclusive, wait=wait, held=held, mode=0o600)

    def guard_group(self, digest: Digest) -> str:
        """Return the digits that all digests with the same guard begin with."""
        return digest.encoded[:2]

    @contextlib.contextmanager
    def only_one(self, job: Job, *, wait: bool = False, held: str = "") -> Iterator[FencedLock]:
        """Do ``job`` alone; see :meth:`Coordination.only_one`."""
        beside = self._root / _BESIDE[job] if job in _BESIDE else None
        if beside is not None and not beside.is_dir():
            beside = None
        with locked(self._root / lock_file(job), wait=wait, held=held, mode=0o600, beside=beside) as lock:
            yield FileLock(lock)

    def holders(self) -> Mapping[Job, str]:
        """Return nothing: all jobs are this host's."""
        return {}

    def turn(self, scope: str, *key: str) -> AbstractContextManager[Lock]:
        """Call for ``key`` one at a time; see :meth:`Coordination.turn`."""
        make_directory(self._turns)
        name = _hashed(scope)
        number = hashlib.blake2b("\0".join(key).encode(), digest_size=2).digest()
        return locked(self._turns / f"{name}.{int.from_bytes(number, 'big') % _TURNS:02x}.lock")

    def backoff(self, host: str, *, longest: float) -> Backoff:
        """Return the back-off from an upstream; see :meth:`Coordination.backoff`."""
        return BackoffFile(self._turns / f"{_hashed(host)}.limit", longest=longest)


def _hashed(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
