"""How SQLite finds runs: by an index, without a walk through all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event

from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet.run_pages import RunFilter
from digestry.catalog.fleet.selection import ImageFilter
from digestry.model.digest import Digest
from tests.backends import sqlite_database
from tests.catalog.fleet_support import Agent
from tests.catalog.support import Clock, collected, image, put

DIGEST = ImageFilter(digest=Digest.of(b"app"))


@pytest.fixture
def plans(catalog: Catalog) -> Iterator[Callable[[], str]]:
    """The plans of all statements so far that read runs."""
    found: list[str] = []

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "fleet_runs" in statement and not statement.startswith(("INSERT", "EXPLAIN")):
            rows = connection.connection.driver_connection.execute(
                f"EXPLAIN QUERY PLAN {statement}", parameters
            )
            found.extend(str(row[-1]) for row in rows)

    engines = (sqlite_database(catalog)._reading, sqlite_database(catalog)._writing)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", explain)
    yield lambda: "\n".join(found)
    for engine in engines:
        event.remove(engine, "before_cursor_execute", explain)


ASKED: dict[str, Callable[[Catalog, int], object]] = {
    "running": lambda catalog, now: catalog.fleet.runs(now=now, limit=9),
    "of a digest": lambda catalog, now: catalog.fleet.runs(RunFilter(DIGEST, ever=True), now=now, limit=9),
    "at a time": lambda catalog, now: catalog.fleet.runs(RunFilter(DIGEST, at=now), now=now, limit=9),
    "changes": lambda catalog, now: catalog.fleet.changes(since=now - 9, until=now, now=now, limit=9),
    "those that ran once": lambda catalog, now: catalog.fleet.runs(RunFilter(at=now), now=now, limit=9),
    "states": lambda catalog, now: catalog.fleet.state_history(since=now - 9, now=now),
    "summary": lambda catalog, now: catalog.fleet.summary(now=now),
    "timeline": lambda catalog, now: catalog.fleet.timeline(RunFilter(DIGEST), now=now),
    "old runs": lambda catalog, now: catalog.fleet_retention.prune(keep=9, now=now),
    "garbage": lambda catalog, now: collected(catalog),
}


@pytest.mark.parametrize("asked", ASKED)
def test_no_question_walks_through_all_runs(
    asked: str, catalog: Catalog, clock: Clock, plans: Callable[[], str]
) -> None:
    put(catalog, "app", image(catalog, "app"))
    agent = Agent(catalog, clock)
    agent.send(agent.started("c1", -9), agent.stopped("c1", -1), agent.started("c2"), agent.snapshot())
    ASKED[asked](catalog, clock.now)
    found = plans()
    walks = [
        line
        for line in found.splitlines()
        if line.startswith(("SCAN fleet_runs", "SCAN running"))
        and "INDEX fleet_runs_run" not in line
        and "INDEX fleet_runs_open" not in line
    ]
    assert not walks, found
    assert "fleet_runs" in found


@pytest.mark.parametrize("asked", ["running", "of a digest", "changes", "summary", "timeline", "states"])
def test_rows_are_read_for_the_page_alone(
    asked: str, catalog: Catalog, clock: Clock, plans: Callable[[], str]
) -> None:
    """All that is counted or sorted is in an index."""
    agent = Agent(catalog, clock)
    agent.send(agent.started("c1", -9), agent.stopped("c1", -1), agent.started("c2"), agent.snapshot())
    catalog.fleet.runs(now=clock.now, limit=1)
    before = len(plans())
    ASKED[asked](catalog, clock.now)
    found = plans()[before:]
    reads = [line for line in found.splitlines() if " fleet_runs USING " in line]
    assert all("COVERING INDEX" in line or "PRIMARY KEY" in line for line in reads), found
    assert any("COVERING INDEX" in line for line in reads), found


def test_what_is_silent_is_known_without_the_runs(
    catalog: Catalog, clock: Clock, plans: Callable[[], str]
) -> None:
    agent = Agent(catalog, clock)
    agent.send(agent.started("c1"))
    before = plans()
    catalog.fleet.places(now=clock.now, limit=9, silent=True)
    assert plans() == before
