"""Room that is kept for deletions: made, given, and taken again."""

from __future__ import annotations

import errno
import os
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from digestry.backend import open_backend
from digestry.coordination.files import lock_file
from digestry.coordination.protocol import Job
from digestry.errors import StorageFull
from digestry.file_locks import locked
from digestry.registry.config import RegistryConfig
from digestry.registry.disk_reserve import A_BIT, FILE, Reserve, ReserveJob, reserve_of
from digestry.registry.server import prepare
from tests.backends import open_reserve

_Status = namedtuple("_Status", ["f_bavail", "f_blocks", "f_frsize"])
_MIB = 1 << 20


class Disk:
    """What the file system says of itself, in MiB."""

    def __init__(self, free: float, size: float) -> None:
        self.free = free
        self.size = size

    def statvfs(self, _: object) -> _Status:
        return _Status(int(self.free * 256), int(self.size * 256), 4096)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(free=100, size=1000)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    return disk


@pytest.fixture
def reserve(tmp_path: Path, disk: Disk) -> Reserve:
    assert disk.free == 100
    return open_reserve(tmp_path)


def test_it_is_spent_from_its_release_until_it_is_whole(reserve: Reserve, tmp_path: Path) -> None:
    assert not reserve.spent()  # a root from before there was one
    assert reserve.fill()
    held = (tmp_path / FILE).stat()
    assert held.st_size == 8 * _MIB
    assert held.st_blocks * 512 >= 8 * _MIB
    reserve.check()
    assert reserve.release(A_BIT)
    assert reserve.spent()
    with pytest.raises(StorageFull):
        reserve.check()
    assert (tmp_path / FILE).stat().st_size == 7 * _MIB
    assert reserve.release()
    assert (tmp_path / FILE).stat().st_size == 0
    assert not reserve.release()
    assert reserve.spent()
    assert reserve.fill()
    assert not reserve.spent()


def test_it_does_not_look_spent_while_it_is_made(
    reserve: Reserve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.posix_fallocate
    spent = []

    def allocate(descriptor: int, offset: int, length: int) -> None:
        spent.append(open_reserve(tmp_path).spent())  # as a worker looks at each push
        real(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    assert reserve.fill()
    assert spent == [False]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_start_makes_it_whole(tmp_path: Path) -> None:
    """A loss of power may leave its name alone: the disk is not full for that."""
    (tmp_path / FILE).touch()
    assert open_reserve(tmp_path).spent()
    prepare(RegistryConfig(root=tmp_path))
    assert not open_reserve(tmp_path).spent()


def test_it_takes_back_what_there_is(reserve: Reserve, disk: Disk, tmp_path: Path) -> None:
    assert reserve.fill()
    reserve.release()
    disk.free = 6
    assert not reserve.fill()
    assert (tmp_path / FILE).stat().st_size == 4 * _MIB  # some is needed at once
    assert reserve.spent()
    disk.free = 2
    assert not reserve.fill()
    assert (tmp_path / FILE).stat().st_size == 4 * _MIB
    disk.free = 100
    assert reserve.fill()


def test_on_a_disk_that_has_no_room_for_it_there_is_none(reserve: Reserve, disk: Disk) -> None:
    disk.free = 8
    assert not reserve.fill()
    assert not reserve.spent()
    assert not reserve.release()


def test_a_quota_that_has_no_room_for_it_changes_nothing(
    reserve: Reserve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", over)
        with pytest.raises(StorageFull):
            reserve.fill()
    assert not reserve.spent()
    assert not (tmp_path / FILE).exists()
    assert reserve.fill()
    reserve.release(A_BIT)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", over)
        with pytest.raises(StorageFull):
            reserve.fill()
    assert (tmp_path / FILE).stat().st_size == 7 * _MIB
    assert reserve.spent()


def test_of_a_small_disk_it_is_a_sixteenth(reserve: Reserve, disk: Disk, tmp_path: Path) -> None:
    disk.free, disk.size = 10, 16
    assert reserve.fill()
    assert (tmp_path / FILE).stat().st_size == _MIB
    assert not reserve.spent()
    disk.size = 32  # it was made larger
    assert reserve.spent()
    assert reserve.fill()


def test_the_job_leaves_to_a_collection_what_it_uses(reserve: Reserve, disk: Disk, tmp_path: Path) -> None:
    job, stop = ReserveJob(reserve), threading.Event()
    often = job.run(stop)
    assert reserve.release()
    with locked(tmp_path / lock_file(Job.COLLECTION)):
        assert job.run(stop) < often
        assert reserve.spent()
    disk.free = 1
    assert job.run(stop) < often
    assert reserve.spent()
    disk.free = 100
    assert job.run(stop) == often
    assert not reserve.spent()
    with locked(tmp_path / lock_file(Job.COLLECTION)):
        assert job.run(stop) == often  # it only looked


def test_a_registry_that_fills_no_disk_keeps_no_room(tmp_path: Path) -> None:
    found = reserve_of(replace(open_backend(tmp_path), disk=None))
    assert found.fill()
    found.refill_if_idle()
    assert not found.release(A_BIT)
    assert not found.spent()
    found.check()
    assert list(tmp_path.iterdir()) == []
