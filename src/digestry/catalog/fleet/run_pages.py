"""Pages of runs: those that run first, then those that ended, the latest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from msgspec import structs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    func,
    select,
    true,
    tuple_,
    union_all,
)

from digestry.catalog import clock, dialect
from digestry.catalog.fleet import images
from digestry.catalog.fleet.selection import Asker, ImageFilter, chosen
from digestry.catalog.fleet.silence import source_silent
from digestry.catalog.fleet_schema import (
    LONGER_THAN,
    fleet_agents,
    fleet_images,
    fleet_runs,
    fleet_sources,
)
from digestry.errors import InvalidReference
from digestry.model.digest import Digest
from digestry.model.fleet_answers import FleetImage, FleetRun, FleetRuns, FleetVerdict
from digestry.model.reference import Reference

MOST_COUNTED: Final = 1_000_000
"""Runs are counted up to this number: there are as many, or more."""
_FEW_IMAGES: Final = 100

_Conditions: TypeAlias = tuple[ColumnElement[bool], ...]
"""All of them are true of a run."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """A choice of runs: those of ``images``, in the place ``place`` or within it.

    With ``at`` (microseconds since 1970) those that ran then, with ``ever`` all; else those that run.
    """

    images: ImageFilter = field(default_factory=ImageFilter)
    place: str = ""
    at: int | None = None
    ever: bool = False


@dataclass(frozen=True, slots=True, order=True)
class RunCursor:
    """Where a page ended: after the run with ``number``, which runs, or ``ended``, since ``at``."""

    ended: bool
    at: int
    number: int

    def __str__(self) -> str:
        return f"{'e' if self.ended else 'r'}{self.at}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> RunCursor:
        """Return the cursor that ``text`` is. Raises ValueError."""
        at, _, number = text[1:].partition(".")
        digits = text.isascii() and at.isdigit() and number.isdigit() and max(len(at), len(number)) <= 18
        if text[:1] not in {"e", "r"} or not digits:
            raise ValueError(f"{text!r} is no cursor of runs")
        return cls(text[0] == "e", int(at), int(number))


def page_of_runs(
    connection: Connection,
    choice: RunFilter,
    asker: Asker,
    *,
    now: int,
    limit: int,
    after: RunCursor | None = None,
    with_reports: bool = False,
) -> FleetRuns:
    """Return a page of the chosen runs that ``asker`` may know of, and their images."""
    mine = run_conditions(connection, choice, asker)
    parts = {False: [(*mine, fleet_runs.c.ended_at.is_(None))]}
    if choice.at is not None:
        parts[True] = _ended_after(connection, choice, asker, mine, choice.at)
    elif choice.ever:
        parts[True] = [(*mine, fleet_runs.c.ended_at.is_not(None))]
    rows: list[Row[Any]] = []
    for ended, some in parts.items():
        if (after is not None and after.ended and not ended) or len(rows) > limit:
            continue
        rows += _part(connection, some, after, ended=ended, now=now, limit=limit + 1 - len(rows))
    page = rows[:limit]
    running = _running(connection) if not mine else _count(connection, parts[False])
    total = min(MOST_COUNTED, running + _count(connection, parts.get(True, [])))
    following = ""
    if limit > 0 and len(rows) > limit:
        last = page[-1]
        is_over = last.ended_at is not None
        following = str(RunCursor(is_over, last.ended_at if is_over else last.started_at, last.number))
    return FleetRuns(
        runs=tuple(as_run(row) for row in page),
        images=images_of(connection, {row.image for row in page}, asker, with_reports=with_reports),
        limited=not asker.everything,
        total=total,
        running=running,
        next=following,
    )


def run_conditions(
    connection: Connection, choice: RunFilter, asker: Asker
) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of a choice on rows of ``fleet_runs``, but for whether they run."""
    found: list[ColumnElement[bool]] = []
    numbers = chosen(connection, choice.images, asker)
    if numbers is not None:
        found.append(fleet_runs.c.image.in_(numbers))
    if choice.place:
        found.append(fleet_runs.c.source.in_(_sources_within(choice.place)))
    if choice.at is not None:
        found.append(fleet_runs.c.started_at <= choice.at)
    return tuple(found)


def _ended_after(
    connection: Connection, choice: RunFilter, asker: Asker, mine: _Conditions, at: int
) -> list[_Conditions]:
    """Return the conditions of the runs that had started at a time, and ended after it: one of several.

    All runs that ended since then may be nearly all that there are. Those that took a day at the most ended
    within a day, and those of each class of longer ones within the longest of it.
    """
    if choice.place or _few_images(connection, choice, asker):
        return [(*mine, fleet_runs.c.ended_at > at)]  # in the index by place, or by image
    day = 86_400 * clock.SECOND
    short = fleet_runs.c.ended_at - fleet_runs.c.started_at <= day
    after = fleet_runs.c.ended_at > at
    found = [(*mine, short, after, fleet_runs.c.ended_at <= at + day)]
    for days in LONGER_THAN:
        of_class = (*mine, fleet_runs.c.longer_than == days, after)
        longest = (fleet_runs.c.ended_at <= at + 4 * days * day,)
        found.append((*of_class, *longest) if days != max(LONGER_THAN) else of_class)
    return found


