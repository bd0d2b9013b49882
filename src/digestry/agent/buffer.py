"""The buffer: entries that no registry has yet, on disk, bounded.

Entries are numbered, and written by one call to the file system: a kill of the process loses none that was
appended. They are synced before they are sent: what a registry has was never lost here, so that no number is
given twice. A power failure loses what was not sent yet.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Final

import msgspec

from digestry.agent import segments
from digestry.agent.clock import ClockReading, HostClock, shifted
from digestry.agent.gaps import DroppedEntries, decode_entry
from digestry.errors import InvalidConfiguration
from digestry.fsio import PRIVATE, make_directory, read_file, remove_file, storage_errors, write_file
from digestry.model.descriptor import encode_hook
from digestry.model.fleet import MOST_ENTRIES, Entry, ImageReport
from digestry.model.json_types import prepared

LARGEST: Final = 64 << 20
"""Bytes of entries that are kept while a registry is away, unless others are given."""

_SEGMENTS: Final = 32
_SMALLEST_SEGMENT: Final = 64 << 10
_AGENT: Final = "agent.json"


class _Identity(msgspec.Struct, frozen=True):
    agent: str
    place: str


class _Position(msgspec.Struct, frozen=True):
    source: str
    position: str


class _Image(msgspec.Struct, frozen=True):
    key: str
    image: msgspec.Raw


class _Of(msgspec.Struct, frozen=True):
    image: str = ""


class _Images(msgspec.Struct, frozen=True):
    run: _Of | None = None
    runs: tuple[_Of, ...] = ()

    def keys(self) -> set[str]:
        return {run.image for run in ((self.run,) if self.run else ()) + self.runs}


@dataclass(slots=True)
class Batch:
    """Consecutive entries from the number ``first`` on, as JSON, with the images that they name."""

    first: int
    entries: list[msgspec.Raw] = field(default_factory=list)
    images: dict[str, msgspec.Raw] = field(default_factory=dict)
    size: int = 0

    @property
    def last(self) -> int:
        """The number of the last entry; one less than ``first`` if there is none."""
        return self.first + len(self.entries) - 1


class EntryBuffer:
    """The entries of ``place`` in ``directory``, which no other agent may use. Thread-safe.

    ``limit`` is in bytes. Every method raises :class:`~digestry.errors.StorageError`. Raises
    :class:`InvalidConfiguration` for the directory of another place.
    """

    def __init__(
        self, directory: Path, place: str, *, limit: int = LARGEST, clock: HostClock | None = None
    ) -> None:
        self._directory = directory
        self._place = place
        self._limit = limit
        self._segment_size = max(_SMALLEST_SEGMENT, limit // _SEGMENTS)
        self._clock = clock or HostClock()
        self._lock = threading.Lock()
        self._positions: dict[str, str] = {}
        self._keys: set[str] = set()
        self._reading = ClockReading(0.0)
        self._dropped = DroppedEntries()
        self._file: FileIO | None = None
        self._size = 0
        self._sizes: dict[int, int] = {}
        self._is_dirty = False
        self._next = 1
        self._first = 1
        make_directory(directory, mode=PRIVATE)
        self.agent = self._identity()
        self._open()

    # -- writing ----------------------------------------------------------------------------------

    @property
    def next(self) -> int:
        """The number that the next entry gets."""
        return self._next

    @property
    def first(self) -> int:
        """The number of the first entry that is still here."""
        return self._first

    def position(self, source: str) -> str:
        """Return where the follower of a source goes on; "" at the very first."""
        return self._positions.get(source, "")

    def append(
        self, entries: Sequence[Entry], images: Mapping[str, ImageReport], *, source: str, position: str
    ) -> None:
        """Append entries, with the images that they name, and where the follower of ``source`` goes on then.

        If the buffer is full, its oldest entries are dropped: :meth:`append_gaps` says so in their place.
        """
        with self._lock:
            self._write(entries, images, source, position)
            self._drop_oldest()

    def _write(
        self, entries: Sequence[Entry], images: Mapping[str, ImageReport], source: str, position: str
    ) -> None:
        if self._file is None or self._size >= self._segment_size:
            self._start_segment()
        parts = []
        reading = self._clock.read()
        if self._reading.boot != reading.boot or self._reading.step_to(reading):
            parts.append(self._read_clock(reading))
        for key, image in images.items():
            if key not in self._keys:
                self._keys.add(key)
                content = msgspec.json.encode(
                    _Image(key, msgspec.Raw(msgspec.json.encode(image, enc_hook=encode_hook)))
                )
                parts.append(segments.encode("image", content))
        parts += [
            segments.encode("entry", msgspec.json.encode(entry, enc_hook=encode_hook)) for entry in entries
        ]
        if self._positions.get(source) != position:
            self._positions[source] = position
            parts.append(segments.encode("position", msgspec.json.encode(_Position(source, position))))
        self._put(b"".join(parts), len(entries))

    def _read_clock(self, reading: ClockReading) -> bytes:
        """Go on by the clock ``reading``, and return its record."""
        self._dropped.shift(self._reading.step_to(reading))
        self._reading = reading
        return segments.encode("clock", msgspec.json.encode(reading))

    def _put(self, content: bytes, count: int) -> None:
        assert self._file is not None  # noqa: S101 - its callers made it
        path = segments.segment_path(self._directory, max(self._sizes))
        if not content:
            return
        try:
            with storage_errors("write", path):
                if self._file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            # What was written of it must not stand before what follows.
            segments.cut(path, self._size)
            self._file.seek(self._size)
            raise
        self._size += len(content)
        self._sizes[max(self._sizes)] = self._size
        self._next += count
        self._is_dirty = self._is_dirty or count > 0

    def _start_segment(self) -> None:
        """Begin a file, with the positions, the clock and the gaps, so that it needs none before it."""
        if self._file is not None:
            self._sync()
            self._file.close()
        path = segments.segment_path(self._directory, self._next)
        with storage_errors("create", path):
            self._file = path.open("wb", buffering=0)
        self._sizes[self._next] = self._size = 0
        self._keys = set()
        parts = [self._read_clock(self._clock.read())]
        if self._dropped.gaps:
            parts.append(self._dropped.encoded())
        parts += [
            segments.encode("position", msgspec.json.encode(_Position(source, position)))
            for source, position in self._positions.items()
        ]
        self._put(b"".join(parts), 0)

    def sync(self) -> None:
        """Write what was appended to the disk itself."""
        with self._lock:
            self._sync()

    def _sync(self) -> None:
        if self._file is not None and self._is_dirty:
            with storage_errors("sync", self._directory):
                os.fdatasync(self._file.fileno())
            self._is_dirty = False

    def close(self) -> None:
        """Sync, and close the files."""
        with self._lock:
            self._sync()
            if self._file is not None:
                self._file.close()
                self._file = None

    # -- dropping ---------------------------------------------------------------------------------

    def acknowledge(self, number: int) -> None:
        """Delete the files whose entries, up to ``number``, a registry has."""
        with self._lock:
            self._first = max(self._first, min(number, self._next - 1) + 1)
            numbers = sorted(self._sizes)
            for segment, following in zip(numbers, [*numbers[1:], self._next], strict=True):
                if following > self._first or (segment == numbers[-1] and self._size < self._segment_size):
                    break
                if segment == numbers[-1]:
                    self._start_segment()
                self._remove(segment)

    def _drop_oldest(self) -> None:
        size, numbers, lost = sum(self._sizes.values()), sorted(self._sizes), list[Entry]()
        dropped = []
        while size > self._limit and len(numbers) > 1:
            dropped.append(numbers.pop(0))
            size -= self._sizes[dropped[-1]]
            lost += self._entries_of(dropped[-1])
        if not dropped:
            return
        # First, so that a kill loses no entry without a word.
        self._dropped.add(lost)
        self._put(self._dropped.encoded(), 0)
        for segment in dropped:
            self._remove(segment)
        self._first = max(self._first, numbers[0])

    def append_gaps(self) -> bool:
        """Append an entry for each gap that dropped entries have left, and return whether there are any."""
        with self._lock:
            gaps = self._dropped.gaps
            if gaps:
                parts = [self._read_clock(self._clock.read())]
                parts += [
                    segments.encode("entry", msgspec.json.encode(gap, enc_hook=encode_hook))
                    for gap in self._dropped.gaps
                ]
                self._put(b"".join([*parts, DroppedEntries().encoded()]), len(gaps))
                self._dropped = DroppedEntries()
            return bool(gaps)

    def _entries_of(self, segment: int) -> list[Entry]:
        """Return the entries of a segment that no registry has, by the clock of the last reading."""
        found, reading, number = [], self._reading, segment - 1
        for record in segments.read(segments.segment_path(self._directory, segment)):
            if record.kind == "clock":
                reading = msgspec.json.decode(record.content, type=prepared(ClockReading))
            elif record.kind == "entry":
                number += 1
                if number >= self._first:
                    found.append(shifted(decode_entry(record.content), reading.step_to(self._reading)))
        return found

    def _remove(self, segment: int) -> None:
        remove_file(segments.segment_path(self._directory, segment), durable=False)
        del self._sizes[segment]

    # -- reading ----------------------------------------------------------------------------------

    def batch(self, first: int, largest: int, most: int = MOST_ENTRIES) -> Batch:
        """Return entries from the number ``first`` on, or from the first that is here.

        They take up to ``largest`` bytes with their images, but one at least is returned if there is any.
        Their times are by the clock as it is now.
        """
        with self._lock:
            batch = Batch(max(first, self._first))
            present = self._clock.read()
            numbers = sorted(self._sizes)
            for segment, following in zip(numbers, [*numbers[1:], self._next], strict=True):
                if following <= batch.first:
                    continue
                if not self._fill(batch, segment, present, largest, min(most, MOST_ENTRIES)):
                    break
            return batch

    def _fill(self, batch: Batch, segment: int, present: ClockReading, largest: int, most: int) -> bool:
        """Add entries of one segment to ``batch``; return whether it may take more."""
        images: dict[str, msgspec.Raw] = {}
        reading = present
        number = segment
        for record in segments.read(segments.segment_path(self._directory, segment)):
            if record.kind == "clock":
                reading = msgspec.json.decode(record.content, type=prepared(ClockReading))
            elif record.kind == "image":
                image = msgspec.json.decode(record.content, type=prepared(_Image))
                images[image.key] = image.image.copy()
            elif record.kind == "entry":
                number += 1
                if number - 1 < batch.first:
                    continue
                if not batch.entries:
                    batch.first = number - 1
                elif number - 1 != batch.last + 1:
                    return False  # some are missing: the next report begins after them
                keys = (
                    msgspec.json.decode(record.content, type=prepared(_Images)).keys() - batch.images.keys()
                )
                more = {key: images[key] for key in keys if key in images}
                size = len(record.content) + sum(len(bytes(image)) + len(key) for key, image in more.items())
                if batch.entries and (batch.size + size > largest or len(batch.entries) >= most):
                    return False
                batch.entries.append(_corrected(record.content, reading.step_to(present)))
                batch.images |= more
                batch.size += size
        return True

    # -- what is there ----------------------------------------------------------------------------

    def _identity(self) -> str:
        path = self._directory / _AGENT
        try:
            found = msgspec.json.decode(read_file(path), type=prepared(_Identity))
        except FileNotFoundError:
            return self._new_identity()
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidConfiguration(
                f"{path} cannot be read: {error}",
                hint="remove it, and the agent takes a new identity",
            ) from error
        if found.place != self._place:
            raise InvalidConfiguration(
                f"{self._directory} belongs to the place {found.place}, not to {self._place}",
                hint="give each place a --state-dir of its own",
            )
        return found.agent

    def _new_identity(self) -> str:
        agent = secrets.token_hex(16)
        write_file(self._directory / _AGENT, msgspec.json.encode(_Identity(agent, self._place)), mode=0o600)
        return agent

    def become_another(self) -> None:
        """Take a new identity: a registry has entries with numbers that this buffer never gave."""
        with self._lock:
            self.agent = self._new_identity()

    def _open(self) -> None:
        """Read what an earlier process left, and cut what it was writing when it was killed."""
        found = segments.segments(self._directory)
        for first, path in found:
            number, end = first, 0
            for record in segments.read(path):
                end = record.end
                if record.kind == "entry":
                    number += 1
                elif record.kind == "clock":
                    self._read_clock(msgspec.json.decode(record.content, type=prepared(ClockReading)))
                elif record.kind == "dropped":
                    self._dropped = DroppedEntries.decoded(record.content)
                elif record.kind == "position":
                    left = msgspec.json.decode(record.content, type=prepared(_Position))
                    self._positions[left.source] = left.position
            lost = path.stat().st_size - end
            if lost:
                segments.cut(path, end)
                # Should it be damage, a registry may have some of these: their numbers are not given again.
                number += lost
            self._sizes[first] = end
            self._next = number
        if found:
            self._first = found[0][0]
        # A new file is begun: what images the last one has is not known. One without entries is replaced.
        self._sizes.pop(self._next, None)
        self._start_segment()


def _corrected(content: bytes, seconds: float) -> msgspec.Raw:
    if not seconds:
        return msgspec.Raw(content)
    return msgspec.Raw(msgspec.json.encode(shifted(decode_entry(content), seconds), enc_hook=encode_hook))
