"""What was observed in other registries, as a report: what moved, who of ours runs it, and the gaps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet.run_pages import RunFilter
from digestry.catalog.fleet.selection import EVERYBODY, Asker, ImageFilter
from digestry.catalog.observations import LIST, Span
from digestry.catalog.observed_moves import ObservedMove
from digestry.model.digest import Digest
from digestry.model.json_types import prepared
from digestry.model.observations import (
    MoveFacts,
    ObservationGap,
    ObservationReport,
    ObservedRepositoryState,
    ObservedSpan,
    RunningPlace,
    UpstreamMove,
)
from digestry.registry.config import RegistryConfig
from digestry.registry.observed_targets import Target, obstacles, targets

MOST_MOVES: Final = 1000
MOST_GAPS: Final = 1000
_BOUNDARIES: Final = 5000
_PLACES: Final = 100
_MOST_RUNS: Final = 1000
Visible = Callable[[str], bool]


def everything(_: str) -> bool:
    """Return True."""
    return True


def report(
    catalog: Catalog,
    config: RegistryConfig,
    *,
    since: int,
    now: int,
    moves: int = MOST_MOVES,
    visible: Visible = everything,
    audited: Visible = everything,
    asker: Asker = EVERYBODY,
) -> ObservationReport:
    """Return what was observed from the time ``since`` on, in microseconds since 1970.

    It has the local repositories that are ``visible``, and says who runs an image of those that are
    ``audited``; of the fleet, what ``asker`` may know of.
    """
    wanted = [one for one in targets(config, catalog.observation_plan.rules()) if visible(one.local_name)]
    names = {one.local_name: one.name for one in wanted}
    seen = (move for move in _moves(catalog, since, moves + 1) if visible(move.repository))
    found = [
        move_of(move, names.get(move.repository, move.repository))
        for move in itertools.islice(seen, moves + 1)
    ]
    gaps = list(itertools.islice(_gaps(catalog, config, wanted, since, now), MOST_GAPS + 1))
    gaps.sort(key=lambda gap: gap.since, reverse=True)
    return ObservationReport(
        since=clock.to_datetime(since),
        at=clock.to_datetime(now),
        repositories=tuple(_states(catalog, wanted, now)),
        moves=tuple(_with_places(catalog, move, audited, asker, now) for move in found[:moves]),
        gaps=tuple(gaps[:MOST_GAPS]),
        more_moves=len(found) > moves,
        more_gaps=len(gaps) > MOST_GAPS,
    )


def _moves(catalog: Catalog, since: int, window: int) -> Iterator[ObservedMove]:
    """Yield all moves from the time ``since`` on, newest first."""
    last: ObservedMove | None = None
    while True:
        found = catalog.observed_moves.since(since, before=last, limit=window)
        yield from found
        if len(found) < window:
            return
        last = found[-1]


def move_of(move: ObservedMove, name: str, facts: MoveFacts | None = None) -> UpstreamMove:
    """Return a move as it is told; ``name`` is its repository's in the other registry."""
    if facts is None and move.document:
        facts = msgspec.json.decode(move.document, type=prepared(MoveFacts))
    return UpstreamMove(
        name=name,
        repository=move.repository,
        tag=move.tag,
        event=move.event,
        at=clock.to_datetime(move.at),
        entry=move.entry,
        not_before=None if move.not_before is None else clock.to_datetime(move.not_before),
        from_digest=move.from_digest,
        to_digest=move.to_digest,
        facts=facts,
    )


def span_of(span: Span, now: int) -> ObservedSpan:
    """Return a span as it is told."""
    return ObservedSpan(
        outcome=span.outcome,
        first_at=clock.to_datetime(span.first_at),
        last_at=clock.to_datetime(span.last_at),
        count=span.count,
        interval=span.interval / clock.SECOND,
        digest=span.digest,
        reason=span.reason,
        current=span.lasts(now),
        number=span.number,
    )


def _states(catalog: Catalog, wanted: Sequence[Target], now: int) -> Iterator[ObservedRepositoryState]:
    counts = catalog.observation_plan.repositories()
    for one in wanted:
        tags = max(0, counts.get(one.local_name, 0) - one.lists)
        late = catalog.observation_plan.lag(now, one.local_name)
        yield ObservedRepositoryState(
            name=one.name,
            repository=one.local_name,
            patterns=one.patterns,
            interval=one.interval / clock.SECOND,
            keep=one.keep,
            tags=tags,
            late=late / clock.SECOND,
        )


def _with_places(
    catalog: Catalog, move: UpstreamMove, audited: Visible, asker: Asker, now: int
) -> UpstreamMove:
    if not audited(move.repository):
        return move
    return msgspec.structs.replace(
        move,
        running_before=_places(catalog, move.repository, move.from_digest, asker, now),
        running_after=_places(catalog, move.repository, move.to_digest, asker, now),
    )


