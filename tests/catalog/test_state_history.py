"""How many containers ran over time by state, over each database."""

from __future__ import annotations

from digestry.catalog import clock as times
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet.selection import EVERYBODY, Asker
from digestry.catalog.fleet.state_history import STEPS
from tests.catalog.fleet_support import Agent
from tests.catalog.support import Clock

HOUR = 3600 * times.SECOND


def test_starts_and_ends_are_counted_back_from_now(catalog: Catalog, clock: Clock) -> None:
    agent = Agent(catalog, clock)
    agent.send(agent.started("old", -50 * 3600), agent.started("stays", -30 * 3600))
    agent.send(agent.stopped("old", -20 * 3600))
    agent.send(agent.started("short", -12 * 3600), agent.stopped("short", -6 * 3600))
    agent.send(agent.started("gone", -90 * 3600), agent.stopped("gone", -80 * 3600))
    since = clock.now - 48 * HOUR
    found = catalog.fleet.state_history(EVERYBODY, since=since, now=clock.now)
    assert len(found) == STEPS
    assert [count.at for count in found] == sorted(count.at for count in found)
    assert found[-1].at == clock.now

    def running(hours_ago: float) -> int:
        at = clock.now - int(hours_ago * HOUR)
        return sum(next(count for count in found if count.at >= at).containers.values())

    assert [running(hours) for hours in (47, 31, 29, 21, 19, 13, 11, 7, 5, 0)] == [
        1,
        1,
        2,
        2,
        1,
        1,
        2,
        2,
        1,
        1,
    ]
    assert {state for count in found for state in count.containers} == {"unjudged"}


def test_only_of_images_that_the_asker_may_know(catalog: Catalog, clock: Clock) -> None:
    agent = Agent(catalog, clock)
    agent.send(agent.started("c", -3600))
    nobody = Asker(everything=False, may_audit=lambda _: False)
    found = catalog.fleet.state_history(nobody, since=clock.now - HOUR, now=clock.now)
    assert not any(count.containers for count in found)
    assert len(catalog.fleet.state_history(nobody, since=clock.now, now=clock.now)) == STEPS
