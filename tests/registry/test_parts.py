"""The parts in which large blobs are sent: large for one client, small for many."""

from __future__ import annotations

import contextlib

import pytest

from digestry.registry.parts import AMONG_OTHERS, LARGEST, LEAST, Parts


@pytest.mark.parametrize("alone", [True, False])
def test_the_more_are_sent_the_smaller_they_are(alone: bool) -> None:
    parts = Parts()
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
