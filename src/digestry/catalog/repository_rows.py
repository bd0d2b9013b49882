"""Rows of repositories: found by name, made, found by what they had.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import Connection, exists, insert, or_, select

from digestry.catalog import push_statements
from digestry.catalog.schema import journal, manifest_references, manifests, repositories


def find(connection: Connection, name: str) -> int | None:
    """Return the repository's row; None if there is no such repository."""
    return connection.execute(push_statements.REPOSITORY_ID, {"name": name}).scalar()


def find_or_make(connection: Connection, name: str, now: int) -> int:
    """Return the repository's row, made if it is not there."""
    found = find(connection, name)
    if found is not None:
        return found
    result = connection.execute(insert(repositories).values(name=name, created_at=now))
    return cast("tuple[int]", result.inserted_primary_key)[0]


def that_had(connection: Connection, digest: str) -> list[str]:
    """Return the repositories that ever had ``digest``: as a manifest, as one's config, as an index's child,
    or under a tag. In the order of their bytes."""
    row = repositories.c.id
    # One look into an index for each repository: each index begins with the repository.
    known = (
        exists().where(manifests.c.repository_id == row, manifests.c.digest == digest),
        exists().where(manifests.c.repository_id == row, manifests.c.config == digest),
        exists().where(
            manifest_references.c.repository_id == row,
            manifest_references.c.child == digest,
            manifest_references.c.role == "manifest",
        ),
        exists().where(journal.c.repository == repositories.c.name, journal.c.to_digest == digest),
    )
    query = select(repositories.c.name).where(or_(*known)).order_by(repositories.c.name)
    return list(connection.execute(query).scalars())
