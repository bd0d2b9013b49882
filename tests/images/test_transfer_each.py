"""The threads of a transfer: how many blobs have their bytes under way, and what else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from digestry.errors import NotFound
from digestry.images.transfer import SilentObserver, transfer_each
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from tests.support import PATIENCE

_SIZE = 100_000


def blobs(count: int) -> list[Descriptor]:
    return [Descriptor(media_types.OCI_LAYER, Digest.of(bytes([n])), _SIZE) for n in range(count)]


def test_while_one_is_made_durable_the_bytes_of_the_next_come() -> None:
    first, second = blobs(2)
    came = threading.Event()
    ended: list[Digest] = []

    def work(descriptor: Descriptor, progress: Callable[[int], None]) -> None:
        if descriptor == first:
            progress(_SIZE)
            assert came.wait(PATIENCE), "the second one waits for the disk"
        else:
            progress(1)
            came.set()
        ended.append(descriptor.digest)

    transfer_each([first, second], work, SilentObserver(), 1)
    assert set(ended) == {first.digest, second.digest}


@pytest.mark.parametrize("count", [2, 6])
def test_from_far_away_half_as_many_again_come_at_once(count: int) -> None:
    together = threading.Barrier(count)
    few = [Descriptor(media_types.OCI_LAYER, Digest.of(bytes([n])), 10) for n in range(count)]

    def work(_: Descriptor, __: Callable[[int], None]) -> None:
        together.wait(PATIENCE)

    transfer_each(few, work, SilentObserver(), 4, is_far=True)


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_than_so_many_have_their_bytes_under_way(parallel: int) -> None:
    lock = threading.Lock()
    under_way, most = 0, 0
    others = threading.Barrier(parallel)

    def work(_: Descriptor, progress: Callable[[int], None]) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        others.wait(PATIENCE)  # as many as may be are
        for _tenth in range(9):
            progress(_SIZE // 10)
        with lock:
            under_way -= 1
        progress(_SIZE // 10)

    transfer_each(blobs(4 * parallel), work, SilentObserver(), parallel)
    assert most == parallel


def test_a_blob_that_is_here_already_lets_the_next_begin() -> None:
    seen: list[Digest] = []
    transfer_each(blobs(20), lambda descriptor, _: seen.append(descriptor.digest), SilentObserver(), 2)
    assert len(seen) == 20


def test_bytes_that_come_again_after_all_have_come_are_counted_down_and_up() -> None:
    def work(_: Descriptor, progress: Callable[[int], None]) -> None:
        for count in (_SIZE, -_SIZE, _SIZE):
            progress(count)

    transfer_each(blobs(5), work, SilentObserver(), 2)


def test_the_first_failure_ends_the_others() -> None:
    begun: list[Digest] = []

    def work(descriptor: Descriptor, progress: Callable[[int], None]) -> None:
        begun.append(descriptor.digest)
        if len(begun) == 2:
            raise NotFound("it is gone")
        progress(_SIZE)

    with pytest.raises(NotFound, match="it is gone"):
        transfer_each(blobs(50), work, SilentObserver(), 2)
    assert len(begun) < 50
