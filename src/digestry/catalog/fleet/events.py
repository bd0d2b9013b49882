"""The events of the fleet that webhooks receive: affected containers, and agents that fall silent.

Each event is queued exactly once: the state that it is found by, and its deliveries, change in one
transaction. One process at a time looks. Many changes of one kind at once are one event.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, Row, Select, exists, func, select, update

from digestry.catalog import clock, delivery_queue, dialect
from digestry.catalog.database import Database
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.fleet.images import verdict_of
from digestry.catalog.fleet.lapsed_verdicts import LapsedVerdict, lapsed_verdicts
from digestry.catalog.fleet.late_runs import MissingRuns, missing_between, still_awaited, there_by_now
from digestry.catalog.fleet.silence import agent_could_report, agent_silent
from digestry.catalog.fleet_schema import (
    fleet_agents,
    fleet_image_vulnerabilities,
    fleet_images,
    fleet_runs,
    fleet_sources,
)
from digestry.catalog.job_states import Fence
from digestry.catalog.schema import jobs
from digestry.catalog.transactions import retried
from digestry.model.descriptor import encode_hook
from digestry.model.digest import Digest
from digestry.model.fleet_events import (
    MOST_LISTED,
    AffectedContainer,
    AffectedStarted,
    ChangedAgent,
    ChangedAgents,
    FleetEvent,
    FleetEventData,
    FleetEventKind,
    LastAffectedStopped,
    StoppedVulnerability,
)
from digestry.model.json_types import prepared

STATE: Final = "fleet_events"
"""The name of the row of ``jobs`` with the state."""

_EACH: Final = 500

_Item = TypeVar("_Item")


class _State(msgspec.Struct, frozen=True):
    """What was found last: the last run, and those before it that were not there; the affected images that
    run, their vulnerabilities, and the agents that are silent; images that were affected, and of which that
    is not known now. While there are any, the vulnerabilities are those that somebody may still run."""

    last_run: int = 0
    images: tuple[int, ...] = ()
    vulnerabilities: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    missing: tuple[MissingRuns, ...] = ()
    lapsed: tuple[LapsedVerdict, ...] = ()


@dataclass(slots=True)
class _Found:
    state: _State
    events: list[FleetEvent] = field(default_factory=list)
    silent: list[Row[Any]] = field(default_factory=list)


class FleetEvents:
    """The events of the fleet. Thread-safe; one process at a time calls :meth:`queue`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def queue(
        self,
        subscriptions: Sequence[Subscription],
        *,
        now: int,
        heard_since: int,
        fence: Fence | None = None,
    ) -> list[FleetEvent]:
        """Queue what has happened since the last call for ``subscriptions``, and return it.

        Times are microseconds since 1970. Reports have been received since ``heard_since``: an agent is
        silent only if nothing came from it for several of its intervals since then. Raises
        :class:`Conflict` if the ``fence`` of the process is no longer held.
        """
        with self._database.read() as connection:
            before = _stored(connection)
            found = _look(connection, before, now, heard_since)
        if found.events or found.state != before:
            self._store(found, subscriptions, now, fence)
        return found.events

    @retried
    def _store(
        self, found: _Found, subscriptions: Sequence[Subscription], now: int, fence: Fence | None
    ) -> None:
        with self._database.write(durable=bool(found.events)) as connection:
            if fence is not None:
                fence.require_held(connection)
            for event in found.events:
                delivery_queue.enqueue_fleet_event(connection, subscriptions, event)
            for agent in found.silent:
                unheard = (fleet_agents.c.number == agent.number) & (fleet_agents.c.last_at == agent.last_at)
                connection.execute(update(fleet_agents).where(unheard).values(silent_at=now))
            row = {
                "name": STATE,
                "started_at": now,
                "finished_at": now,
                "state": msgspec.json.encode(found.state).decode(),
            }
            connection.execute(dialect.of(connection).upserts.job, row)


def _stored(connection: Connection) -> _State | None:
    text = connection.execute(select(jobs.c.state).where(jobs.c.name == STATE)).scalar()
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=prepared(_State))
    except msgspec.DecodeError:
        return None


