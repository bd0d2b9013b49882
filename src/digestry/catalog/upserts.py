"""The statements that insert a row, or change the row that is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import case

from digestry.catalog.dialect import Change, NewRow
from digestry.catalog.schema import (
    damaged,
    jobs,
    leases,
    links,
    manifest_references,
    manifests,
    sightings,
    upstream_tags,
)

if TYPE_CHECKING:
    from digestry.catalog.dialect import Dialect


class Upserts:
    """One database's upserts, each built once: to build a statement takes longer than to run it."""

    def __init__(self, dialect: Dialect) -> None:
        self.link = dialect.insert_or_ignore(links)
        self.reference = dialect.insert_or_ignore(manifest_references)
        self.damage = dialect.insert_or_ignore(damaged)
        self.manifest = dialect.insert_or_update(manifests, ["repository_id", "digest"], _manifest)
        self.lease = dialect.insert_or_update(leases, ["digest"], _lease)
        self.job = dialect.insert_or_update(jobs, ["name"], _all("started_at", "finished_at", "state"))
        self.upstream_tag = dialect.insert_or_update(
            upstream_tags, ["repository", "tag"], _all("digest", "checked_at")
        )
        self.sighting = dialect.insert_or_update(sightings, ["digest", "repository", "place"], _sighting)


def _all(*columns: str) -> Callable[[NewRow], Change]:
    return lambda new: Change({column: new[column] for column in columns})


def _manifest(new: NewRow) -> Change:
    again = {
        column.name: new[column.name]
        for column in manifests.columns
        if column.name not in {"repository_id", "digest", "pushed_at"}
    }
    # Pushed again while it is there, what refers to another is as old as it was: an advisory does not
    # become the newest by being repeated. An image that is pushed again is kept as one just pushed.
    as_old = manifests.c.deleted_at.is_(None) & new.subject.is_not(None)
    return Change({**again, "pushed_at": case((as_old, manifests.c.pushed_at), else_=new.pushed_at)})


def _lease(new: NewRow) -> Change:
    return Change({"expires_at": new.expires_at}, where=leases.c.expires_at < new.expires_at)


def _sighting(new: NewRow) -> Change:
    later = case((sightings.c.last_at > new.last_at, sightings.c.last_at), else_=new.last_at)
    # A place stays with who reported it first: nobody takes over others' to have them forgotten.
    return Change({"containers": new.containers, "last_at": later})