def _few_images(connection: Connection, choice: RunFilter, asker: Asker) -> bool:
    numbers = chosen(connection, choice.images, asker)
    if numbers is None:
        return False
    some = select(func.count()).select_from(numbers.limit(_FEW_IMAGES + 1).subquery())
    return int(connection.execute(some).scalar_one()) <= _FEW_IMAGES


def _sources_within(place: str) -> Select[Any]:
    below = fleet_sources.c.place.startswith(f"{place}/", autoescape=True)
    return select(fleet_sources.c.number).where((fleet_sources.c.place == place) | below)


def _part(
    connection: Connection,
    some: list[_Conditions],
    after: RunCursor | None,
    *,
    ended: bool,
    now: int,
    limit: int,
) -> list[Row[Any]]:
    """Return the first rows of those that one of ``some`` conditions is true of."""
    at = fleet_runs.c.ended_at if ended else fleet_runs.c.started_at
    queries = []
    for conditions in some:
        query = select(fleet_runs.c.number, at.label("at")).where(*conditions)
        if after is not None and after.ended == ended:
            query = query.where(tuple_(at, fleet_runs.c.number) < tuple_(after.at, after.number))
        first = query.order_by(at.desc(), fleet_runs.c.number.desc()).limit(limit).subquery()
        queries.append(select(first.c.number, first.c.at))
    found = union_all(*queries).subquery() if len(queries) > 1 else queries[0].subquery()
    numbers = select(found.c.number).order_by(found.c.at.desc(), found.c.number.desc()).limit(limit)
    return list(connection.execute(run_rows(numbers, now).order_by(at.desc(), fleet_runs.c.number.desc())))


def run_rows(numbers: Select[Any], now: int) -> Select[Any]:
    """Return the SELECT of the runs with these numbers, with what an answer says about their sources.

    The numbers are found first, in an index: a database that joins before may read all runs.
    """
    page = numbers.subquery()
    return (
        select(
            fleet_runs,
            fleet_sources.c.place,
            fleet_sources.c.source.label("source_name"),
            fleet_sources.c.confirmed_at,
            fleet_agents.c.id.label("agent_id"),
            source_silent(now).label("silent"),
        )
        .join_from(page, fleet_runs, fleet_runs.c.number == page.c.number)
        .join(fleet_sources, fleet_sources.c.number == fleet_runs.c.source)
        .outerjoin(fleet_agents, fleet_agents.c.number == fleet_sources.c.agent)
    )


def _running(connection: Connection) -> int:
    """Return how many runs have no end, as :func:`_count` would."""
    query = select(func.coalesce(func.sum(fleet_sources.c.running), 0))
    return min(MOST_COUNTED, int(connection.execute(query).scalar_one()))


def _count(connection: Connection, some: Iterable[_Conditions]) -> int:
    """Return how many runs there are that one of ``some`` conditions is true of."""
    found = 0
    for conditions in some:
        left = MOST_COUNTED - found
        inner = select(true().label("one")).select_from(fleet_runs).where(*conditions).limit(left)
        found += int(connection.execute(select(func.count()).select_from(inner.subquery())).scalar_one())
    return found


def as_run(row: Row[Any]) -> FleetRun:
    """Return the run of a row of :func:`run_rows`."""
    known = row.ended_at if row.ended_at is not None else max(row.started_at, row.confirmed_at)
    return FleetRun(
        number=row.number,
        place=row.place,
        source=row.source_name,
        container=row.container,
        image=row.image,
        from_=clock.to_datetime(row.started_at),
        last_seen=clock.to_datetime(known),
        agent=row.agent_id or "",
        name=row.name,
        namespace=row.namespace,
        node=row.node,
        workload=row.workload,
        until=None if row.ended_at is None else clock.to_datetime(row.ended_at),
        until_after=None if row.ended_after is None else clock.to_datetime(row.ended_after),
        silent=row.ended_at is None and bool(row.silent),
    )


def images_of(
    connection: Connection, numbers: set[int], asker: Asker, *, with_reports: bool = False
) -> tuple[FleetImage, ...]:
    """Return images by their numbers, in the order of these, as ``asker`` may see them."""
    if not numbers:
        return ()
    listed = dialect.of(connection).bulk_keys([(number, "") for number in sorted(numbers)], int)
    query = select(fleet_images).join_from(listed.table, fleet_images, fleet_images.c.number == listed.first)
    rows = connection.execute(query.order_by(fleet_images.c.number))
    return tuple(_image(row, asker, with_report=with_reports and asker.everything) for row in rows)


def _image(row: Row[Any], asker: Asker, *, with_report: bool) -> FleetImage:
    verdict = images.verdict_of(row.verdict, row.state)
    return FleetImage(
        number=row.number,
        reference=row.reference,
        digest=None if row.digest is None else Digest.parse(row.digest),
        kind=row.kind,
        verdict=verdict if asker.everything else _redacted(verdict, asker),
        judged_at=None if row.judged_at is None else clock.to_datetime(row.judged_at),
        report=images.decode(row.document) if with_report else None,
    )


def _redacted(verdict: FleetVerdict, asker: Asker) -> FleetVerdict:
    """Return a verdict without the names of repositories that ``asker`` may not know."""

    def known(name: str) -> str:
        try:
            repository = Reference.parse(name).repository if name else ""
        except InvalidReference:
            return ""
        return name if repository and (asker.may_audit(repository) or asker.may_pull(repository)) else ""

    return structs.replace(
        verdict, base=known(verdict.base), fixed=known(verdict.fixed), advice="", reasons=()
    )
