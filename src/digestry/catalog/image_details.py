"""What a repository knows about one digest: its manifest, or the blob that it is, and what refers to it.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, select

from digestry.catalog import damage, dialect, manifest_rows
from digestry.catalog.manifest_rows import StoredManifest
from digestry.catalog.schema import links, manifest_references, manifests


@dataclass(frozen=True, slots=True)
class ManifestDetails:
    """A manifest or index that a repository has, or had: ``deleted_at`` is when it was deleted, ``damaged``
    whether its bytes were found to be wrong. Times are in microseconds since 1970, ``size`` in bytes."""

    digest: str
    media_type: str
    size: int
    artifact_type: str | None
    subject: str | None
    config: str | None
    pushed_at: int
    deleted_at: int | None
    damaged: bool


@dataclass(frozen=True, slots=True)
class User:
    """A manifest or index that refers to a digest, in a ``role``: config, layer or manifest."""

    digest: str
    media_type: str
    role: str
    pushed_at: int
    deleted_at: int | None


def manifest_details(connection: Connection, repository: int, digest: str) -> ManifestDetails | None:
    """Return a manifest, deleted or not; None if the repository never had it."""
    columns = (
        manifests.c.digest,
        manifests.c.media_type,
        manifests.c.size,
        manifests.c.artifact_type,
        manifests.c.subject,
        manifests.c.config,
        manifests.c.pushed_at,
        manifests.c.deleted_at,
    )
    here = (manifests.c.repository_id == repository) & (manifests.c.digest == digest)
    row = connection.execute(select(*columns).where(here)).first()
    if row is None:
        return None
    return ManifestDetails(**row._mapping, damaged=damage.is_damaged(connection, digest))


def blob_size(connection: Connection, repository: int, digest: str) -> int | None:
    """Return a blob's size in bytes; None if the repository may not serve it."""
    here = (links.c.repository_id == repository) & (links.c.digest == digest)
    return connection.execute(select(links.c.size).where(here)).scalar()


def users_of(connection: Connection, repository: int, digest: str, *, limit: int) -> tuple[User, ...]:
    """Return the manifests and indexes that refer to a digest, the newest first."""
    refers = (
        (manifest_references.c.repository_id == repository)
        & (manifest_references.c.child == digest)
        & (manifests.c.repository_id == manifest_references.c.repository_id)
        & (manifests.c.digest == manifest_references.c.parent)
    )
    query = (
        select(
            manifests.c.digest,
            manifests.c.media_type,
            manifest_references.c.role,
            manifests.c.pushed_at,
            manifests.c.deleted_at,
        )
        .where(refers)
        .order_by(manifests.c.pushed_at.desc(), manifests.c.digest)
        .limit(limit)
    )
    return tuple(User(**row._mapping) for row in connection.execute(query))


def parts_of(connection: Connection, repository: int, digest: str) -> list[str]:
    """Return the config and the layers of an image; nothing for an index."""
    here = (manifest_references.c.repository_id == repository) & (manifest_references.c.parent == digest)
    query = select(manifest_references.c.child).where(
        here, manifest_references.c.role.in_(("config", "layer"))
    )
    return list(connection.execute(query).scalars())


def referrers_of(
    connection: Connection, repository: int, subjects: Iterable[str], *, limit: int
) -> tuple[StoredManifest, ...]:
    """Return the manifests whose subject is one of ``subjects``, the newest first."""
    keys = dialect.of(connection).bulk_keys(sorted((repository, digest) for digest in set(subjects)), int)
    here = (manifests.c.repository_id == keys.first) & (manifests.c.subject == keys.second)
    query = (
        select(manifests)
        .join_from(keys.table, manifests, here)
        .where(manifests.c.deleted_at.is_(None))
        .order_by(manifests.c.pushed_at.desc(), manifests.c.digest)
        .limit(limit)
    )
    return tuple(manifest_rows.to_stored(row) for row in connection.execute(query))
