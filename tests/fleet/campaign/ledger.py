"""The ledger of what containers really did, and its comparison with a registry's runs.

Times are seconds since 1970 by this machine's clock.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fleet.support import FLEET
from tests.support import RegistryServer


@dataclass(slots=True)
class Life:
    """One start of a container, and its end: each between two times, equal where the engine's own time is
    known."""

    container: str
    started: tuple[float, float]
    ended: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """A time of which an agent said that it knows nothing."""

    since: float
    until: float
    reason: str


@dataclass(slots=True)
class Found:
    """How the registry's runs differ from the ledger: the containers of each difference, with the reason."""

    lives: int = 0
    runs: int = 0
    ends_seen: int = 0
    ends_between: int = 0
    in_gaps: int = 0
    """Lives that the registry does not have, and that began and ended in a gap that was reported."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    prolonged: list[str] = field(default_factory=list)
    shortened: list[str] = field(default_factory=list)
    _containers: dict[str, None] = field(default_factory=dict)

    def add(self, difference: str, container: str, what: str) -> None:
        """Note a difference of a container."""
        getattr(self, difference).append(what)
        self._containers[container] = None

    def containers(self) -> list[str]:
        """Return the containers that differ, each once."""
        return list(self._containers)

    @property
    def wrong(self) -> int:
        return sum(map(len, (self.lost, self.doubled, self.invented, self.prolonged, self.shortened)))

    def __str__(self) -> str:
        counts = (
            f"{self.lives} lives, {self.runs} runs, {self.ends_seen} ends seen and {self.ends_between}"
            f" between two times, {self.in_gaps} lives in gaps"
        )
        wrong = {
            name: (len(listed), listed[:5])
            for name in ("lost", "doubled", "invented", "prolonged", "shortened")
            if (listed := getattr(self, name))
        }
        return f"{counts}; {wrong or 'no difference'}"


@dataclass(slots=True)
class Ledger:
    """What happened, as the one who did it knows."""

    lives: list[Life] = field(default_factory=list)

    def compare(
        self, runs: Iterable[Mapping[str, Any]], gaps: Iterable[Gap] = (), *, tolerance: float
    ) -> Found:
        """Return how ``runs``, as the registry answers them, differ from what happened."""
        mine: dict[str, list[Life]] = defaultdict(list)
        theirs: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for life in self.lives:
            mine[life.container].append(life)
        for run in runs:
            theirs[run["container"]].append(run)
        found = Found(len(self.lives), sum(map(len, theirs.values())))
        known = list(gaps)
        for container in sorted(mine.keys() | theirs.keys()):
            _compare(found, mine[container], theirs[container], known, tolerance)
        return found


def _compare(
    found: Found,
    lives: list[Life],
    runs: list[Mapping[str, Any]],
    gaps: list[Gap],
    tolerance: float,
) -> None:
    """Add how the ``runs`` of one container differ from its ``lives``."""
    left = sorted(runs, key=lambda run: str(run["from"]))
    for life in sorted(lives, key=lambda life: life.started):
        low, high = life.started[0] - tolerance, life.started[1] + tolerance
        same = [run for run in left if low <= _seconds(run["from"]) <= high]
        if not same:
            if _within(life, gaps, tolerance):
                found.in_gaps += 1
            else:
                what = f"{life.container}, started {life.started}, ended {life.ended}; {runs}"
                found.add("lost", life.container, what)
            continue
        run = same[0]
        left.remove(run)
        _compare_ends(found, life, run, tolerance)
    for run in left:
        near = [life for life in lives if life.started[0] - tolerance <= _seconds(run["from"])]
        found.add("doubled" if near else "invented", str(run["container"]), f"{run}; {lives}")


def _compare_ends(found: Found, life: Life, run: Mapping[str, Any], tolerance: float) -> None:
    what = f"{life.container}: started {life.started}, ended {life.ended}; {run}"
    until = run.get("until")
    if until is None:
        if life.ended is not None:
            found.add("prolonged", life.container, what)
        return
    if life.ended is None:
        found.add("shortened", life.container, what)
        return
    end, after = _seconds(until), _seconds(run["untilAfter"])
    if end == after:
        found.ends_seen += 1
    else:
        found.ends_between += 1
    if end < life.ended[0] - tolerance:
        found.add("shortened", life.container, what)
    elif after > life.ended[1] + tolerance:
        found.add("prolonged", life.container, what)


def _within(life: Life, gaps: list[Gap], tolerance: float) -> bool:
    return life.ended is not None and any(
        gap.since - tolerance <= life.started[0] and life.ended[1] <= gap.until + tolerance for gap in gaps
    )


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def runs_of(server: RegistryServer, place: str, since: float = 0.0) -> list[dict[str, Any]]:
    """Return all runs of a place that the registry has, page by page."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        answer = server.request("GET", f"{FLEET}/runs?n=1000&ever=1&place={place}{after}")
        assert answer.status == 200, answer.body
        page = json.loads(answer.body)
        found += page["runs"]
        if not page.get("next"):
            numbers = Counter(run["number"] for run in found)
            # A run that ends between two pages may be on both.
            return [run for run in found if numbers[run["number"]] == 1 or run.get("until")]
        after = f"&after={page['next']}"


def gaps_of(server: RegistryServer, place: str) -> list[Gap]:
    """Return the gaps that agents reported for a place."""
    answer = server.request("GET", f"{FLEET}/places?n=1000&place={place}")
    assert answer.status == 200, answer.body
    return [
        Gap(_seconds(gap["from"]), _seconds(gap["until"]), gap["reason"])
        for gap in json.loads(answer.body).get("gaps", ())
    ]
