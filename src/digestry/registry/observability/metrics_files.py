"""The files in which each process publishes its metrics for the others.

A file for each process, which it alone writes and holds a lock on. A process that ends leaves its
file, and the next one of its kind takes it over and counts on from there: sums never go down, and
there are never more files than there were processes at once. The server empties the folder when it
starts, under the root's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from digestry import fsio
from digestry.model.json_types import prepared

log: Final = logging.getLogger("digestry.registry")

FOLDER: Final = "metrics"
_HALF: Final = 256 << 10
_TRIES: Final = 100
_PAUSE: Final = 0.005
_HEADER: Final = struct.Struct("<QII")  # number of the writing, length, CRC-32

Labels = tuple[str, ...]


class MetricsSnapshot(msgspec.Struct, array_like=True):
    """The metrics of one process. ``series`` only rise; ``gauges`` count only while the process runs."""

    series: dict[str, list[tuple[Labels, list[float]]]] = {}
    gauges: dict[str, list[tuple[Labels, float]]] = {}


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(prepared(MetricsSnapshot))


class Slot:
    """This process's file. ``inherited`` is the content that an earlier process left in it."""

    def __init__(self, scratch: Path, kind: str) -> None:
        self._descriptor = _claim(scratch / FOLDER, kind)
        self._number, self.inherited = _read(self._descriptor)
        with contextlib.suppress(OSError):
            # So that it can be written on a disk that has become full.
            os.posix_fallocate(self._descriptor, 0, 2 * _HALF)

    def write(self, snapshot: MetricsSnapshot) -> None:
        """Publish a snapshot. Blocks. Raises OSError."""
        payload = _encoder.encode(snapshot)
        if len(payload) > _HALF - _HEADER.size:
            raise OSError(f"{len(payload)} bytes of metrics are too many")
        # Two halves are written in turns: a process that is killed meanwhile leaves the previous one.
        number = self._number + 1
        header = _HEADER.pack(number, len(payload), zlib.crc32(payload))
        os.pwrite(self._descriptor, header + payload, (number % 2) * _HALF)
        self._number = number

    def close(self) -> None:
        """Release the file for the next process."""
        os.close(self._descriptor)


def prepare(scratch: Path) -> None:
    """Make an empty folder, when the server starts. Raises OSError."""
    folder = scratch / FOLDER
    folder.mkdir(exist_ok=True)
    for entry in folder.iterdir():
        entry.unlink()


def read_all(scratch: Path) -> Iterator[tuple[bool, MetricsSnapshot]]:
    """Return the published metrics of every process, and whether that process still runs. Blocks."""
    for path in sorted((scratch / FOLDER).glob("*.slot")):
        try:
            descriptor = fsio.open_regular(path)
        except OSError:
            continue
        try:
            yield not _lock(descriptor, fcntl.LOCK_SH), _read(descriptor)[1]
        finally:
            os.close(descriptor)


def _claim(folder: Path, kind: str) -> int:
    folder.mkdir(exist_ok=True)
    for path in sorted(folder.glob(f"{kind}-*.slot")):
        with contextlib.suppress(OSError):
            descriptor = fsio.open_regular(path, os.O_RDWR)
            if _take_over(descriptor):
                return descriptor
            os.close(descriptor)
    while True:
        path = folder / f"{kind}-{os.urandom(6).hex()}.slot"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        if _lock(descriptor, fcntl.LOCK_EX):
            return descriptor
        os.close(descriptor)  # another process that starts just now was faster


def _take_over(descriptor: int) -> bool:
    """Take over a file; return False if its process still runs."""
    for _ in range(_TRIES):
        if _lock(descriptor, fcntl.LOCK_EX):
            return True
        if not _lock(descriptor, fcntl.LOCK_SH):
            return False
        # No process owns it: others only read it now, or would take it over as well.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - only so that two do not go on in step
    return False


def _lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> tuple[int, MetricsSnapshot]:
    """Return the newest whole snapshot and its number; 0 and nothing if there is none."""
    found: tuple[int, bytes] = (0, b"")
    for half in (0, 1):
        content = os.pread(descriptor, _HALF, half * _HALF)
        if len(content) < _HEADER.size:
            continue
        number, length, checksum = _HEADER.unpack_from(content)
        payload = content[_HEADER.size : _HEADER.size + length]
        if number > found[0] and len(payload) == length and zlib.crc32(payload) == checksum:
            found = number, payload
    return (found[0], _decoder.decode(found[1])) if found[0] else (0, MetricsSnapshot())
