"""Rows about content: repositories, links, manifests and what they refer to, leases.

Functions on a transaction, for ``catalog.py``. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from sqlalchemy import Connection, Select, delete, exists, insert, or_, select, update

from digestry.catalog import damage, dialect, push_statements
from digestry.catalog.schema import (
    journal,
    leases,
    links,
    manifest_references,
    manifests,
    repositories,
    tags,
)
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.history import Holder
from digestry.model.manifest import Manifest

_PAGE_BYTES: Final = 3 << 20
"""So many bytes of annotations end a page: clients take answers of 4 MiB (distribution-spec)."""
_CHUNK: Final = 500  # SQLite allows 999 variables and more; stay below in one statement
_ROUNDS: Final = 64  # how deep indexes of indexes are followed


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as its repository has it. ``size`` is in bytes; ``annotations`` are its own."""

    digest: Digest
    media_type: str
    size: int
    artifact_type: str | None
    subject: Digest | None
    annotations: dict[str, str]
    pushed_at: int


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; ``more`` tells whether the list goes on after it."""

    rows: tuple[StoredManifest, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a list that is newest first, whether or not what was there still is."""

    pushed_at: int
    digest: str


def repository_id(connection: Connection, name: str) -> int | None:
    """The repository's row, or None if there is no such repository."""
    return connection.execute(push_statements.REPOSITORY_ID, {"name": name}).scalar()


def make_repository(connection: Connection, name: str, now: int) -> int:
    """The repository's row, made if need be."""
    found = repository_id(connection, name)
    if found is not None:
        return found
    result = connection.execute(insert(repositories).values(name=name, created_at=now))
    return cast("tuple[int]", result.inserted_primary_key)[0]


def link(connection: Connection, repository: int, digest: str, size: int, now: int) -> bool:
    """Gives the repository the right to serve a blob; again is no change, and False."""
    values = {"repository_id": repository, "digest": digest, "size": size, "linked_at": now}
    return connection.execute(dialect.of(connection).upserts.link, values).rowcount > 0


def unlink(connection: Connection, repository: int, digest: str) -> bool:
    """Takes that right away; False if it was not there."""
    statement = delete(links).where(links.c.repository_id == repository, links.c.digest == digest)
    return connection.execute(statement).rowcount > 0


def linked_size(connection: Connection, digest: str, repository: str | None) -> int | None:
    """A blob's size in bytes, if ``repository`` (None: any repository) may serve it, and can."""
    query = select(links.c.size).where(links.c.digest == digest, damage.whole(links.c.digest))
    if repository is not None:
        query = query.join(repositories).where(repositories.c.name == repository)
    return connection.execute(query.limit(1)).scalar()


def linked_in(connection: Connection, digest: str) -> list[str]:
    """The repositories that may serve a blob."""
    query = select(repositories.c.name).select_from(links.join(repositories)).where(links.c.digest == digest)
    return list(connection.execute(query.order_by(repositories.c.name)).scalars())


def has(connection: Connection, repository: int, digest: str) -> bool:
    """Whether the repository may serve this, as a blob or as a manifest."""
    linked = select(links.c.size).where(links.c.repository_id == repository, links.c.digest == digest)
    return (
        connection.execute(linked).first() is not None or manifest(connection, repository, digest) is not None
    )


def extend_lease(connection: Connection, digest: str, until: int) -> None:
    """Promises that content is kept until then at the least."""
    connection.execute(dialect.of(connection).upserts.lease, {"digest": digest, "expires_at": until})


def lease_end(connection: Connection, digest: str) -> int | None:
    """Until when content is promised to be kept."""
    return connection.execute(select(leases.c.expires_at).where(leases.c.digest == digest)).scalar()


