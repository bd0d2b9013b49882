"""The disk reserve: room that deletions can use when the disk is full.

A deletion writes to the catalog before it removes bytes. On a full disk it could not, and a registry that
has filled its own disk could never free any room. So a file keeps some room. A deletion or a collection
that needs the room removes the file, and the registry accepts no content until the file is whole again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Final, Protocol

from digestry.backend import Backend
from digestry.coordination.protocol import Coordination, Job
from digestry.errors import Conflict, StorageFull
from digestry.fsio import open_regular, storage_errors

log: Final = logging.getLogger("digestry.registry")

FILE: Final = "reserve"
_BYTES: Final = 8 << 20
"""The room for SQLite's log, which restarts at 4 MiB unless a read takes long, and for a start."""
_SHARE: Final = 16
"""Of a small file system it is no more than such a part."""
A_BIT: Final = 1 << 20
"""Bytes: more than a start, or a deletion, needs."""
_LOOK_SECONDS: Final = 10.0
_WHOLE_SECONDS: Final = 0.01
"""A look at the file lets other threads run, and a push then waits for all of them."""
_LOOK_SOON_SECONDS: Final = 1.0


def reserve_of(backend: Backend) -> Reserve:
    """Return the reserve of a registry. Nothing is touched."""
    if backend.disk is None:
        return NoReserve()
    return DiskReserve(backend.disk, backend.coordination)


class Reserve(Protocol):
    """Room that is kept for deletions. Safe to use from many threads and many processes at once."""

    def spent(self) -> bool:
        """Return whether the reserve was released and is not refilled yet."""
        ...

    def check(self) -> None:
        """Raise :class:`StorageFull` while the reserve is spent."""
        ...

    def release(self, most: int = ..., /) -> bool:
        """Release up to ``most`` bytes; return False if there are none left. Raises :class:`StorageError`."""
        ...

    def fill(self) -> bool:
        """Refill the reserve as far as there is spare room, and return whether it is whole.

        A new reserve is made whole or not at all. Raises :class:`StorageError`.
        """
        ...

    def refill_if_idle(self) -> None:
        """Refill as :meth:`fill` does, unless a collection or a backup is under way.

        Raises :class:`StorageError`.
        """
        ...


class NoReserve:
    """The :class:`Reserve` of a registry that fills no disk of ours."""

    def spent(self) -> bool:
        return False

    def check(self) -> None:
        return None

    def release(self, most: int = 0, /) -> bool:
        return False

    def fill(self) -> bool:
        return True

    def refill_if_idle(self) -> None:
        return None


class DiskReserve:
    """The :class:`Reserve` that is a file in ``directory``. Making this object touches no file."""

    def __init__(self, directory: Path, coordination: Coordination) -> None:
        self._directory = directory
        self._path = directory / FILE
        self._coordination = coordination
        self._whole_until = 0.0

    def spent(self) -> bool:
        """Return whether the file is smaller than it should be."""
        try:
            size = self._path.stat().st_size
        except OSError:
            return False
        # Usually it has the full size: then the size of the file system is not needed.
        return size < _BYTES and size < self._wanted()

    def check(self) -> None:
        """Raise :class:`StorageFull` while the file is smaller than it should be.

        A file that was found whole counts as whole for some milliseconds, unless this process has released
        it.
        """
        now = time.monotonic()
        if now < self._whole_until:
            return
        self._whole_until = now + _WHOLE_SECONDS
        if self.spent():
            self._whole_until = 0.0
            raise StorageFull(
                f"the room that {self._path} keeps for deletions is in use",
                hint="delete what is not needed and collect, or free space on that file system",
            )

    def release(self, most: int = _BYTES, /) -> bool:
        """Make the file smaller by up to ``most`` bytes; see :meth:`Reserve.release`."""
        with storage_errors("give back the room of", self._path):
            try:
                held = self._path.stat().st_size
                os.truncate(self._path, max(0, held - most))
                self._whole_until = 0.0
            except FileNotFoundError:
                return False
        if held:
            log.error("the disk is full: the room kept for deletions is used, and nothing is taken in")
        return held > 0

    def fill(self) -> bool:
        """Make the file larger, as far as there is spare room; see :meth:`Reserve.fill`."""
        with storage_errors("keep room in", self._path):
            wanted, held, size = self._measured()
            if size <= held:
                return held >= wanted
            if held < 0:
                self._make(size)
            else:
                try:
                    _allocate(self._path, size)
                except OSError:  # a quota, or somebody was faster
                    os.truncate(self._path, held)
                    raise
        if size == wanted and held >= 0:
            log.warning("there is room again on the disk, and what clients push is taken")
        return size == wanted

    def _make(self, size: int) -> None:
        # A file of this name is whole, or spent: a look at an incomplete one would refuse pushes.
        temporary = self._path.with_name(f".{FILE}.{os.urandom(8).hex()}")
        try:
            _allocate(temporary, size)
            temporary.rename(self._path)
        except BaseException:
            with contextlib.suppress(OSError):  # the caller must get the earlier error
                temporary.unlink()
            raise

    def refill_if_idle(self) -> None:
        """Fill it, unless a collection or a backup is under way; see :meth:`Reserve.refill_if_idle`."""
        with storage_errors("keep room in", self._path):
            _, held, size = self._measured()
        # Collections and backups try to take the lock: a look must not take it.
        if size > held:
            alone = self._coordination.only_one(Job.COLLECTION)
            with contextlib.suppress(Conflict, StorageFull), alone:
                self.fill()

    def _measured(self) -> tuple[int, int, int]:
        """Return how large the reserve should be, is (-1: it was never made), and can be now."""
        wanted = self._wanted()
        try:
            held = self._path.stat().st_size
        except FileNotFoundError:
            held = -1
        if held >= wanted:
            return wanted, held, held
        status = os.statvfs(self._directory)
        spare = status.f_bavail * status.f_frsize - wanted // 4
        size = min(wanted, max(held, 0) + spare)
        return wanted, held, held if held < 0 and size < wanted else size

    def _wanted(self) -> int:
        status = os.statvfs(self._directory)
        return min(_BYTES, status.f_blocks * status.f_frsize // _SHARE)


def _allocate(path: Path, size: int) -> None:
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


class ReserveJob:
    """The maintenance job that makes the reserve, and refills it."""

    name = "reserve"

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve

    def run(self, _stop: threading.Event) -> float:
        """Refill if there is room, and return after how many seconds to call again."""
        self._reserve.refill_if_idle()
        return _LOOK_SOON_SECONDS if self._reserve.spent() else _LOOK_SECONDS
