"""The copy of a catalog's rows to another database, and the comparison of the two.

Functions on transactions. The triggers' counts are computed anew from the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    ScalarSelect,
    Table,
    cast,
    delete,
    func,
    insert,
    select,
)

from digestry.catalog import clock, dialect, relocation
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.journal_sequencing import BATCH, sequence_entries
from digestry.catalog.object_schema import (
    blob_ingest_fragments,
    blob_ingests,
    blob_objects,
    object_removals,
    quarantined_objects,
)
from digestry.catalog.schema import (
    FLEET_TABLES,
    OBSERVATION_TABLES,
    advisory_statements,
    damaged,
    deliveries,
    identity,
    jobs,
    journal,
    leases,
    links,
    manifest_references,
    manifests,
    repositories,
    robot_tokens,
    sighting_usage,
    sightings,
    tags,
    upstream_tags,
    usage,
)
from digestry.catalog.sightings import sighting_bytes
from digestry.errors import StorageError
from digestry.model.digest import Digest

REGISTRY_TABLES: Final = (
    repositories,
    links,
    manifests,
    manifest_references,
    tags,
    journal,
    robot_tokens,
    leases,
    deliveries,
    sightings,
    damaged,
    jobs,
    upstream_tags,
    advisory_statements,
    *FLEET_TABLES,
    *OBSERVATION_TABLES,
)
"""The tables of a registry, in the order in which rows refer to each other."""
OBJECT_TABLES: Final = (blob_objects, quarantined_objects, object_removals)
"""The tables about the objects of an S3 store."""
_ROWS: Final = 1000


def load(source: Connection, target: Connection, *, with_objects: bool) -> dict[str, int]:
    """Copy all rows of a registry to a catalog that has none; return how many each table got.

    ``with_objects`` copies those about the objects of an S3 store too, and marks the objects of uploads under
    way for removal. Raises :class:`StorageError` if the target has rows, or has not got them all.
    """
    tables = (*REGISTRY_TABLES, *OBJECT_TABLES) if with_objects else REGISTRY_TABLES
    names = [table.name for table in (*tables, usage, sighting_usage)]
    speaking = dialect.of(target)
    speaking.begin_load(target, names)
    for table in (repositories, journal):
        if _count(target, table):
            raise StorageError(f"rows of {table.name} were written to the new catalog by somebody else")
    counts = {table.name: _copy(source, target, table) for table in tables}
    target.execute(delete(identity))
    _copy(source, target, identity)
    if with_objects:
        _remove_ingests(source, target)
    _recount(target)
    speaking.end_load(target, names)
    for table in tables:
        found = _count(target, table)
        if found != counts[table.name] and table is not object_removals:
            raise StorageError(f"{table.name} has {found} rows in the new catalog, not {counts[table.name]}")
    return counts


def _copy(source: Connection, target: Connection, table: Table) -> int:
    query = select(table).order_by(*table.primary_key.columns)
    speaking, count = dialect.of(target), 0
    for rows in source.execute(query, execution_options={"yield_per": _ROWS}).partitions():
        speaking.load(target, table, rows)
        count += len(rows)
    return count


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _remove_ingests(source: Connection, target: Connection) -> None:
    """Mark the objects of incoming content for removal: the new catalog does not continue it."""
    rows = [{"key": row.key, "upload_id": row.upload_id} for row in source.execute(select(blob_ingests))]
    fragments = source.execute(select(blob_ingest_fragments.c.key)).scalars()
    rows += [{"key": key, "upload_id": ""} for key in fragments]
    if rows:
        now = clock.now()
        statement = dialect.of(target).upserts.object_removal
        target.execute(statement, [{**row, "due_at": now} for row in rows])


def _recount(connection: Connection) -> None:
    """Compute the counts of a catalog's triggers anew."""

    def total(table: Table, *conditions: ColumnElement[bool]) -> ScalarSelect[int]:
        own = table.c.repository_id == repositories.c.id
        return (
            select(cast(func.coalesce(func.sum(table.c.size), 0), BigInteger))
            .where(own, *conditions)
            .scalar_subquery()
        )

    held = total(links) + total(manifests, manifests.c.deleted_at.is_(None))
    named = (
        select(func.count()).where(tags.c.repository_id == repositories.c.id).select_from(tags)
    ).scalar_subquery()
    connection.execute(delete(usage))
    connection.execute(
        insert(usage).from_select(["repository_id", "bytes", "tags"], select(repositories.c.id, held, named))
    )
    size = cast(func.sum(sighting_bytes(connection, sightings.c)), BigInteger)
    connection.execute(delete(sighting_usage))
    connection.execute(
        insert(sighting_usage).from_select(
            ["actor", "bytes"], select(sightings.c.actor, size).group_by(sightings.c.actor)
        )
    )


def finish(
    connection: Connection, subscriptions: Sequence[Subscription], missing: Sequence[tuple[Digest, str]]
) -> None:
    """Make the copy a catalog that can be served: entries have positions, and a new generation.

    ``missing`` is content that the copy lists and that was left out, with the reasons.
    """
    known = set(connection.execute(select(damaged.c.digest)).scalars())
    rows = [
        {"digest": str(digest), "problem": problem, "found_at": clock.now()}
        for digest, problem in missing
        if str(digest) not in known
    ]
    if rows:
        connection.execute(insert(damaged), rows)
    while sequence_entries(connection, subscriptions, BATCH):
        pass
    connection.execute(identity.update().values(bound=True, generation=identity.c.generation + 1))
    relocation.forget(connection)


def chain_ends(connection: Connection) -> dict[str, tuple[int, str]]:
    """Return the number and the hash of the last journal entry of each repository."""
    last = select(journal.c.repository, func.max(journal.c.number).label("number"))
    ends = last.group_by(journal.c.repository).subquery()
    same_row = (ends.c.repository == journal.c.repository) & (ends.c.number == journal.c.number)
    query = select(journal.c.repository, journal.c.number, journal.c.hash).join_from(journal, ends, same_row)
    return {row.repository: (row.number, row.hash) for row in connection.execute(query)}