def _look(connection: Connection, before: _State | None, now: int, heard_since: int) -> _Found:
    last_run = int(connection.execute(select(func.coalesce(func.max(fleet_runs.c.number), 0))).scalar_one())
    images = _affected_that_run(connection)
    running = _vulnerabilities(connection, images)
    known = before or _State(last_run)
    late = there_by_now(connection, known.missing)
    missing = [*known.missing, *missing_between(connection, known.last_run, last_run, now)]
    before_lapse = {one.image: one for one in known.lapsed}
    not_now = (set(known.images) | before_lapse.keys()) - images
    lapsed = tuple(lapsed_verdicts(connection, before_lapse, not_now, last_run=known.last_run, now=now))
    names = running - set(known.vulnerabilities) if before else set()
    fresh = images.difference(known.images, before_lapse) | _with_new(connection, images, names)
    started = _started(connection, known, fresh, late)
    for image in sorted((images & before_lapse.keys()) - fresh):
        started += _runs_after(connection, image, before_lapse[image].last_run)
    # What started and ended since then was in no state.
    brief = _vulnerabilities(connection, {run.image for run in started} - images)
    # Of an image whose verdict is not known the vulnerabilities are those of the last one. Of one whose
    # advisory may be about to be replaced they are not there, and may be any.
    possible = _vulnerabilities(connection, {one.image for one in lapsed if one.unknown}) - running
    if any(not one.unknown for one in lapsed):
        possible |= set(known.vulnerabilities) - running
    stopped = _stopped(connection, sorted((set(known.vulnerabilities) | brief) - running - possible))
    silent = _silent(connection, now, heard_since)
    still = {agent.id for agent in silent}
    new = [agent for agent in silent if agent.id not in known.silent]
    heard = _agents(connection, sorted(set(known.silent) - still))
    found = _Found(
        _State(
            last_run,
            tuple(sorted(images)),
            tuple(sorted(running | possible)),
            tuple(sorted(still)),
            still_awaited(missing, late, now),
            lapsed,
        ),
        silent=new,
    )
    if started:
        found.events.append(_event("affected-started", now, _affected(connection, started, names)))
    if stopped:
        data = LastAffectedStopped(len(stopped), tuple(stopped[:MOST_LISTED]))
        found.events.append(_event("last-affected-stopped", now, data))
    if new:
        found.events.append(_event("agent-silent", now, _changed(new)))
    if heard:
        found.events.append(_event("agent-heard", now, _changed(heard)))
    return found


def _affected_that_run(connection: Connection) -> set[int]:
    runs = exists().where(fleet_runs.c.image == fleet_images.c.number, fleet_runs.c.ended_at.is_(None))
    query = select(fleet_images.c.number).where(fleet_images.c.state == "affected", runs)
    return set(connection.execute(query).scalars())


def _vulnerabilities(connection: Connection, images: Iterable[int]) -> set[str]:
    found: set[str] = set()
    table = fleet_image_vulnerabilities
    for some in _parts(sorted(images)):
        query = select(table.c.vulnerability).where(table.c.image.in_(some), table.c.status == "affected")
        found.update(connection.execute(query.distinct()).scalars())
    return found


def _with_new(connection: Connection, images: Collection[int], names: Collection[str]) -> set[int]:
    """Return those of ``images`` that have one of the vulnerabilities ``names``, which nothing that runs had
    before, by that name and not by another name of theirs."""
    found: set[int] = set()
    table = fleet_image_vulnerabilities
    for some in _parts(sorted(names)):
        query = (
            select(table.c.vulnerability, table.c.image, fleet_images.c.verdict)
            .join_from(table, fleet_images, fleet_images.c.number == table.c.image)
            .where(table.c.vulnerability.in_(some), table.c.status == "affected")
        )
        for row in connection.execute(query):
            if row.image in images and row.image not in found:
                listed = verdict_of(row.verdict, "affected").vulnerabilities
                if row.vulnerability in listed or len(listed) >= MOST_LISTED:
                    found.add(row.image)
    return found


_RUNS: Final[Select[Any]] = (
    select(
        fleet_runs.c.image,
        fleet_runs.c.container,
        fleet_runs.c.name,
        fleet_runs.c.namespace,
        fleet_runs.c.started_at,
        fleet_runs.c.ended_at,
        fleet_sources.c.place,
        fleet_images.c.reference,
        fleet_images.c.digest,
        fleet_images.c.verdict,
    )
    .join_from(fleet_runs, fleet_images, fleet_images.c.number == fleet_runs.c.image)
    .join(fleet_sources, fleet_sources.c.number == fleet_runs.c.source)
    .order_by(fleet_runs.c.number)
)


def _started(connection: Connection, known: _State, fresh: set[int], late: Sequence[int]) -> list[Row[Any]]:
    """Return the runs of affected images that are new, ``late`` ones too, and all that run of ``fresh``
    images, which are newly affected."""
    affected = fleet_images.c.state == "affected"
    new = list(connection.execute(_RUNS.where(affected & (fleet_runs.c.number > known.last_run))))
    for some in _parts(late):
        new += connection.execute(_RUNS.where(affected & fleet_runs.c.number.in_(some)))
    told = set(known.images)
    lapsed = {one.image for one in known.lapsed}
    found = [
        row
        for row in new
        if row.image not in lapsed and ((row.image in told and row.image not in fresh) or _was_brief(row))
    ]
    # Of an image that is newly affected, what has ended is over.
    for some in _parts(sorted(fresh)):
        runs = fleet_runs.c.image.in_(some) & fleet_runs.c.ended_at.is_(None)
        found += connection.execute(_RUNS.where(runs)).all()
    return found


