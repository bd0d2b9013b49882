"""What the agent knows of the registry's clock."""

from __future__ import annotations

import datetime

import pytest

from digestry.agent.clock import ClockReading, HostClock
from digestry.agent.registry_clock import RegistryClock


class SetClock(HostClock):
    """A host's clock that a test sets."""

    def __init__(self) -> None:
        self.reading = ClockReading(1000.0, "boot")

    def read(self) -> ClockReading:
        return self.reading


def learned(registry: RegistryClock, *, ago: float, ahead: float) -> bool:
    """A receipt of a registry whose clock is behind by ``ahead`` seconds, for a report sent ``ago``."""
    now = datetime.datetime.now(datetime.UTC)
    sent = now - datetime.timedelta(seconds=ago)
    time = sent + datetime.timedelta(seconds=ago / 2 - ahead)
    return registry.learn(sent, registry.read(), time)


def test_the_time_of_a_receipt_is_believed_if_it_came_soon() -> None:
    registry = RegistryClock(SetClock())
    assert registry.ahead is None
    assert not learned(registry, ago=10.0, ahead=-300.0)
    assert registry.ahead is None
    assert learned(registry, ago=1.0, ahead=5.0)
    assert registry.ahead == pytest.approx(5.0, abs=0.5)
    assert not learned(registry, ago=10.0, ahead=-300.0)
    assert registry.ahead == pytest.approx(5.0, abs=0.5)


def test_a_clock_that_is_set_is_followed_until_the_machine_starts_again() -> None:
    clock = SetClock()
    registry = RegistryClock(clock)
    learned(registry, ago=0.1, ahead=0.0)
    clock.reading = ClockReading(1000.0 - 3600.0, "boot")
    assert registry.ahead == pytest.approx(-3600.0, abs=0.5)
    clock.reading = ClockReading(1000.0, "another")
    assert registry.ahead is None
