"""The holders of a digest: the indexes and manifests that are it, list it, or have it as their config.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select

from digestry.catalog.schema import manifest_references, manifests
from digestry.model.digest import Digest
from digestry.model.history import Holder

_CHUNK: Final = 500  # SQLite allows 999 variables and more; stay below in one statement
_ROUNDS: Final = 64  # how deep indexes of indexes are followed


def find_holders(connection: Connection, repository: int, digest: str) -> list[Holder]:
    """Return all that is, has as its config, or lists, ``digest``, directly or not; deleted ones included."""
    found: set[str] = set(
        connection.execute(
            select(manifests.c.digest).where(
                manifests.c.repository_id == repository,
                (manifests.c.digest == digest) | (manifests.c.config == digest),
            )
        ).scalars()
    )
    return _with_indexes(connection, repository, found)


def find_layer_images(connection: Connection, repository: int, layer: str, *, limit: int) -> list[Holder]:
    """Return images that have ``layer``, up to ``limit`` of them, and the indexes that list them, deleted
    ones included."""
    query = select(manifest_references.c.parent).where(
        manifest_references.c.repository_id == repository,
        manifest_references.c.child == layer,
        manifest_references.c.role == "layer",
    )
    images = connection.execute(query.order_by(manifest_references.c.parent).limit(limit)).scalars().all()
    return _with_indexes(connection, repository, set(images))


def _with_indexes(connection: Connection, repository: int, found: set[str]) -> list[Holder]:
    """Return the manifests ``found`` and the indexes that list them, also by way of others."""
    frontier = list(found)
    for _ in range(_ROUNDS):
        frontier = list(_listing(connection, repository, frontier) - found)
        found.update(frontier)
        if not frontier:
            break
    return _as_holders(connection, repository, sorted(found))


def _listing(connection: Connection, repository: int, digests: Sequence[str]) -> set[str]:
    """Return the indexes that list one of ``digests``."""
    parents: set[str] = set()
    for start in range(0, len(digests), _CHUNK):
        query = select(manifest_references.c.parent).where(
            manifest_references.c.repository_id == repository,
            manifest_references.c.role == "manifest",
            manifest_references.c.child.in_(digests[start : start + _CHUNK]),
        )
        parents.update(connection.execute(query).scalars())
    return parents


def _as_holders(connection: Connection, repository: int, digests: Sequence[str]) -> list[Holder]:
    children: dict[str, list[Digest]] = {}
    result: list[Holder] = []
    for start in range(0, len(digests), _CHUNK):
        some = digests[start : start + _CHUNK]
        query = select(manifest_references.c.parent, manifest_references.c.child).where(
            manifest_references.c.repository_id == repository,
            manifest_references.c.role == "manifest",
            manifest_references.c.parent.in_(some),
        )
        for parent, child in connection.execute(query):
            children.setdefault(parent, []).append(Digest.parse(child))
        rows = connection.execute(
            select(manifests).where(manifests.c.repository_id == repository, manifests.c.digest.in_(some))
        )
        result.extend(
            Holder(
                digest=Digest.parse(row.digest),
                media_type=row.media_type,
                size=row.size,
                present=row.deleted_at is None,
                config=None if row.config is None else Digest.parse(row.config),
                manifests=tuple(sorted(children.get(row.digest, ()))),
            )
            for row in rows
        )
    return result