def missing(
    connection: Connection, repository: int, manifest: Manifest, *, sparse: bool = False
) -> list[str]:
    """The digests that ``manifest`` refers to and the repository does not have, or cannot serve.

    What an index lists may be a blob, as in a build cache; with ``sparse``, manifests that it lists may be
    missing. Foreign layers need not be there (image-spec, layer.md, "Non-Distributable Layers"), and
    neither need a subject (distribution-spec, "Push").
    """
    wanted_blobs = [
        str(blob.digest)
        for blob in manifest.blobs()
        if not (media_types.is_foreign(blob.media_type) and blob.urls)
    ]
    wanted_manifests = [
        str(child.digest)
        for child in manifest.manifests
        if not (sparse and child.media_type in media_types.MANIFESTS)
    ]
    have_blobs = _have(connection, push_statements.HAVE_LINKS, repository, wanted_blobs)
    have_manifests = _have(connection, push_statements.HAVE_MANIFESTS, repository, wanted_manifests)
    lacking = [digest for digest in wanted_blobs if digest not in have_blobs]
    other = {str(one.digest) for one in manifest.manifests if one.media_type not in media_types.MANIFESTS}
    have_manifests |= _have(connection, push_statements.HAVE_LINKS, repository, sorted(other))
    lacking += [digest for digest in wanted_manifests if digest not in have_manifests]
    return list(dict.fromkeys(lacking))


def _have(connection: Connection, query: Select[str], repository: int, digests: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(digests), _CHUNK):
        some = {"repository": repository, "digests": digests[start : start + _CHUNK]}
        found.update(connection.execute(query, some).scalars())
    return found


def store_manifest(connection: Connection, repository: int, manifest: Manifest, now: int) -> None:
    """Makes a manifest visible in the repository, and notes what it refers to."""
    digest = str(manifest.digest)
    values: dict[str, Any] = {
        "repository_id": repository,
        "digest": digest,
        "media_type": manifest.media_type,
        "size": manifest.size,
        "artifact_type": manifest.artifact_type,
        "subject": None if manifest.subject is None else str(manifest.subject.digest),
        "config": None if manifest.config is None else str(manifest.config.digest),
        "annotations": msgspec.json.encode(manifest.annotations).decode(),
        "pushed_at": now,
        "deleted_at": None,
    }
    upserts = dialect.of(connection).upserts
    connection.execute(upserts.manifest, values)
    references = [("config", manifest.config)] if manifest.config else []
    references += [("layer", layer) for layer in manifest.layers]
    references += [("manifest", child) for child in manifest.manifests]
    rows = {
        (str(child.digest), role): {
            "repository_id": repository,
            "parent": digest,
            "child": str(child.digest),
            "role": role,
        }
        for role, child in references
    }
    if rows:
        connection.execute(upserts.reference, list(rows.values()))


def manifest(connection: Connection, repository: int, digest: str) -> StoredManifest | None:
    """One manifest of the repository, if it can be pulled."""
    row = connection.execute(push_statements.MANIFEST, {"repository": repository, "digest": digest}).first()
    return None if row is None else stored(row)


def delete_manifest(connection: Connection, repository: int, digest: str, now: int) -> None:
    """Ends a manifest's visibility; what it was is still known."""
    connection.execute(
        update(manifests)
        .where(manifests.c.repository_id == repository, manifests.c.digest == digest)
        .values(deleted_at=now)
    )


def users(connection: Connection, repository: int, digest: str, *, roles: Iterable[str]) -> list[str]:
    """Up to three manifests that can be pulled and refer to ``digest`` in one of ``roles``."""
    query = (
        select(manifest_references.c.parent)
        .join(
            manifests,
            (manifests.c.repository_id == manifest_references.c.repository_id)
            & (manifests.c.digest == manifest_references.c.parent),
        )
        .where(
            manifest_references.c.repository_id == repository,
            manifest_references.c.child == digest,
            manifest_references.c.role.in_(list(roles)),
            manifests.c.deleted_at.is_(None),
        )
        .limit(3)
    )
    return list(connection.execute(query).scalars())


def referrers(
    connection: Connection,
    repository: int,
    subject: str,
    *,
    artifact_type: str | None,
    after: Cursor | None,
    limit: int,
) -> Page:
    """The manifests whose subject this is, newest first, those after ``after``."""
    query = select(manifests.c.digest).where(
        manifests.c.repository_id == repository,
        manifests.c.subject == subject,
        manifests.c.deleted_at.is_(None),
    )
    if artifact_type is not None:
        query = query.where(manifests.c.artifact_type == artifact_type)
    if after is not None:
        query = query.where(
            (manifests.c.pushed_at < after.pushed_at)
            | ((manifests.c.pushed_at == after.pushed_at) & (manifests.c.digest > after.digest))
        )
    newest_first = (manifests.c.pushed_at.desc(), manifests.c.digest)
    # Digests alone are put in order, and then the rows of one page: their annotations may be large.
    chosen = list(connection.execute(query.order_by(*newest_first).limit(limit + 1)).scalars())
    rows = select(manifests).where(manifests.c.repository_id == repository, manifests.c.digest.in_(chosen))
    return _page(connection, rows.order_by(*newest_first), limit)