def _runs_after(connection: Connection, image: int, last: int) -> Sequence[Row[Any]]:
    """Return the runs of an image after ``last``: none of them was told while its verdict had lapsed."""
    return connection.execute(_RUNS.where((fleet_runs.c.image == image) & (fleet_runs.c.number > last))).all()


def _was_brief(run: Row[Any]) -> bool:
    """Return whether a run of an affected image has ended, and the image was known to be so at its start."""
    if run.ended_at is None:
        return False
    since = verdict_of(run.verdict, "affected").since
    return since is None or clock.from_datetime(since) <= run.started_at


def _affected(connection: Connection, runs: Sequence[Row[Any]], new: Collection[str]) -> AffectedStarted:
    """Return the data about ``runs``, with the vulnerabilities that are ``new`` first."""
    images = {run.image for run in runs}
    names = sorted(_vulnerabilities(connection, images), key=lambda name: (name not in new, name))
    return AffectedStarted(
        len(runs),
        len(images),
        tuple(names[:MOST_LISTED]),
        tuple(
            AffectedContainer(
                run.place,
                run.container,
                clock.to_datetime(run.started_at),
                run.name,
                run.namespace,
                run.reference,
                None if run.digest is None else Digest.parse(run.digest),
            )
            for run in runs[:MOST_LISTED]
        ),
    )


def _stopped(connection: Connection, vulnerabilities: Sequence[str]) -> list[StoppedVulnerability]:
    """Return those of ``vulnerabilities``, which no container has any more, whose containers have ended: of
    others, the advisory is not in force any more."""
    found = []
    table = fleet_image_vulnerabilities
    for name in vulnerabilities:
        images = select(table.c.image).where(table.c.vulnerability == name, table.c.status == "affected")
        query = (
            select(fleet_runs.c.ended_at, fleet_runs.c.ended_after)
            .where(fleet_runs.c.image.in_(images), fleet_runs.c.ended_at.is_not(None))
            .order_by(fleet_runs.c.ended_at.desc())
            .limit(1)
        )
        last = connection.execute(query).first()
        if last is not None:
            after = last.ended_at if last.ended_after is None else last.ended_after
            found.append(
                StoppedVulnerability(name, clock.to_datetime(last.ended_at), clock.to_datetime(after))
            )
    return found


def _silent(connection: Connection, now: int, heard_since: int) -> list[Row[Any]]:
    # One that was found to be silent stays so until it is heard.
    known = fleet_agents.c.silent_at.is_not(None) | agent_could_report(now, heard_since)
    silent = select(fleet_agents).where(agent_silent(now), known)
    return list(connection.execute(silent.order_by(fleet_agents.c.id)))


def _agents(connection: Connection, ids: Sequence[str]) -> list[Row[Any]]:
    found: list[Row[Any]] = []
    for some in _parts(ids):
        query = select(fleet_agents).where(fleet_agents.c.id.in_(some), fleet_agents.c.silent_at.is_(None))
        found += connection.execute(query).all()
    return found


def _changed(agents: Sequence[Row[Any]]) -> ChangedAgents:
    listed = tuple(
        ChangedAgent(agent.id, agent.place, clock.to_datetime(agent.last_at))
        for agent in agents[:MOST_LISTED]
    )
    return ChangedAgents(len(agents), listed)


def _event(kind: FleetEventKind, now: int, data: FleetEventData) -> FleetEvent:
    if isinstance(data, AffectedStarted):
        subject = data.listed[0].place if data.containers == 1 else f"{data.containers} containers"
    elif isinstance(data, LastAffectedStopped):
        one = data.vulnerabilities == 1
        subject = data.listed[0].vulnerability if one else f"{data.vulnerabilities} vulnerabilities"
    else:
        subject = data.listed[0].place if data.agents == 1 else f"{data.agents} agents"
    encoded = msgspec.Raw(msgspec.json.encode(data, enc_hook=encode_hook))
    return FleetEvent(uuid.uuid4().hex, kind, clock.to_datetime(now), subject, encoded)


def _parts(items: Sequence[_Item]) -> Iterable[Sequence[_Item]]:
    return (items[start : start + _EACH] for start in range(0, len(items), _EACH))
