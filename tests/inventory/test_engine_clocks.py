"""The estimate of an engine's clock by the dates of its answers."""

from __future__ import annotations

import email.utils
import math
import random

import pytest

from digestry.inventory.engines.clocks import EngineClock

NOW = 1_800_000_000.0


def date(at: float) -> str:
    return email.utils.formatdate(math.floor(at), usegmt=True)


@pytest.mark.parametrize("ahead", [-86_400.25, -3600.0, -3.5, 3.7, 12.9, 3600.5])
def test_the_difference_is_known_to_a_second_and_better_with_each_answer(ahead: float) -> None:
    chance, clock, at = random.Random(1), EngineClock(), NOW
    first = None
    for _ in range(60):
        at += chance.random() * 5
        took = chance.random() * 0.02
        clock.note(date(at + ahead + took / 2), at, at + took)
        assert abs(clock.ahead - ahead) < 1.05
        first = clock.ahead if first is None else first
    assert abs(clock.ahead - ahead) < 0.3


@pytest.mark.parametrize("ahead", [-1.4, -0.2, 0.0, 0.7, 1.9])
def test_clocks_that_may_be_equal_are(ahead: float) -> None:
    clock = EngineClock()
    for number in range(50):
        at = NOW + number * 0.37
        clock.note(date(at + ahead), at, at + 0.01)
        assert clock.ahead == 0


def test_a_clock_that_is_set_is_followed_at_once() -> None:
    clock = EngineClock()
    clock.note(date(NOW + 3600), NOW, NOW)
    assert abs(clock.ahead - 3600) <= 1
    clock.note(date(NOW + 10), NOW + 10, NOW + 10)
    assert clock.ahead == 0
    clock.note(date(NOW - 7200), NOW + 20, NOW + 20)
    assert abs(clock.ahead + 7220) <= 1


def test_an_answer_that_took_long_says_little() -> None:
    clock = EngineClock()
    clock.note(date(NOW), NOW - 30, NOW + 30)
    assert clock.ahead == 0


@pytest.mark.parametrize(
    "text", [None, "", "yesterday", "Mon, 99 Foo 2026 25:00:00 GMT", "0", "Fri, 01 Jan 99999 00:00:00 GMT"]
)
def test_no_date_says_nothing(text: str | None) -> None:
    clock = EngineClock()
    clock.note(date(NOW + 100), NOW, NOW)
    before = clock.ahead
    clock.note(text, NOW, NOW)
    assert clock.ahead == before
    clock.note(date(NOW), NOW, NOW - 3600)  # this machine's clock was set between the two
    assert clock.ahead == before
