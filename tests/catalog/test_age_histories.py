"""What minimum ages answer in the course of sixty histories, in each database and in whatever time zone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import pytest

from digestry.backend import Backend
from digestry.catalog.age_policy import AgePolicy, AgeRule
from digestry.catalog.catalog import Catalog
from tests.catalog.age_histories import History, Stage, days
from tests.catalog.support import Clock

_DAY: Final = AgeRule(days("1d"))
_WEEK: Final = AgeRule(days("7d"))
_MONTH: Final = AgeRule(days("30d"))


def _for(age: str, *tags: str, exclude: tuple[str, ...] = ()) -> AgeRule:
    return AgeRule(days(age), tags=tags or ("*",), exclude=exclude)


BOUNDARIES: Final = (
    History(
        "a week to the second, whatever the clock on the wall does meanwhile",
        "push 1 A; wait 6d23h59m59s; ask 1 young 6d23h59m59s; wait 1s; ask 1 A 7d",
    ),
    History(
        "the newer one becomes the answer at its second",
        "push 1 A; wait 8d; push 1 B; wait 6d23h59m59s; ask 1 A 8d; get B no; wait 1s; ask 1 B 7d; get B yes",
    ),
    History(
        "a move at the second at which the old one is old enough",
        "push 1 A; wait 7d; push 1 B; ask 1 A 7d; get A yes",
    ),
    History(
        "a move a second before that",
        "push 1 A; wait 6d23h59m59s; push 1 B; wait 1d; ask 1 young 6d23h59m59s; get A no; get B no",
    ),
    History(
        "the week over a new year, at the end of which nothing is special",
        "wait 64d; push 1 A; wait 6d; ask 1 young; wait 1d; ask 1 A 7d; wait 400d; ask 1 A 407d",
    ),
)

OWN: Final = (
    History(
        "the same digest under two tags", "push 1 A; wait 8d; push 2 A; ask 1 A 8d; ask 2 young 0s; get A yes"
    ),
    History(
        "aged under a tag of the attacker's own",
        "push 1 A; push side B; wait 30d; push 1 B; ask 1 A 30d; wait 6d; ask 1 A 30d; wait 1d; ask 1 B 7d",
    ),
    History(
        "aged by its digest alone",
        "bare B; get B yes; wait 30d; push 1 B; ask 1 young 0s; get B no; wait 7d; ask 1 B 7d; get B yes",
    ),
    History(
        "pushed again each day, which is no move",
        "push 1 A; wait 1d; push 1 A; wait 1d; push 1 A; wait 4d; push 1 A; wait 1d; ask 1 A 7d",
    ),
    History(
        "vanished, and made again with the same digest",
        "push 1 A; wait 5d; delete 1; ask 1 absent; wait 10d; push 1 A; ask 1 young 5d; wait 2d; ask 1 A 7d",
    ),
    History(
        "vanished, and made again with another digest",
        "push 1 A; wait 8d; delete 1; wait 1d; push 1 B; ask 1 A 8d; get B no; wait 7d; ask 1 B 7d",
    ),
    History(
        "vanished, and made again with another digest, nothing old enough",
        "push 1 A; wait 3d; delete 1; wait 30d; push 1 B; wait 3d; ask 1 young 3d; wait 4d; ask 1 B 7d",
    ),
    History(
        "deleted: by its name it is gone, by its digest it is as old as it was",
        "push 1 A; wait 8d; delete 1; ask 1 absent; get A yes; push 2 B; wait 1d; delete 2; get B no",
    ),
    History(
        "there and back, and the days add up",
        "push 1 A; wait 3d; push 1 B; wait 3d; push 1 A; wait 3d; ask 1 young 6d; wait 1d; "
        "ask 1 A 7d; get B no",
    ),
    History(
        "back to what is old enough, at once",
        "push 1 A; wait 8d; push 1 B; wait 8d; ask 1 B 8d; push 1 A; ask 1 A 8d; wait 1s; push 1 B; "
        "ask 1 B 8d",
    ),
    History(
        "who came last is the newest, not who is oldest",
        "push 1 A; wait 9d; push 1 B; wait 8d; push 1 C; wait 1d; ask 1 B 8d; push 1 A; wait 1h; "
        "push 1 C; ask 1 A 9d1h",
    ),
    History(
        "three moves within seconds",
        "push 1 A; wait 7d; push 1 B; wait 1s; push 1 C; wait 1s; push 1 D; wait 1d; ask 1 A 7d; "
        "wait 6d; ask 1 D 7d",
    ),
    History(
        "two tags in one push go their own ways",
        "push 1,1.5 A; wait 7d1s; push 1 B; ask 1 A 7d1s; ask 1.5 A 7d1s; wait 7d; ask 1 B 7d; "
        "ask 1.5 A 14d1s",
    ),
    History(
        "a new tag has no predecessor",
        "push 1 A; wait 30d; push 2 B; ask 2 young 0s; ask 1 A 30d; ask 3 absent",
    ),
    History(
        "restarts forget nothing",
        "push 1 A; restart; wait 4d; restart; push 1 B; restart; wait 1h; push 1 A; wait 3d; "
        "restart; ask 1 A 7d",
    ),
)

RULES: Final = (
    History(
        "release tags have a day, the others a week",
        "push v1,latest A; wait 1d1s; ask v1 A 1d1s; ask latest young 1d1s; get A yes; wait 6d; "
        "ask latest A 7d1s",
        (_for("1d", "v*"), _WEEK),
    ),
    History(
        "a stricter rule that comes later is not reached",
        "push v1 A; wait 1d; ask v1 A 1d",
        (_DAY, _for("30d", "v*")),
    ),
    History(
        "an exception before the rule",
        "push edge A; ask edge A; get A yes; push 1 B; ask 1 young; get B no",
        (_for("0s", "edge"), _WEEK),
    ),
    History(
        "what the rule leaves out has none",
        "push rc-1 A; ask rc-1 A; push 1 B; ask 1 young; wait 7d1s; ask 1 B 7d1s",
        (_for("7d", "*", exclude=("rc-*",)),),
    ),
    History(
        "a tag without an age opens its digest, and no other tag",
        "push 1 A; wait 8d; push edge B; push 1 B; get B yes; ask 1 A 8d; push 1 C; get C no",
        (_for("0s", "edge"), _WEEK),
    ),
    History(
        "a rule of another repository is none here",
        "push 1 A; ask 1 A; get A yes",
        (AgeRule(days("7d"), repositories=("team/**",)),),
    ),
)

OVERRIDES: Final = (
    History(
        "by its tag it is of the digest of that moment",
        "push 1 A; wait 8d; push 1 B; allow 1; ask 1 B; push 1 C; ask 1 B; get C no; push 1 B; ask 1 B",
    ),
    History(
        "it ends at its second, and has aged nothing",
        "push 1 A; wait 8d; push 1 B; allow 1 for 2d; wait 1d23h59m59s; ask 1 B; wait 1s; "
        "ask 1 A 8d; get B no; "
        "wait 5d; ask 1 B 7d",
    ),
    History(
        "taken back",
        "push 1 A; wait 8d; push 1 B; allow 1; ask 1 B; revoke; ask 1 A 8d; get B no; allow 1; ask 1 B",
    ),
    History(
        "by its tag it is of that tag alone",
        "push 1,2 A; wait 8d; push 1,2 B; allow 1; ask 1 B; ask 2 A 8d",
    ),
    History(
        "by its digest it is of any tag, those to come too",
        "push 1 A; wait 8d; bare B; allow @B; push 1,2 B; ask 1 B; ask 2 B; get B yes; push 1 C; ask 1 B",
    ),
    History(
        "of all of a repository, for a day",
        "push 1 A; wait 8d; push 1 B; allow * for 1d; push 1 C; ask 1 C; get C yes; wait 1d; "
        "ask 1 A 8d; get C no",
    ),
    History(
        "it brings no deleted tag back",
        "push 1 A; allow 1; delete 1; ask 1 absent; push 1 B; ask 1 A; push 1 A; ask 1 A",
    ),
    History(
        "of the older one, which has not come back",
        "push 1 A; wait 2d; allow 1; wait 1s; push 1 B; wait 1d; ask 1 A 2d1s; wait 6d; ask 1 B 7d",
    ),
    History(
        "an advisory names the fix",
        "push 1 A; wait 8d; push 1 B; advise B; ask 1 B; get B yes; push 1 C; ask 1 B; unadvise; ask 1 A 8d",
    ),
    History(
        "the advisory is back, and then somebody says no",
        "push 1 A; wait 8d; push 1 B; advise B; unadvise; advise B; ask 1 B; revoke; ask 1 A 8d; "
        "advise B; ask 1 A 8d",
    ),
    History(
        "an override and a clock that was ahead",
        "push 1 A; wait 1d; clock +30d; push 1 B; clock -30d; ask 1 clock; allow @A; ask 1 A; "
        "revoke; ask 1 clock",
    ),
)

CONTENT: Final = (
    History(
        "what an old index held is old, what the new one adds is not",
        "index 1 I A; wait 8d; index 1 J A B; ask 1 I 8d; get I yes; get A yes; get J no; get B no; "
        "wait 7d; get B yes",
    ),
    History(
        "a signature goes with its image, whatever its own age",
        "push 1 A; wait 8d; sign A; get sA yes; push 1 B; sign B; get sB no; wait 7d1s; get sB yes",
    ),
    History("what nobody ever tagged is served", "bare A; get A yes; push 1 B; get A yes; get B no"),
)

CLOCKS: Final = (
    History(
        "ahead for a push, and right again",
        "push 1 A; wait 1d; clock +30d; push 1 B; clock -30d; ask 1 clock; wait 1d; push 1 C; ask 1 clock;"
        "wait 31d; ask 1 young; wait 5d; ask 1 young; wait 1d; ask 1 C",
    ),
    History(
        "ahead for two pushes: the first one shows nothing by itself",
        "push 1 A; wait 1d; clock +30d; push 1 B; wait 5s; push 1 C; clock -30d; wait 1h; push 1 D;"
        "wait 31d; ask 1 young; get A no; get B no; wait 7d; ask 1 D",
    ),
    History(
        "ahead for a push to another tag, after which this one moves",
        "push 1 A; wait 1d; clock +30d; push 2 X; clock -30d; wait 1h; push 1 B; wait 31d; "
        "ask 1 young; get A no; "
        "wait 7d; ask 1 B",
    ),
    History(
        "what other tags got in between changes nothing",
        "push 1 A; wait 1d; clock +30d; push 1 B; clock -30d; push 2 X; push 2 Y; push 3 Z; "
        "wait 1h; push 1 C; "
        "wait 31d; ask 1 young; get A no; wait 7d; ask 1 C",
    ),
    History(
        "old enough before the clock was ahead",
        "push 1 A; wait 8d; push 1 B; wait 1d; clock +30d; push 1 C; wait 5s; push 1 D; clock -30d; wait 1h;"
        "push 1 E; ask 1 A 8d; wait 31d; ask 1 A 8d; get C no; get D no; wait 7d; ask 1 E",
    ),
    History(
        "a deletion while it was ahead",
        "push 1 A; wait 1d; clock +30d; delete 1; clock -30d; wait 1h; push 1 A; wait 31d; "
        "ask 1 young; wait 7d; ask 1 A",
    ),
    History(
        "set back by the hour that somebody took for winter",
        "push 1 A; wait 6d; clock -1h; wait 1d; ask 1 young 6d23h; push 1 B; wait 1h; "
        "ask 1 young 6d23h; get A no",
    ),
    History(
        "set back by seconds, between two pushes",
        "push 1 A; wait 8d; push 1 B; clock -5s; push 1 C; wait 7d; ask 1 A 8d; wait 6s; ask 1 C 7d1s",
    ),
)

OBSERVED: Final = (
    History(
        "a week of observations, the last of which makes it old enough",
        "observe 1 1h; watch 1 A 6d23h; ask 1 young 6d23h; wait 59m; ask 1 young 6d23h; wait 1m; "
        "see 1 A; ask 1 A 7d",
    ),
    History(
        "the observation at the boundary fails",
        "observe 1 1h; watch 1 A 6d23h; wait 1h; see 1 !; ask 1 young 6d23h; wait 1h; see 1 A; "
        "ask 1 young 6d23h; "
        "wait 1h; see 1 A; ask 1 A 7d",
    ),
    History(
        "each no later than two intervals, and each a second too late",
        "observe 1 1d; see 1 A; wait 2d; see 1 A; wait 2d; see 1 A; wait 2d; see 1 A; wait 2d; "
        "see 1 A; ask 1 A 8d; "
        "observe 2 1d; see 2 B; wait 2d1s; see 2 B; wait 2d1s; see 2 B; wait 2d1s; see 2 B; "
        "wait 2d1s; see 2 B; ask 2 young 0s",
    ),
    History(
        "pulls alone, one a day, are not observations of the time between",
        "observe 2 1h; pull 1 A; wait 1d; pull 1 A; wait 1d; pull 1 A; wait 6d; pull 1 A; "
        "ask 1 young 0s; get A no",
    ),
    History(
        "pulls between the observations change no sum",
        "observe 1 1h; watch 1 A 3d; wait 20m; pull 1 A; wait 40m; watch 1 A 3d; wait 1m; pull 1 A; "
        "ask 1 young 6d1h1m; "
        "wait 59m; watch 1 A 22h; ask 1 A 7d",
    ),
    History(
        "a pull that finds a move goes on where the observer was",
        "observe 1 1h; watch 1 A 8d; wait 10m; pull 1 B; ask 1 A 8d; wait 50m; watch 1 B 6d23h; ask 1 A 8d;"
        "wait 10m; see 1 B; ask 1 B 7d",
    ),
    History(
        "old at the other registry, first seen today",
        "observe 1 1h; watch 1 A 1h; ask 1 young 1h; get A no; watch 1 A 6d23h; ask 1 A 7d; get A yes",
    ),
    History(
        "aged under another of its tags",
        "observe 1 1h; observe 2 1h; watch 1 A 8d; wait 1h; see 2 A; ask 2 young 0s; get A yes; "
        "watch 2 A 7d; ask 2 A 7d",
    ),
    History(
        "there and back within the interval leaves no trace",
        "observe 1 1h; watch 1 A 3d; wait 1h; watch 1 A 3d23h; ask 1 A 7d",
    ),
    History(
        "there and back, seen",
        "observe 1 1h; watch 1 A 4d; wait 1h; see 1 B; wait 1h; watch 1 A 2d23h; ask 1 young 6d23h; "
        "wait 1h; see 1 A; "
        "ask 1 A 7d; get B no",
    ),
    History(
        "vanished there, and made again",
        "observe 1 1h; watch 1 A 4d; wait 1h; see 1 -; ask 1 absent; wait 1d; watch 1 A 3d; ask 1 A 7d",
    ),
    History(
        "vanished there, and made again with another digest",
        "observe 1 1h; watch 1 A 8d; wait 1h; see 1 -; ask 1 absent; get A yes; wait 1d; see 1 B; "
        "ask 1 A 8d; get B no",
    ),
    History(
        "the observer did not run for a month, and it had moved",
        "observe 1 1h; watch 1 A 6d; wait 30d; see 1 B; ask 1 young 6d; get A no; watch 1 B 7d; "
        "ask 1 B 7d; get A no",
    ),
    History(
        "the observer did not run for a month, and it had not",
        "observe 1 1h; watch 1 A 6d; wait 30d; see 1 A; ask 1 young 6d; watch 1 A 1d; ask 1 A 7d",
    ),
    History(
        "restarts within the interval are no gap, and longer ones are",
        "observe 1 1h; watch 1 A 3d; restart; wait 1h; see 1 A; wait 2h; restart; see 1 A; "
        "ask 1 young 3d3h; wait 2h1s; "
        "restart; see 1 A; ask 1 young 3d3h; watch 1 A 3d21h; ask 1 A 7d",
    ),
    History(
        "away for a day",
        "observe 1 1h; watch 1 A 4d; wait 1h; see 1 !; wait 12h; see 1 !; wait 11h; "
        "watch 1 A 2d23h; ask 1 young 6d23h; "
        "wait 1h; see 1 A; ask 1 A 7d",
    ),
    History("nothing but failures", "observe 1 1h; see 1 !; wait 7d; see 1 !; ask 1 absent; get A no"),
    History(
        "the clock went back three hours",
        "observe 1 1h; watch 1 A 4d; clock -3h; watch 1 A 3d; ask 1 young 6d21h; watch 1 A 3h; ask 1 A 7d",
    ),
    History(
        "the clock was ten days ahead for one observation",
        "observe 1 1h; watch 1 A 3d; clock +10d; wait 1h; see 1 A; clock -10d; wait 1h; "
        "watch 1 A 3d22h; ask 1 clock 6d22h; "
        "wait 1h; see 1 A; wait 1h; see 1 A; ask 1 A 7d",
    ),
    History(
        "an override of a stranger's tag, which then moves",
        "observe 1 1h; watch 1 A 8d; wait 1h; see 1 B; allow 1; ask 1 B; get B yes; wait 1h; "
        "see 1 C; ask 1 B; get C no",
    ),
    History(
        "what was old enough once is served by its digest for years",
        "observe 1 4d; watch 1 A 8d; wait 4d; watch 1 B 500d; ask 1 B 500d; get A yes; prune 400d; "
        "get A yes; ask 1 B 500d",
    ),
)

HISTORIES: Final = (*BOUNDARIES, *OWN, *RULES, *OVERRIDES, *CONTENT, *CLOCKS, *OBSERVED)


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone in which an hour comes twice in each history's first days."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(one, id=one.name, marks=[pytest.mark.long] if one in OBSERVED[8:] else [])
        for one in HISTORIES
    ],
)
def test_a_history(backend: Backend, catalog: Catalog, clock: Clock, history: History) -> None:
    stage = Stage(backend, catalog, clock, AgePolicy(history.rules))
    try:
        stage.play(history.script)
        assert stage.asked == []
        assert stage.catalog.verify_journal() is None
    finally:
        stage.catalog.close()


def test_the_histories_differ() -> None:
    assert (
        len({one.name for one in HISTORIES}) == len({one.script for one in HISTORIES}) == len(HISTORIES) >= 60
    )
