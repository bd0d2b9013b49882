"""The ages of digests: histories as data, each with what a minimum age of seven days must answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import pytest

from digestry.model import age_answers
from digestry.model.digest import Digest
from digestry.model.tag_age import (
    AgedTag,
    ObservedSpan,
    Refusal,
    TagMove,
    TagRecord,
    decide,
    from_moves,
    from_observations,
)

DAY: Final = 86_400_000_000
START: Final = 20_000 * DAY
_UNITS: Final = {"h": DAY // 24, "m": DAY // 1440, "s": 1_000_000, "u": 1}
_TIME: Final = re.compile(r"([0-9]+)(?:([+-])([0-9]+)([hmsu]))?")


@dataclass(frozen=True)
class History:
    """A tag's history, the present, and the answer that is expected of it.

    A time is in days: ``30``, or ``30+3h`` (hours, minutes, seconds, microseconds). ``moves`` are a letter
    for a digest, or ``-`` for none, each with its time, and with ``<1`` if the clock said 1. ``spans`` are
    what was observed, from when to when: a letter, ``-`` for absent, ``!`` for failed; None for a tag of this
    registry.
    """

    name: str
    moves: str
    now: str
    chosen: str | None = None
    newer: str = ""
    refusal: Refusal | None = None
    age: str | None = None
    """Of the chosen digest; of the oldest one with a refusal."""
    spans: str | None = None
    least: str = "7"
    let: str = ""
    """The digests that are let through."""


OWN: Final = (
    # -- a tag of this registry ----------------------------------------------------------------
    History("never there", "", "10", refusal="absent"),
    History("stands for long", "A0", "30", "A", age="30"),
    History("stands for a moment", "A0", "0+14m", None, "A", refusal="young", age="0+14m"),
    History("to the microsecond", "A0", "7", "A", age="7"),
    History("a microsecond too short", "A0", "7-1u", None, "A", refusal="young"),
    History("moved three hours ago", "A0 B30", "30+3h", "A", "B", age="30"),
    History("moved a week ago", "A0 B30", "37", "B", age="7"),
    History("moved just under a week ago", "A0 B30", "37-1u", "A", "B"),
    History("two moves within the week", "A0 B30 C32", "33", "A", "CB", age="30"),
    History("the middle one stood", "A0 B30 C40", "41", "B", "C", age="10"),
    History("the first stood too short", "A0 B3", "8", None, "BA", refusal="young", age="5"),
    History("the first is old enough alone", "A0 B7 C8", "9", "A", "CB", age="7"),
    History(
        "moves each day",
        "A0 B1 C2 D3 E4 F5 G6 H7 I8 J9 K10 L11 M12 N13 O14 P15 Q16 R17 S18 T19",
        "20",
        None,
        "TSRQPONMLKJIHGFEDCBA",
        refusal="young",
        age="1",
    ),
    History("moves each day after a long rest", "A0 B30 C31 D32 E33 F34", "36", "A", "FEDCB", age="30"),
    History("rests after daily moves", "A0 B1 C2 D3 E4", "12", "E", age="8"),
    # -- moves back ----------------------------------------------------------------------------
    History("moved back after an hour", "A0 B30 A30+1h", "31", "A", age="30+23h"),
    History("moved back, counts on", "A0 B4 A5", "8", "A", age="7"),
    History("moved back, not there yet", "A0 B4 A5", "7+12h", None, "AB", refusal="young", age="6+12h"),
    History("restored after a bad release", "A0 B30 A30+1m B30+2h", "30+5h", "A", "B"),
    History("back and forth adds up", "A0 B1 A2 B3 A4 B5 A6 B7 A8 B9 A10 B11 A12", "13", "A", age="7"),
    History(
        "the one before, not the oldest, after a move back", "A0 B10 A20 C20+2h", "21", "A", "C", age="10+2h"
    ),
    History("newest is who came last", "A0 B10 A20 C20+1m B22", "22+2h", "B", age="10+2h"),
    # -- deleted and made again ----------------------------------------------------------------
    History("deleted", "A0 -30", "31", None, "A", refusal="absent"),
    History("made again with the same digest", "A0 -5 A6", "8", "A", age="7"),
    History(
        "made again, the time between does not count", "A0 -5 A20", "21", None, "A", refusal="young", age="6"
    ),
    History("made again with another digest", "A0 -30 B31", "32", "A", "B", age="30"),
    History("deleted and made again twice", "A0 -3 A4 -7 A8", "9+12h", "A", age="7+12h"),
    # -- what does not age anything --------------------------------------------------------------
    History("the same digest pushed again is no entry", "A0", "8", "A", age="8"),
    History("pushed by digest long before, tagged now", "B100", "100+1h", None, "B", refusal="young"),
    History("stood under another tag for years", "A0 B1000", "1000+1h", "A", "B"),
    # -- clocks ----------------------------------------------------------------------------------
    History(
        "the clock was a month ahead and is right again", "A0 B30", "1", None, "BA", refusal="clock", age="0"
    ),
    History("the clock was ahead from the beginning", "A30", "1", None, "A", refusal="clock", age="0"),
    History(
        "ahead, and moved after it was set back",
        "A0 B30 C30+1u<1",
        "1",
        None,
        "CBA",
        refusal="clock",
        age="0",
    ),
    History("ahead and set back, long after", "A0 B30 C30+1u<1", "40", "C", age="10-1u"),
    History(
        "what stood until a time that was ahead has no known age",
        "A0 B30 C30+1u<1",
        "31",
        None,
        "CBA",
        refusal="young",
        age="1-1u",
    ),
    History(
        "of what came before the clock was ahead, all counts",
        "A0 B10 C40 D40+1u<11",
        "41",
        "A",
        "DCB",
        age="10",
    ),
    History("the clock was set back a day", "A10 B20", "19+12h", None, "BA", refusal="clock", age="0"),
    History("the clocks of two nodes differ by seconds", "A0 B10", "10-10s", "A", "B"),
    History("set back by seconds between two moves", "A0 B8 C8+1u", "9", "A", "CB", age="8"),
    History(
        "ahead for two moves",
        "A0 B31 C31+5s D31+6s<1",
        "33",
        None,
        "DCBA",
        refusal="young",
    ),
    History("ahead for another tag", "A0 B31+1u<1", "33", None, "BA", refusal="young", age="2-1u"),
    History("ahead for another tag, after a week", "A0 B31+1u<8", "33", "A", "B", age="8"),
    History("no time passed", "A10", "10", None, "A", refusal="young", age="0"),
    # -- overrides -------------------------------------------------------------------------------
    History("let through at once", "A0 B30", "30+1h", "B", let="B"),
    History("another one is let through", "A0 B30 C31", "31+1h", "B", "C", let="B"),
    History("an override of what is old enough is not needed", "A0 B30", "40", "B", age="10", let="B"),
    History(
        "an override does not bring a deleted tag back", "A0 -1", "2", None, "A", refusal="absent", let="A"
    ),
    History("no minimum age", "A0 B1", "1+1u", "B", least="0"),
)

OBSERVED: Final = (
    # -- a tag of another registry -----------------------------------------------------------------
    History("never observed", "A0", "30", None, "A", refusal="unobserved", age="0", spans=""),
    History("a pull alone ages nothing", "A0", "30", None, "A", refusal="young", age="0", spans="A0..0"),
    History("observed for a month", "A0", "30", "A", age="30", spans="A0..30"),
    History(
        "observed since yesterday, though old",
        "A0",
        "30",
        None,
        "A",
        refusal="young",
        age="1",
        spans="A29..30",
    ),
    History("the observer was away for a day", "A0", "9", "A", age="8", spans="A0..4 A5..9"),
    History(
        "a gap counts for nothing", "A0", "30", None, "A", refusal="young", age="4", spans="A0..2 A28..30"
    ),
    History("a gap takes nothing away", "A0", "60", "A", age="8", spans="A0..6 A58..60"),
    History(
        "many restarts",
        "A0",
        "20",
        "A",
        age="10",
        spans="A0..0+12h A1..1+12h A2..2+12h A3..3+12h A4..4+12h A5..5+12h A6..6+12h A7..7+12h "
        "A8..8+12h A9..9+12h A10..10+12h A11..11+12h A12..12+12h A13..13+12h A14..14+12h "
        "A15..15+12h A16..16+12h A17..17+12h A18..18+12h A19..19+12h",
    ),
    History(
        "many restarts, each too short",
        "A0",
        "20",
        None,
        "A",
        refusal="young",
        age="0",
        spans="A0..0 A1..1 A2..2 A3..3 A4..4 A5..5 A6..6 A7..7 A8..8 A9..9 A10..10 A11..11 A12..12 "
        "A13..13 A14..14 A15..15 A16..16 A17..17 A18..18 A19..19",
    ),
    History("failed for days", "A0", "10", None, "A", refusal="young", age="5", spans="A0..3 !3..8 A8..10"),
    History("failed, then long enough", "A0", "20", "A", age="9", spans="A0..3 !3..14 A14..20"),
    History("nothing but failures", "A0", "30", None, "A", refusal="unobserved", age="0", spans="!0..30"),
    History("moved three hours ago", "A0 B30", "30+3h", "A", "B", spans="A0..30-5m B30..30+3h"),
    History("moved while nobody looked", "A0 B20", "21", "A", "B", age="10", spans="A0..10 B20..21"),
    History("moved and not seen since", "A0 B30", "30+1h", "A", "B", spans="A0..30 B30..30"),
    History("the new one is there unseen", "A0 B30", "45", "A", "B", spans="A0..30"),
    History("moved back within a minute", "A0 B8 A8+1m", "9", "A", spans="A0..8 B8..8 A8+1m..9"),
    History("overwritten and put back, adds up", "A0 B4 A5", "8+12h", "A", spans="A0..4 B4..5 A5..8+12h"),
    History("deleted there", "A0 -30", "31", None, "A", refusal="absent", spans="A0..30 -30..31"),
    History("deleted and made again", "A0 -5 A6", "9", "A", age="8", spans="A0..5 -5..6 A6..9"),
    History(
        "pre-aged by its publisher, seen today",
        "B30",
        "30+1h",
        None,
        "B",
        refusal="young",
        spans="B30..30+1h",
    ),
    History("a rule here keeps the tag where it was", "A0", "40", "A", spans="A0..20 B20..40"),
    History(
        "the clock was ahead, and is right again",
        "A0",
        "2",
        None,
        "A",
        refusal="clock",
        age="2",
        spans="A0..0+12h A30..30+12h A0+12h..2",
    ),
    History("ahead, and the days came", "A0", "40", "A", age="40", spans="A0..10 A30..31 A10..40"),
    History("ahead, for another digest", "A0 B30 A30+1u", "10", "A", age="9", spans="A0..1 B30..38 A2..10"),
    History("the clock was behind for an hour", "A10", "18", "A", age="8", spans="A10..14 A13..18"),
    History(
        "the clock went back a year",
        "A400",
        "35",
        None,
        "A",
        refusal="clock",
        age="5",
        spans="A395..400 A30..35",
    ),
    History(
        "moves each day",
        "A0 B1 C2 D3 E4 F5 G6 H7 I8 J9",
        "10",
        None,
        "JIHGFEDCBA",
        refusal="young",
        age="1",
        spans="A0..1 B1..2 C2..3 D3..4 E4..5 F5..6 G6..7 H7..8 I8..9 J9..10",
    ),
    History(
        "an override lets a stranger's digest through",
        "A0 B30",
        "30+2h",
        "B",
        let="B",
        spans="A0..30 B30..30+2h",
    ),
    History("an override without any observation", "A0", "1", "A", let="A", spans=""),
)


def length(text: str) -> int:
    """A length of time in microseconds."""
    found = _TIME.fullmatch(text)
    assert found is not None, text
    days = int(found[1]) * DAY
    return days if found[2] is None else days + int(f"{found[2]}{found[3]}") * _UNITS[found[4]]


def at(text: str) -> int:
    return START + length(text)


def digest(letter: str) -> str:
    return str(Digest.of(letter.encode()))


def letters(aged: AgedTag, record: TagRecord) -> tuple[str | None, str]:
    names = {digest(chr(code)): chr(code) for code in range(65, 91)}
    assert {standing.digest for standing in record.standings} <= set(names)
    chosen = None if aged.chosen is None else names[aged.chosen.digest]
    return chosen, "".join(names[standing.digest] for standing in aged.newer)


def moves_of(history: History) -> list[TagMove]:
    found = []
    for text in history.moves.split():
        time, _, clock = text[1:].partition("<")
        found.append(
            TagMove(at(time), None if text[0] == "-" else digest(text[0]), at(clock) if clock else None)
        )
    return found


def spans_of(history: History) -> list[ObservedSpan]:
    found = []
    for text in (history.spans or "").split():
        first, _, last = text[1:].partition("..")
        found.append(ObservedSpan(None if text[0] in "-!" else digest(text[0]), at(first), at(last)))
    return found


def read(history: History) -> TagRecord:
    moves = moves_of(history)
    if history.spans is None:
        return from_moves(moves, at(history.now))
    current = moves[-1].digest if moves else None
    return from_observations(current, moves, spans_of(history), at(history.now))


@pytest.mark.parametrize(
    "history",
    [pytest.param(one, id=f"own: {one.name}") for one in OWN]
    + [pytest.param(one, id=f"observed: {one.name}") for one in OBSERVED],
)
def test_a_history(history: History) -> None:
    record = read(history)
    let = {digest(letter) for letter in history.let}
    aged = decide(
        record,
        length(history.least),
        at(history.now),
        let_through=lambda one: "an urgent fix" if one.digest in let else "",
    )
    assert (*letters(aged, record), aged.refusal) == (history.chosen, history.newer, history.refusal)
    assert bool(aged.let_through) == (bool(history.let) and history.age is None and not aged.refusal)
    if history.age is not None:
        known = aged.newer if aged.chosen is None else (aged.chosen,)
        assert max(one.age for one in known) == length(history.age)
    for standing in record.standings:
        assert all(first <= last <= at(history.now) for first, last in standing.periods)
    text = age_answers.explanation("app", "1.5", aged, basis="journal")
    assert text
    assert text.isprintable()
    wire = age_answers.answer(
        "app", "1.5", aged, current=record.current, basis="journal", now=at(history.now)
    )
    assert (wire.stood is None) == (wire.refusal is not None)
    assert "\n" not in age_answers.header(aged)


def test_there_are_fifty_histories() -> None:
    names = [("own", one.name) for one in OWN] + [("observed", one.name) for one in OBSERVED]
    assert len(set(names)) == len(names) >= 50


def test_more_time_never_makes_a_standing_tag_younger() -> None:
    """A digest that stands is served from the moment at which it is old enough."""
    for history in (*OWN, *OBSERVED):
        if history.refusal != "young" or history.spans is not None:
            continue
        record = read(history)
        aged = decide(record, 7 * DAY, at(history.now))
        assert aged.ready_at is not None
        later = from_moves(moves_of(history), aged.ready_at)
        found = decide(later, 7 * DAY, aged.ready_at)
        assert found.chosen is not None
        assert found.chosen.digest == record.current


def test_an_observed_tag_is_old_enough_with_the_observation_that_was_promised() -> None:
    day = DAY
    spans = [ObservedSpan("a", 0, 2 * day)]
    now = 2 * day + day // 100  # between two observations
    aged = decide(from_observations("a", [], spans, now), 7 * day, now)
    assert aged.ready_at == 7 * day
    assert "at the first observation after 1970-01-08T00:00:00Z" in age_answers.explanation(
        "app", "1", aged, basis="observations"
    )
    seen = [ObservedSpan("a", 0, aged.ready_at)]
    later = decide(from_observations("a", [], seen, aged.ready_at), 7 * day, aged.ready_at)
    assert later.chosen is not None


def test_who_comes_back_at_the_second_that_was_said_is_not_early() -> None:
    moves = [TagMove(1, "a")]
    aged = decide(from_moves(moves, DAY), 7 * DAY, DAY)
    assert aged.ready_at == 7 * DAY + 1
    assert "will have at 1970-01-08T00:00:01Z if" in age_answers.explanation(
        "app", "1", aged, basis="journal"
    )
