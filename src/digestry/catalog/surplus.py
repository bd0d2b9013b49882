"""Which tags of a repository no rule keeps any more, and what counts as seen running."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, or_, select

from digestry.catalog import clock
from digestry.catalog.database import Database
from digestry.catalog.retention import Retention, TagRetention
from digestry.catalog.schema import manifest_references, manifests, sightings
from digestry.catalog.schema import tags as tag_rows
from digestry.catalog.tags import Place

_WINDOW: Final = 5000
_IMAGE: Final = manifests.alias("image")
_CHILD: Final = manifests.alias("child")


class Surplus(NamedTuple):
    """A tag that goes unless it is another one by then. ``moved_at`` in microseconds since 1970."""

    tag: str
    digest: str
    moved_at: int
    why: str


def surplus(
    database: Database, place: Place, rules: Sequence[TagRetention], runs: ColumnElement[bool], now: int
) -> Iterator[Surplus]:
    """The tags that one of ``rules`` covers and does not keep, the newest first.

    ``runs`` tells of a row of ``tags`` whether its image was seen running. Nothing is open between two
    of them: with a view of the catalog that lasts, its log could not be used again, and would grow.
    """
    counts = [0] * len(rules)
    last: Any = None
    while True:
        query = _by_age(place, runs, last)
        with database.read() as connection:
            rows = connection.execute(query.limit(_WINDOW)).all()
        for row in rows:
            number = next((n for n, rule in enumerate(rules) if rule.covers(row.name)), None)
            if number is None:
                continue
            rule = rules[number]
            counts[number] += 1
            if rule.newest is not None and counts[number] <= rule.newest:
                continue
            if rule.seconds is not None and row.moved_at > now - int(rule.seconds * clock.SECOND):
                continue
            if not row.runs:
                yield Surplus(row.name, row.digest, row.moved_at, _beyond(rule, row.moved_at))
        if len(rows) < _WINDOW:
            return
        last = rows[-1]


def _by_age(place: Place, runs: ColumnElement[bool], last: Any) -> Select[Any]:
    columns = tag_rows.c.name, tag_rows.c.digest, tag_rows.c.moved_at, runs.label("runs")
    query = select(*columns).where(tag_rows.c.repository_id == place.row)
    if last is not None:
        same_age = and_(tag_rows.c.moved_at == last.moved_at, tag_rows.c.name > last.name)
        query = query.where(or_(tag_rows.c.moved_at < last.moved_at, same_age))
    return query.order_by(tag_rows.c.moved_at.desc(), tag_rows.c.name)


def _beyond(rule: TagRetention, moved_at: int) -> str:
    reasons = []
    if rule.newest is not None:
        reasons.append(f"{rule.newest} newer ones are kept")
    if rule.seconds is not None:
        reasons.append(f"it is older than {rule.seconds / 86400:g} days")
    return f"{' and '.join(reasons)}; it moved last at {date(moved_at)}"


def date(microseconds: int) -> str:
    """A time, for a reason that people read."""
    return clock.to_datetime(microseconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def runs(
    digest: ColumnElement[str], place: Place, retention: Retention, now: int, *, beside: ColumnElement[Any]
) -> ColumnElement[bool]:
    """Whether a manifest of the repository was seen running lately: by its digest, by its config's, or,
    of an index, by that of an image that it lists. ``beside`` is a column of the table that ``digest``
    is of."""
    outer = beside.table
    by_config = (
        exists()
        .where(
            _IMAGE.c.repository_id == place.row,
            _IMAGE.c.digest == digest,
            _IMAGE.c.config.is_not(None),
            _sighted(_IMAGE.c.config, retention, now),
        )
        .correlate(outer)
    )
    by_child = (
        exists()
        .where(
            manifest_references.c.repository_id == place.row,
            manifest_references.c.parent == digest,
            manifest_references.c.role == "manifest",
            or_(
                _sighted(manifest_references.c.child, retention, now),
                exists()
                .where(
                    _CHILD.c.repository_id == place.row,
                    _CHILD.c.digest == manifest_references.c.child,
                    _CHILD.c.config.is_not(None),
                    _sighted(_CHILD.c.config, retention, now),
                )
                .correlate(manifest_references),
            ),
        )
        .correlate(outer)
    )
    return or_(_sighted(digest, retention, now), by_config, by_child)


def _sighted(digest: ColumnElement[str], retention: Retention, now: int) -> ColumnElement[bool]:
    seen = sightings.c.digest == digest
    if retention.sighted is not None:
        seen &= sightings.c.last_at > now - int(retention.sighted * clock.SECOND)
    return exists().where(seen)
