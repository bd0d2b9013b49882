"""The buffer on disk: what a kill, a full disk and a clock that is set leave of it."""

from __future__ import annotations

import datetime
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from digestry.agent import segments
from digestry.agent.buffer import EntryBuffer
from digestry.agent.clock import ClockReading, HostClock
from digestry.errors import InvalidConfiguration
from digestry.model.descriptor import decode_hook
from digestry.model.fleet import Entry, Gap, ImageReport, RunReport, Snapshot, Started, Stopped
from tests.agent.scripts import at

PLENTY = 1 << 30
_OPENED: list[EntryBuffer] = []


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    yield
    while _OPENED:
        _OPENED.pop().close()


def opened(directory: Path, place: str = "here", **more: Any) -> EntryBuffer:
    """A buffer that is not closed before the test ends, as if its process were killed."""
    buffer = EntryBuffer(directory, place, **more)
    _OPENED.append(buffer)
    return buffer


class SetClock(HostClock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.reading = ClockReading(1000.0, "boot")

    def read(self) -> ClockReading:
        return self.reading


def started(number: int, *, image: str = "a" * 24) -> Started:
    return Started("docker", RunReport(f"c{number}", "first", image, at(number)))


def append(buffer: EntryBuffer, *numbers: int, image: str = "a" * 24) -> None:
    for number in numbers:
        images = {image: ImageReport("localhost:5000/app:1")}
        buffer.append([started(number, image=image)], images, source="docker", position=str(number))


def read(buffer: EntryBuffer, first: int = 1) -> list[Entry]:
    """All entries from a number on, by as many batches as it takes."""
    found: list[Entry] = []
    while True:
        batch = buffer.batch(first, PLENTY)
        if not batch.entries:
            return found
        found += [msgspec.json.decode(one, type=Entry, dec_hook=decode_hook) for one in batch.entries]
        assert all(key in batch.images for one in found for key in _keys(one)) or batch.first > 1
        first = batch.last + 1


def _keys(entry: Entry) -> set[str]:
    return {entry.run.image} if isinstance(entry, Started) else set()


def containers(entries: list[Entry]) -> list[str]:
    return [entry.run.container for entry in entries if isinstance(entry, Started)]


def only(directory: Path) -> Path:
    """The newest file of a buffer."""
    return max(path for _, path in segments.segments(directory))


def test_entries_have_numbers_and_their_images(tmp_path: Path) -> None:
    buffer = opened(tmp_path)
    append(buffer, 1, 2, 3)
    batch = buffer.batch(2, PLENTY)
    assert (batch.first, batch.last) == (2, 3)
    assert list(batch.images) == ["a" * 24]
    assert buffer.batch(4, PLENTY).entries == []


def test_another_process_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    first = opened(tmp_path)
    append(first, 1, 2)  # and no close: it was killed
    second = opened(tmp_path)
    append(second, 3)
    assert containers(read(second)) == ["c1", "c2", "c3"]
    assert second.position("docker") == "3"
    assert second.agent == first.agent
    assert second.batch(3, PLENTY).images.keys() == {"a" * 24}


@pytest.mark.parametrize("seed", range(8))
def test_a_record_that_was_cut_is_never_fatal_and_takes_no_other_with_it(tmp_path: Path, seed: int) -> None:
    buffer = opened(tmp_path)
    append(buffer, *range(1, 21))
    path = only(tmp_path)
    keep = random.Random(seed).randrange(0, path.stat().st_size)
    os.truncate(path, keep)
    again = opened(tmp_path)
    found = containers(read(again))
    assert found == [f"c{number}" for number in range(1, len(found) + 1)]
    append(again, 100)
    assert containers(read(again)) == [*found, "c100"]


def test_a_damaged_record_ends_its_file_and_the_next_file_counts(tmp_path: Path) -> None:
    buffer = opened(tmp_path)
    append(buffer, 1, 2, 3)
    path = only(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b'"c3"')] ^= 0xFF
    path.write_bytes(content)
    again = opened(tmp_path)
    append(again, 4)
    assert containers(read(again)) == ["c1", "c2", "c4"]
    last = again.batch(3, PLENTY)
    assert last.first > 3  # the registry may have the third already


