"""The statements that insert a row, or change the row that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from sqlalchemy import ColumnElement, Insert, Table, case, false
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.elements import KeyedColumnElement

from digestry.catalog.fleet_schema import (
    fleet_agents,
    fleet_early_ends,
    fleet_image_digests,
    fleet_images,
    fleet_run_counts,
    fleet_snapshot_runs,
    fleet_sources,
)
from digestry.catalog.frequent_statements import frequent
from digestry.catalog.object_schema import blob_ingests, blob_objects, object_removals
from digestry.catalog.observation_schema import observation_schedule, observed_moves
from digestry.catalog.schema import (
    damaged,
    jobs,
    leases,
    links,
    manifest_references,
    manifests,
    repositories,
    robot_tokens,
    sightings,
    transaction_locks,
    upstream_tags,
)

NewRow: TypeAlias = ReadOnlyColumnCollection[str, KeyedColumnElement[Any]]
"""The columns of a row that could not be inserted because one with its key is there."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of an existing row: new ``values`` of columns, if ``where`` holds."""

    values: Mapping[str, ColumnElement[Any]]
    where: ColumnElement[bool] | None = None


class InsertDialect(Protocol):
    """The INSERT of one database for a row that may exist already."""

    def insert_or_ignore(self, table: Table) -> Insert:
        """Return an INSERT that leaves a row which is there already as it is."""
        ...

    def insert_or_ignore_pairs(self, table: Table, shared: Sequence[str], pair: tuple[str, str]) -> Insert:
        """Return an INSERT of several rows, which leaves rows that are there already as they are.

        All have the same values in the ``shared`` columns, parameters of these names; their columns ``pair``
        are from the parameter ``pairs``, a JSON array of arrays of two texts.
        """
        ...

    def insert_or_update(
        self, table: Table, key: Sequence[str], change: Callable[[NewRow], Change]
    ) -> Insert:
        """Return an INSERT that changes the row which has the same ``key`` columns."""
        ...


class Upserts:
    """One database's upserts, each built once: to build a statement takes longer than to run it."""

    def __init__(self, dialect: InsertDialect) -> None:
        self.repository = dialect.insert_or_ignore(repositories)
        self.link = frequent(dialect.insert_or_ignore(links))
        self.references = frequent(
            dialect.insert_or_ignore_pairs(
                manifest_references, ("repository_id", "parent"), ("child", "role")
            )
        )
        self.damage = dialect.insert_or_ignore(damaged)
        self.ingest = dialect.insert_or_ignore(blob_ingests)
        self.blob_object = frequent(dialect.insert_or_ignore(blob_objects))
        self.object_removal = dialect.insert_or_update(object_removals, ["key"], _all("upload_id", "due_at"))
        self.manifest = frequent(dialect.insert_or_update(manifests, ["repository_id", "digest"], _manifest))
        self.lease = frequent(dialect.insert_or_update(leases, ["digest"], _lease))
        self.job = dialect.insert_or_update(jobs, ["name"], _all("started_at", "finished_at", "state"))
        self.upstream_tag = dialect.insert_or_update(
            upstream_tags, ["repository", "tag"], _all("digest", "checked_at")
        )
        self.robot_token = dialect.insert_or_update(robot_tokens, ["name"], _robot_token)
        self.transaction_lock = dialect.insert_or_update(transaction_locks, ["name"], _unchanged)
        self.sighting = dialect.insert_or_update(sightings, ["digest", "repository", "place"], _sighting)
        self.observation_schedule = dialect.insert_or_update(
            observation_schedule, ["repository", "tag"], _schedule
        )
        self.observed_move = dialect.insert_or_ignore(observed_moves)
        self.fleet_agent = dialect.insert_or_ignore(fleet_agents)
        self.fleet_source = dialect.insert_or_ignore(fleet_sources)
        self.fleet_image = dialect.insert_or_ignore(fleet_images)
        self.fleet_image_digest = dialect.insert_or_update(
            fleet_image_digests, ["digest", "image"], _all("kind")
        )
        self.fleet_early_end = dialect.insert_or_update(
            fleet_early_ends, ["source", "container", "instance"], _all("ended_at", "ended_after")
        )
        self.fleet_snapshot_run = dialect.insert_or_ignore(fleet_snapshot_runs)
        self.fleet_run_count = dialect.insert_or_update(
            fleet_run_counts,
            ["length", "from_at", "image"],
            _sums("started", "ended", table=fleet_run_counts),
        )


def _all(*columns: str) -> Callable[[NewRow], Change]:
    return lambda new: Change({column: new[column] for column in columns})


def _sums(*columns: str, table: Table) -> Callable[[NewRow], Change]:
    return lambda new: Change({column: table.c[column] + new[column] for column in columns})


def _manifest(new: NewRow) -> Change:
    again = {
        column.name: new[column.name]
        for column in manifests.columns
        if column.name not in {"repository_id", "digest", "pushed_at"}
    }
    # A referrer that is pushed again while it is there keeps its age: an advisory does not become the newest
    # by being repeated. An image that is pushed again is kept as one just pushed.
    as_old = manifests.c.deleted_at.is_(None) & new.subject.is_not(None)
    return Change({**again, "pushed_at": case((as_old, manifests.c.pushed_at), else_=new.pushed_at)})


def _lease(new: NewRow) -> Change:
    return Change({"expires_at": new.expires_at}, where=leases.c.expires_at < new.expires_at)


def _schedule(new: NewRow) -> Change:
    # A shorter interval takes effect at once; the validator and the failures stay.
    earlier = case(
        (observation_schedule.c.due_at > new.due_at, new.due_at), else_=observation_schedule.c.due_at
    )
    changed = observation_schedule.c.interval != new.interval
    return Change({"interval": new.interval, "due_at": earlier}, where=changed)


def _robot_token(new: NewRow) -> Change:
    # A name is used again once its token has ended.
    usable = robot_tokens.c.revoked_at.is_(None) & (
        robot_tokens.c.expires_at.is_(None) | (robot_tokens.c.expires_at > new.created_at)
    )
    columns = ("secret_hash", "created_at", "expires_at", "revoked_at", "place")
    return Change({column: new[column] for column in columns}, where=~usable)


def _unchanged(new: NewRow) -> Change:
    # The row is locked in any case.
    return Change({"name": new.name}, where=false())


def _sighting(new: NewRow) -> Change:
    later = case((sightings.c.last_at > new.last_at, sightings.c.last_at), else_=new.last_at)
    # A place stays with the actor who reported it first: nobody can take over those of others to have them
    # forgotten.
    return Change({"containers": new.containers, "last_at": later})
