"""The proof that a digest which a registry serves for a minimum age stood under the tag before, by its log.

A registry with a minimum age serves what the tag pointed to earlier (docs/min-age.md). Its log must have that
entry; and of a tag of the registry's own, the times in the log must give the same answer. Of a tag of another
registry the age is known by observations, which are not in the log.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

from digestry.errors import LogContradiction
from digestry.model.age_answers import TagAge
from digestry.model.tag_age import Standing, TagMove, decide, from_moves
from digestry.verifier.leaves import LoggedEntry

_SKEW: Final = datetime.timedelta(minutes=5)
"""By so much the registry's clock may differ from this one's."""
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


def check_aged(name: str, tag: str, age: TagAge, entries: Sequence[LoggedEntry]) -> LoggedEntry:
    """Return the latest of the tag's ``entries`` by which it came to what ``age`` says is served.

    Raises :class:`LogContradiction` if there is none, or if by the log another digest has the age.
    """
    assert age.stood is not None  # noqa: S101 - the caller's condition
    digest = age.stood.digest
    of_tag = [one for one in entries if one.entry.tag == tag]
    found = next((one for one in reversed(of_tag) if one.entry.to_digest == digest), None)
    if found is None:
        raise LogContradiction(
            f"{name} is said to have pointed to {digest} for its minimum age, and by the log it never did",
            hint="the content was not used",
        )
    if age.basis == "journal":
        _check_times(name, age, of_tag)
    return found


def _check_times(name: str, age: TagAge, entries: Sequence[LoggedEntry]) -> None:
    assert age.stood is not None  # noqa: S101 - the caller's condition
    here = datetime.datetime.now(datetime.UTC)
    now = age.at if abs(age.at - here) < _SKEW else here
    moves = [
        TagMove(
            _microseconds(one.entry.at),
            _text(one),
            None if one.entry.not_before is None else _microseconds(one.entry.not_before),
        )
        for one in entries
    ]
    wanted = str(age.stood.digest)

    def let_through(standing: Standing) -> str:
        return age.let_through if standing.digest == wanted else ""

    record = from_moves(moves, _microseconds(now))
    least = age.least_seconds * 1_000_000
    chosen = decide(record, least, _microseconds(now), let_through=let_through).chosen
    if chosen is None or chosen.digest != wanted:
        instead = "no digest has" if chosen is None else f"it is {chosen.digest} that has"
        raise LogContradiction(
            f"{name} is said to resolve to {wanted} for its minimum age of {age.least_seconds} s, and by the"
            f" times in the log {instead} stood for so long",
            hint="the content was not used",
        )


def _microseconds(moment: datetime.datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _text(one: LoggedEntry) -> str | None:
    return None if one.entry.to_digest is None else str(one.entry.to_digest)