def test_what_the_registry_has_is_deleted_by_whole_files(tmp_path: Path) -> None:
    buffer = opened(tmp_path, limit=32 * (64 << 10))
    append(buffer, *range(1, 1001))
    files = len(segments.segments(tmp_path))
    assert files > 2
    buffer.acknowledge(990)
    assert len(segments.segments(tmp_path)) < files
    assert containers(read(buffer, 991)) == [f"c{number}" for number in range(991, 1001)]
    buffer.acknowledge(1000)
    append(buffer, 1001)
    assert containers(read(opened(tmp_path), 1001)) == ["c1001"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_full_buffer_drops_the_oldest_and_says_so(tmp_path: Path, killed: bool) -> None:
    buffer = opened(tmp_path, limit=256 << 10)
    for number in range(1, 2001):
        append(buffer, number)
        if killed and number % 300 == 0:
            buffer = opened(tmp_path, limit=256 << 10)
    assert sum(path.stat().st_size for _, path in segments.segments(tmp_path)) <= (256 + 64) << 10
    if killed:
        buffer = opened(tmp_path, limit=256 << 10)
    assert buffer.append_gaps()
    assert not buffer.append_gaps()  # each is told once
    assert not opened(tmp_path, limit=256 << 10).append_gaps()
    entries = read(buffer, buffer.first)
    (gap,) = [entry for entry in entries if isinstance(entry, Gap)]  # it was dropped in many steps
    kept = {int(name[1:]) for name in containers(entries)}
    lost = set(range(1, 2001)) - kept
    assert 2000 in kept
    assert (gap.source, gap.from_, gap.until) == ("docker", at(1), at(max(lost)))
    assert lost == set(range(1, max(lost) + 1))


def test_a_gap_that_was_told_is_not_told_again_with_the_next_one(tmp_path: Path) -> None:
    buffer = opened(tmp_path, limit=256 << 10)
    append(buffer, *range(1, 2001))
    assert buffer.append_gaps()
    buffer.acknowledge(buffer.next - 1)
    append(buffer, *range(3001, 5001))
    assert buffer.append_gaps()
    gap = next(entry for entry in read(buffer, buffer.first) if isinstance(entry, Gap))
    assert at(3000) <= gap.from_ <= at(3010)


def test_each_source_has_its_own_gap(tmp_path: Path) -> None:
    buffer = opened(tmp_path, limit=256 << 10)
    for number in range(1, 1001):
        append(buffer, number)
        stop = Stopped("podman", f"p{number}", at(5000 + number))
        buffer.append([stop], {}, source="podman", position=str(number))
    assert buffer.append_gaps()
    gaps = {entry.source: entry for entry in read(buffer, buffer.first) if isinstance(entry, Gap)}
    assert gaps.keys() == {"docker", "podman"}
    assert (gaps["docker"].from_, gaps["podman"].from_) == (at(1), at(5001))
    assert at(100) < gaps["docker"].until < at(1000)


def test_a_gap_is_corrected_when_the_clock_is_set(tmp_path: Path) -> None:
    clock, hour = SetClock(), datetime.timedelta(hours=1)
    buffer = opened(tmp_path, clock=clock, limit=256 << 10)
    append(buffer, *range(1, 1001))
    clock.reading = ClockReading(1000.0 + 3600, "boot")  # it was an hour behind
    append(buffer, *range(4601, 5601))
    again = opened(tmp_path, clock=clock, limit=256 << 10)
    clock.reading = ClockReading(1000.0 + 7200, "boot")
    assert again.append_gaps()
    (gap,) = [entry for entry in read(again, again.first) if isinstance(entry, Gap)]
    assert gap.from_ == at(1) + 2 * hour
    first = min(int(name[1:]) for name in containers(read(again, again.first)))
    assert gap.until <= at(first) + (2 * hour if first <= 1000 else hour)


def test_a_batch_ends_where_a_report_would_be_too_large(tmp_path: Path) -> None:
    buffer = opened(tmp_path)
    append(buffer, *range(1, 51))
    small = buffer.batch(1, 1000)
    assert 1 <= len(small.entries) < 10
    assert len(buffer.batch(1, 1).entries) == 1
    assert len(buffer.batch(1, PLENTY, 7).entries) == 7


def test_entries_from_before_the_clock_was_set_are_corrected(tmp_path: Path) -> None:
    clock = SetClock()
    buffer = opened(tmp_path, clock=clock)
    append(buffer, 1)
    buffer.append(
        [
            Stopped("docker", "c1", at(10), after=at(5)),
            Snapshot("docker", "0a", at(20), (started(3).run,)),
            Gap("docker", at(30), at(40), "why"),
        ],
        {},
        source="docker",
        position="x",
    )
    clock.reading = ClockReading(1000.0 + 3600, "boot")  # it was an hour behind
    append(buffer, 2)
    hour = datetime.timedelta(hours=1)
    one, end, snapshot, gap, two = read(buffer)
    assert isinstance(one, Started)
    assert isinstance(end, Stopped)
    assert isinstance(snapshot, Snapshot)
    assert isinstance(gap, Gap)
    assert isinstance(two, Started)
    assert one.run.started_at == at(1) + hour
    assert (end.at, end.after) == (at(10) + hour, at(5) + hour)
    assert (snapshot.at, snapshot.runs[0].started_at) == (at(20) + hour, at(3) + hour)
    assert (gap.from_, gap.until) == (at(30) + hour, at(40) + hour)
    assert two.run.started_at == at(2)


def test_the_clock_of_another_boot_corrects_nothing(tmp_path: Path) -> None:
    clock = SetClock()
    append(opened(tmp_path, clock=clock), 1)
    clock.reading = ClockReading(9000.0, "another boot")
    (one,) = read(opened(tmp_path, clock=clock))
    assert isinstance(one, Started)
    assert one.run.started_at == at(1)


def test_a_small_correction_of_the_clock_is_none(tmp_path: Path) -> None:
    clock = SetClock()
    buffer = opened(tmp_path, clock=clock)
    append(buffer, 1)
    clock.reading = ClockReading(1000.3, "boot")
    (one,) = read(buffer)
    assert isinstance(one, Started)
    assert one.run.started_at == at(1)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = opened(tmp_path)
    append(buffer, 1)

    class Full:
        """A file on a disk that takes half of what is written."""

        def __init__(self, file: object) -> None:
            self._file = file

        def write(self, content: bytes) -> int:
            self._file.write(content[: len(content) // 2])  # type: ignore[attr-defined]
            return len(content) // 2

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

    whole = buffer._file
    monkeypatch.setattr(buffer, "_file", Full(whole))
    with pytest.raises(Exception, match="No space left"):
        append(buffer, 2)
    monkeypatch.setattr(buffer, "_file", whole)
    append(buffer, 3)
    assert containers(read(buffer)) == ["c1", "c3"]
    assert containers(read(opened(tmp_path))) == ["c1", "c3"]


def test_a_directory_belongs_to_one_place(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(InvalidConfiguration, match="belongs to the place here"):
        opened(tmp_path, "there")


def test_the_directory_is_its_owners_alone(tmp_path: Path) -> None:
    opened(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "agent.json").stat().st_mode & 0o777 == 0o600
