"""How often something may happen."""

from __future__ import annotations

import pytest

from digestry.registry.event_rates import EventRates


def test_some_at_once_and_then_so_many_a_second() -> None:
    now = [100.0]
    rates = EventRates(2.0, 3, clock=lambda: now[0])
    assert [rates.wait("a") for _ in range(3)] == [0.0] * 3
    assert rates.wait("a") == pytest.approx(0.5)
    assert rates.wait("a") == pytest.approx(0.5)  # one that was refused counts for nothing
    assert rates.wait("b") == 0.0
    now[0] += 0.4
    assert rates.wait("a") == pytest.approx(0.1)
    now[0] += 0.1
    assert rates.wait("a") == 0.0
    assert rates.wait("a") > 0.0
    now[0] += 1000.0
    assert [rates.wait("a") for _ in range(3)] == [0.0] * 3
    assert rates.wait("a") > 0.0


def test_few_are_remembered() -> None:
    rates = EventRates(1.0, 1, most=2, clock=lambda: 0.0)
    assert [rates.wait(key) for key in "abc"] == [0.0] * 3
    assert rates.wait("c") == 1.0
    assert rates.wait("a") == 0.0
