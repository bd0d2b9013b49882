"""Rows of repositories: find them by name or by their content, lock them, and make them.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from sqlalchemy import Connection, exists, or_, select

from digestry.catalog import dialect, push_statements
from digestry.catalog.schema import journal, manifest_references, manifests, repositories


def find(connection: Connection, name: str) -> int | None:
    """Return the repository's row; None if there is no such repository."""
    return connection.execute(push_statements.REPOSITORY_ID, {"name": name}).scalar()


def lock(connection: Connection, name: str) -> int | None:
    """Lock the repository's row until the transaction ends, and return it; None if there is no such
    repository.

    Every change of a repository's content locks it first: what is read of it after that stays true.
    """
    return connection.execute(push_statements.LOCK_REPOSITORY, {"name": name}).scalar()


def lock_or_make(connection: Connection, name: str, now: int) -> int:
    """Return the repository's row, locked, and made if it is not there."""
    found = lock(connection, name)
    while found is None:
        # Another transaction may make it at the same moment: then this one waits for that.
        connection.execute(dialect.of(connection).upserts.repository, {"name": name, "created_at": now})
        found = lock(connection, name)
    return found


def that_had(connection: Connection, digest: str, *, layers: bool = False) -> list[str]:
    """Return the repositories that ever had ``digest``: as a manifest, as one's config, as an index's child,
    under a tag, or, with ``layers``, as a layer. In the order of their bytes."""
    row = repositories.c.id
    # One look into an index for each repository: each index begins with the repository.
    known = (
        exists().where(manifests.c.repository_id == row, manifests.c.digest == digest),
        exists().where(manifests.c.repository_id == row, manifests.c.config == digest),
        exists().where(
            manifest_references.c.repository_id == row,
            manifest_references.c.child == digest,
            manifest_references.c.role.in_(("manifest", "layer") if layers else ("manifest",)),
        ),
        exists().where(journal.c.repository == repositories.c.name, journal.c.to_digest == digest),
    )
    query = select(repositories.c.name).where(or_(*known)).order_by(repositories.c.name)
    return list(connection.execute(query).scalars())