def _places(
    catalog: Catalog, repository: str, digest: Digest | None, asker: Asker, now: int
) -> tuple[RunningPlace, ...]:
    """Return where an image runs: as agents report it, under whatever name it was pulled; and at other places
    as audits of this repository saw it."""
    if digest is None:
        return ()
    chosen = RunFilter(images=ImageFilter(digest=digest))
    reported: dict[str, RunningPlace] = {}
    for run in catalog.fleet.runs(chosen, asker, now=now, limit=_MOST_RUNS).runs:
        known = reported.get(run.place, RunningPlace(run.place, 0, run.last_seen))
        last = max(known.last_at, run.last_seen)
        reported[run.place] = RunningPlace(run.place, known.containers + 1, last)
    seen = (
        RunningPlace(one.place, one.containers, clock.to_datetime(one.last_at))
        for one in catalog.browsing.places(repository, str(digest), now=now, limit=_PLACES)
        if one.place not in reported
    )
    found = sorted((*reported.values(), *seen), key=lambda one: (-one.containers, one.place))
    return tuple(found[:_PLACES])


def _gaps(
    catalog: Catalog, config: RegistryConfig, wanted: Sequence[Target], since: int, now: int
) -> Iterator[ObservationGap]:
    """Yield the times from ``since`` on in which nothing is known."""
    yield from _blocked(catalog, config, wanted, since)
    for one in wanted:
        yield from _overdue(catalog, one, now)
    names = {one.local_name: one.name for one in wanted}
    boundaries = (span for span in _boundaries(catalog, since) if span.repository in names)
    for _, some in itertools.groupby(boundaries, key=lambda one: (one.repository, one.tag)):
        spans = list(some)
        first = spans[0]
        before = catalog.observations.spans(first.repository, first.tag, before=first.number, limit=1)
        yield from _between(names[first.repository], [*before, *spans], now)


def _boundaries(catalog: Catalog, since: int) -> Iterator[Span]:
    """Yield all spans between which something may be unknown, from the time ``since`` on, by repository and
    tag."""
    last: Span | None = None
    while True:
        found = catalog.observations.boundaries(since, after=last, limit=_BOUNDARIES)
        yield from found
        if len(found) < _BOUNDARIES:
            return
        last = found[-1]


def _between(name: str, spans: Iterable[Span], now: int) -> Iterator[ObservationGap]:
    """Yield the gaps between good spans of one tag, the earliest first."""
    good: Span | None = None
    failed: list[Span] = []
    for span in spans:
        if span.outcome == "failed":
            failed.append(span)
            continue
        late = good is not None and not good.lasts(span.first_at)
        same = good is not None and (good.outcome, good.digest) == (span.outcome, span.digest)
        if failed or late or same:
            yield _gap(name, good, failed, span)
        good, failed = span, []
    if failed:
        yield _gap(name, good, failed, None)


def _gap(name: str, before: Span | None, failed: Sequence[Span], after: Span | None) -> ObservationGap:
    known = next(one for one in (before, *failed, after) if one is not None)
    return ObservationGap(
        name=name,
        repository=known.repository,
        tag=known.tag,
        since=clock.to_datetime(failed[0].first_at if before is None and failed else known.last_at),
        until=None if after is None else clock.to_datetime(after.first_at),
        reason=", ".join(dict.fromkeys(one.reason for one in failed)),
    )


def _blocked(
    catalog: Catalog, config: RegistryConfig, wanted: Sequence[Target], since: int
) -> Iterator[ObservationGap]:
    """Yield the gap of each repository that cannot be observed, with the reason."""
    scheduled = catalog.observation_plan.repositories()
    if all(one.local_name in scheduled for one in wanted) and len({one.local_name for one in wanted}) == len(
        wanted
    ):
        return
    for one, reason in obstacles(config, catalog.observation_plan, wanted).items():
        (target,) = (two for two in wanted if two.name == one)
        at = clock.to_datetime(since)
        yield ObservationGap(name=one, repository=target.local_name, tag=LIST, since=at, reason=reason)


def _overdue(catalog: Catalog, target: Target, now: int) -> Iterator[ObservationGap]:
    """Yield the gap of a repository that is observed, and of which the last observation is too old."""
    for tag in (LIST,) if target.lists else target.literal:
        last = catalog.observations.spans(target.local_name, tag, limit=1)
        if last and last[0].outcome != "failed" and not last[0].lasts(now):
            yield ObservationGap(
                name=target.name,
                repository=target.local_name,
                tag=tag,
                since=clock.to_datetime(last[0].last_at),
                reason="no observation was made since",
            )