def advisories(
    connection: Connection, repository: int, predicate_prefix: str, *, after: str | None, limit: int
) -> Page:
    """The repository's advisories, newest first: in-toto referrers annotated with such a predicate."""
    query = select(manifests).where(
        manifests.c.repository_id == repository,
        manifests.c.subject.is_not(None),
        manifests.c.artifact_type == media_types.IN_TOTO,
        manifests.c.deleted_at.is_(None),
    )
    if after is not None:
        here = (manifests.c.repository_id == repository) & (manifests.c.digest == after)
        pushed_at = connection.execute(select(manifests.c.pushed_at).where(here)).scalar()
        if pushed_at is None:
            return Page((), more=False)
        query = query.where(
            (manifests.c.pushed_at < pushed_at)
            | ((manifests.c.pushed_at == pushed_at) & (manifests.c.digest < after))
        )
    query = query.order_by(manifests.c.pushed_at.desc(), manifests.c.digest.desc())
    return _page(connection, query, limit, predicate_prefix)


def _page(
    connection: Connection, query: Select[Any], limit: int, predicate_prefix: str | None = None
) -> Page:
    """Reads row by row: a page ends before its annotations are more than an answer may have."""
    page: list[StoredManifest] = []
    held = 0
    rows = connection.execute(query, execution_options={"yield_per": 16})
    try:
        for row in rows:
            held += len(row.annotations)
            if page and (len(page) == limit or held > _PAGE_BYTES):
                return Page(tuple(page), more=True)
            found = stored(row)
            if predicate_prefix is not None:
                predicate = found.annotations.get(media_types.PREDICATE_TYPE, "")
                if not predicate.startswith(predicate_prefix):
                    held -= len(row.annotations)
                    continue
            page.append(found)
    finally:
        rows.close()
    return Page(tuple(page), more=False)


def repositories_of(connection: Connection, digest: str) -> list[str]:
    """The repositories that ever had ``digest``: as a manifest, as one's config, as an index's child,
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


def holders(connection: Connection, repository: int, digest: str) -> list[Holder]:
    """All that is, has as its config, or lists, ``digest``, directly or not; deleted ones included."""
    found: set[str] = set(
        connection.execute(
            select(manifests.c.digest).where(
                manifests.c.repository_id == repository,
                (manifests.c.digest == digest) | (manifests.c.config == digest),
            )
        ).scalars()
    )
    frontier = list(found)
    for _ in range(_ROUNDS):
        parents: set[str] = set()
        for start in range(0, len(frontier), _CHUNK):
            query = select(manifest_references.c.parent).where(
                manifest_references.c.repository_id == repository,
                manifest_references.c.role == "manifest",
                manifest_references.c.child.in_(frontier[start : start + _CHUNK]),
            )
            parents.update(connection.execute(query).scalars())
        frontier = list(parents - found)
        found.update(frontier)
        if not frontier:
            break
    return _as_holders(connection, repository, sorted(found))


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


def tags_of(connection: Connection, repository: int, digest: str) -> list[str]:
    """The tags that point at ``digest`` now."""
    query = select(tags.c.name).where(tags.c.repository_id == repository, tags.c.digest == digest)
    return list(connection.execute(query.order_by(tags.c.name)).scalars())


def stored(row: Any) -> StoredManifest:
    """A row of the table, all of its columns read."""
    return StoredManifest(
        digest=Digest.parse(row.digest),
        media_type=row.media_type,
        size=row.size,
        artifact_type=row.artifact_type,
        subject=None if row.subject is None else Digest.parse(row.subject),
        annotations=msgspec.json.decode(row.annotations, type=dict[str, str]),
        pushed_at=row.pushed_at,
    )
