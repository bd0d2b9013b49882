"""The parts in which large blobs are sent: large for one client, small for many."""

from __future__ import annotations

import contextlib

import pytest

from digestry.registry.chunk_size import AMONG_OTHERS, LARGEST, LEAST, SMALLEST, ChunkSize


@pytest.mark.parametrize("alone", [True, False])
def test_the_more_are_sent_the_smaller_they_are(alone: bool) -> None:
    parts = ChunkSize()
    first = LARGEST if alone else AMONG_OTHERS
    assert parts.size(alone=alone) == first
    sizes = []
    with contextlib.ExitStack() as stack:
        for number in range(1, 1001):
            stack.enter_context(parts.sending())
            size = parts.size(alone=alone)
            assert size == LEAST or size * number <= 32 << 20
            sizes.append(size)
    assert sizes[0] == first
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == LEAST
    assert parts.size(alone=alone) == first


def test_the_more_are_sent_the_less_may_be_under_way_to_each_and_the_later_it_is_looked_again() -> None:
    parts = ChunkSize()
    together = 0
    with contextlib.ExitStack() as stack:
        allowed, pause = parts.under_way, parts.pause
        assert allowed >= LARGEST
        for number in range(1, 10_001):
            stack.enter_context(parts.sending())
            assert parts.under_way <= allowed
            assert parts.pause >= pause
            allowed, pause = parts.under_way, parts.pause
            together += allowed if number >= 64 else 0
        assert allowed == SMALLEST
        assert number / pause <= 2000
        assert together < 200 << 20, "however they come, one after the other"
