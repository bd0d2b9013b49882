"""Images that were affected, that still run, and of which that is not known now.

A verdict lapses when its advisories cannot be read, and when one is withdrawn, as of a document that is
replaced in two steps. Neither is an end, and the same verdict after it is no news.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, exists, select

from digestry.catalog import clock
from digestry.catalog.fleet_schema import fleet_images, fleet_runs

REPLACED: Final = 60 * clock.SECOND
"""An advisory that is withdrawn and stated again within this time was replaced."""

_UNKNOWN: Final = frozenset({"unknown", "unjudged"})
_EACH: Final = 500


class LapsedVerdict(msgspec.Struct, frozen=True, array_like=True):
    """An image whose verdict lapsed: of runs up to ``last_run`` it was told that they are affected. At the
    time ``at`` (microseconds since 1970) its verdict was ``unknown``, or its advisory was withdrawn."""

    image: int
    last_run: int
    at: int
    unknown: bool = False


def lapsed_verdicts(
    connection: Connection,
    before: Mapping[int, LapsedVerdict],
    images: Collection[int],
    *,
    last_run: int,
    now: int,
) -> Iterator[LapsedVerdict]:
    """Yield the lapsed verdicts of ``images``, which are not affected now, and were so at the last look, when
    ``last_run`` was the last run, or ``before``.

    An image that does not run any more, or whose verdict is known for long enough, is left out.
    """
    ordered = sorted(images)
    open_run = exists().where(fleet_runs.c.image == fleet_images.c.number, fleet_runs.c.ended_at.is_(None))
    for start in range(0, len(ordered), _EACH):
        query = select(fleet_images.c.number, fleet_images.c.state).where(
            fleet_images.c.number.in_(ordered[start : start + _EACH]), open_run
        )
        for row in connection.execute(query.order_by(fleet_images.c.number)):
            known = before.get(row.number, LapsedVerdict(row.number, last_run, now))
            unknown = row.state in _UNKNOWN
            at = now if unknown else known.at
            if now - at < REPLACED:
                yield LapsedVerdict(row.number, known.last_run, at, unknown)
