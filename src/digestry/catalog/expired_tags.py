"""Find the tags that no retention rule keeps, and the images that were seen running."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, Row, Select, and_, case, exists, func, or_, select

from digestry.catalog import clock
from digestry.catalog.database import Database
from digestry.catalog.fleet_schema import fleet_image_digests, fleet_runs, fleet_sources
from digestry.catalog.observation_schema import observation_schedule
from digestry.catalog.retention_rules import Retention, TagRetention
from digestry.catalog.schema import manifest_references, manifests, sightings, upstream_tags
from digestry.catalog.schema import tags as tag_rows
from digestry.catalog.tag_moves import RepositoryKey
from digestry.model.text import length_of_time

_WINDOW: Final = 5000
# The tags that replace a list of referrers (distribution-spec, "Referrers Tag Schema"), and what cosign makes
# of it: ``sha256-<hex>.sig``. Of a longer digest it has the first 64 digits.
_HEX: Final = 64
_ALGORITHM: Final = 6
_ATTACHMENT: Final = re.compile(rf"(?:sha256|sha512)-[0-9a-f]{{{_HEX}}}(?:[.-].*)?", re.ASCII)
_POINTED: Final = manifests.alias("pointed")
_IMAGE: Final = manifests.alias("image")
_CHILD: Final = manifests.alias("child")


TagColumns: TypeAlias = tuple[str, str, int, int, bool, bool, bool, int | None]
"""The columns of :func:`tags_of`."""


class ExpiredTag(NamedTuple):
    """A tag that will be removed unless it changes before. Times are in microseconds since 1970.

    ``pushed_at`` is when its image was last pushed, ``moved_at`` at the least; ``checked_at`` when its
    upstream was last asked for it.
    """

    tag: str
    digest: str
    moved_at: int
    pushed_at: int
    checked_at: int | None
    why: str


def find_expired_tags(
    database: Database,
    key: RepositoryKey,
    rules: Sequence[TagRetention],
    seen_running: ColumnElement[bool],
    now: int,
    *,
    lease: int,
) -> Iterator[ExpiredTag]:
    """Yield the tags that one of ``rules`` covers and does not keep, the newest first.

    ``seen_running`` is the condition that the image of a row of ``tags`` was seen running; ``lease`` is how
    long a push keeps content, in microseconds. Tags of attachments are not counted, and stay as long as the
    manifest that they are attached to. No transaction is open between two tags: a long one would keep the
    database from reusing its log, which would grow.
    """
    counts = [0] * len(rules)
    last: tuple[int, str] | None = None  # by its time and name
    while True:
        query = _by_age(key, seen_running, last)
        with database.read() as connection:
            rows = connection.execute(query.limit(_WINDOW)).all()
        for row in rows:
            number = next((n for n, rule in enumerate(rules) if rule.covers(row.name)), None)
            if number is None:
                continue
            rule = rules[number]
            attachment = is_attachment(row.name)
            if attachment and row.attached:
                continue
            if not attachment:
                counts[number] += 1
                if rule.newest is not None and counts[number] <= rule.newest:
                    continue
            used_at = max(row.pushed_at, row.checked_at or 0)
            if rule.seconds is not None and used_at > now - int(rule.seconds * clock.SECOND):
                continue
            if (attachment or row.moved_at < row.pushed_at) and row.pushed_at > now - lease:
                # Its manifest may be pushed after it. A push of the same digest moves no tag.
                continue
            if not row.seen_running and not row.observed:
                why = _beyond(rule, row, attachment=attachment)
                yield ExpiredTag(row.name, row.digest, row.moved_at, row.pushed_at, row.checked_at, why)
        if len(rows) < _WINDOW:
            return
        last = rows[-1].moved_at, rows[-1].name


def tags_of(key: RepositoryKey, seen_running: ColumnElement[bool]) -> Select[*TagColumns]:
    """Return the repository's tags: name, digest, moved_at, pushed_at, seen_running; and, of what
    :func:`is_attachment` is true of, whether what it is attached to can be pulled: attached; and of another
    registry's, checked_at: when it was last asked there, which is when somebody wanted it. ``observed``: the
    tag is, so that the other registry says when it is deleted."""
    pushed_at = case((_POINTED.c.pushed_at > tag_rows.c.moved_at, _POINTED.c.pushed_at))
    image = and_(_POINTED.c.repository_id == tag_rows.c.repository_id, _POINTED.c.digest == tag_rows.c.digest)
    observed = exists().where(
        observation_schedule.c.repository == key.name, observation_schedule.c.tag == tag_rows.c.name
    )
    checked = and_(upstream_tags.c.repository == key.name, upstream_tags.c.tag == tag_rows.c.name)
    return (
        select(
            tag_rows.c.name,
            tag_rows.c.digest,
            tag_rows.c.moved_at,
            func.coalesce(pushed_at, tag_rows.c.moved_at).label("pushed_at"),
            seen_running.label("seen_running"),
            _attached(key).label("attached"),
            observed.label("observed"),
            upstream_tags.c.checked_at,
        )
        .select_from(tag_rows.outerjoin(_POINTED, image).outerjoin(upstream_tags, checked))
        .where(tag_rows.c.repository_id == key.row)
    )


def _by_age(
    key: RepositoryKey, seen_running: ColumnElement[bool], last: tuple[int, str] | None
) -> Select[*TagColumns]:
    query = tags_of(key, seen_running)
    if last is not None:
        moved_at, name = last
        same_age = and_(tag_rows.c.moved_at == moved_at, tag_rows.c.name > name)
        query = query.where(or_(tag_rows.c.moved_at < moved_at, same_age))
    return query.order_by(tag_rows.c.moved_at.desc(), tag_rows.c.name)


def is_attachment(tag: str) -> bool:
    """Return whether a tag's name is a manifest's digest, by which signatures and the like of it are
    found."""
    return _ATTACHMENT.fullmatch(tag) is not None


def _attached(key: RepositoryKey) -> ColumnElement[bool]:
    name = tag_rows.c.name
    subject = func.substr(name, 1, _ALGORITHM) + ":" + func.substr(name, _ALGORITHM + 2, _HEX)
    return (
        exists()
        .where(
            func.length(name) > _ALGORITHM + _HEX,  # asked first: most tags need no other query
            _IMAGE.c.repository_id == key.row,
            _IMAGE.c.digest >= subject,
            _IMAGE.c.digest < subject + "g",  # whatever begins with it
            _IMAGE.c.deleted_at.is_(None),
        )
        .correlate(tag_rows)
    )


def _beyond(rule: TagRetention, row: Row[*TagColumns], *, attachment: bool) -> str:
    reasons = []
    if attachment:
        reasons.append("what it is attached to is not here")
    elif rule.newest:
        newer = "a newer one is" if rule.newest == 1 else f"{rule.newest} newer ones are"
        reasons.append(f"{newer} kept")
    if rule.seconds:
        reasons.append(f"it is older than {length_of_time(rule.seconds)}")
    why = " and ".join(reasons) or "its rule keeps none"
    last = f"it moved last at {date(row.moved_at)}"
    if row.checked_at is not None:
        last += f", and was last asked for at {date(row.checked_at)}"
    elif row.pushed_at > row.moved_at:
        last += f", and was pushed last at {date(row.pushed_at)}"
    return f"{why}; {last}"


def date(microseconds: int) -> str:
    """Return a time as a date, for a reason that people read."""
    return clock.to_rfc3339(microseconds)


def seen_running(
    digest: ColumnElement[str],
    key: RepositoryKey,
    retention: Retention,
    now: int,
    *,
    beside: ColumnElement[int],
) -> ColumnElement[bool]:
    """Return whether a manifest of the repository was seen running lately: by its digest, by its config's,
    or, of an index, by that of an image that it lists. ``beside`` is a column of the table that ``digest`` is
    of."""
    outer = beside.table
    by_config = (
        exists()
        .where(
            _IMAGE.c.repository_id == key.row,
            _IMAGE.c.digest == digest,
            _IMAGE.c.config.is_not(None),
            _sighted(_IMAGE.c.config, retention, now),
        )
        .correlate(outer)
    )
    by_child = (
        exists()
        .where(
            manifest_references.c.repository_id == key.row,
            manifest_references.c.parent == digest,
            manifest_references.c.role == "manifest",
            or_(
                _sighted(manifest_references.c.child, retention, now),
                exists()
                .where(
                    _CHILD.c.repository_id == key.row,
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
    """Return whether audits saw the digest running lately, or agents reported so."""
    seen = sightings.c.digest == digest
    running: ColumnElement[bool] = fleet_runs.c.ended_at.is_(None)
    ended: ColumnElement[bool] = fleet_runs.c.ended_at.is_not(None)
    if retention.sighted is not None:
        since = now - int(retention.sighted * clock.SECOND)
        seen &= sightings.c.last_at > since
        # Of a container without an end, it is known until when its source was looked at.
        running &= exists().where(
            fleet_sources.c.number == fleet_runs.c.source,
            (fleet_sources.c.confirmed_at > since) | (fleet_runs.c.started_at > since),
        )
        ended = fleet_runs.c.ended_at > since
    known = fleet_image_digests
    ran = (
        exists().where(fleet_runs.c.image == known.c.image, condition).correlate(known)
        for condition in (running, ended)
    )
    return or_(exists().where(seen), exists().where(known.c.digest == digest, or_(*ran)))
