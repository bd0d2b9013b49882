"""Rows of manifests, and of what each refers to.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
from sqlalchemy import Connection, Executable, Row, Select, select, update

from digestry.catalog import dialect, push_statements
from digestry.catalog.image_graph import Key, rows_of
from digestry.catalog.schema import manifest_references, manifests, tags
from digestry.errors import NotFound
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest

Asked: TypeAlias = Mapping[str, object]

_Key = TypeVar("_Key")

_PIECE_BYTES: Final = 1 << 20  # of manifests whose rows are read together
_CHUNK: Final = 500  # SQLite allows 999 variables and more; stay below in one statement


class MissingContent(NotFound):
    """A manifest refers to content that its repository does not have; ``digests`` names it."""

    def __init__(self, digests: list[str]) -> None:
        more = f" and {len(digests) - 1} more" if len(digests) > 1 else ""
        super().__init__(
            f"the manifest refers to {digests[0]}{more}, which this repository does not have",
            hint="push the blobs and child manifests first",
        )
        self.digests = digests


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


class Wanted(NamedTuple):
    """What a repository must have of what a manifest refers to; ``either`` may be a blob or a manifest."""

    blobs: list[str]
    manifests: list[str]
    either: list[str]


def wanted_by(manifest: Manifest, *, sparse: bool) -> Wanted:
    """Return what a repository must have before ``manifest`` may come to it; see :func:`missing`."""
    return Wanted(
        [
            str(blob.digest)
            for blob in manifest.blobs()
            if not (media_types.is_foreign(blob.media_type) and blob.urls)
        ],
        [
            str(child.digest)
            for child in manifest.manifests
            if not (sparse and child.media_type in media_types.MANIFESTS)
        ],
        sorted(
            {str(one.digest) for one in manifest.manifests if one.media_type not in media_types.MANIFESTS}
        ),
    )


def missing(
    connection: Connection, repository: int, manifest: Manifest, *, sparse: bool = False
) -> list[str]:
    """Return the digests that ``manifest`` refers to and the repository does not have, or cannot serve.

    What an index lists may be a blob, as in a build cache; with ``sparse``, manifests that it lists may be
    missing. Foreign layers need not be there (image-spec, layer.md, "Non-Distributable Layers"), and
    neither need a subject (distribution-spec, "Push").
    """
    wanted = wanted_by(manifest, sparse=sparse)
    have_blobs = _have(connection, push_statements.HAVE_LINKS, repository, wanted.blobs)
    have_manifests = _have(connection, push_statements.HAVE_MANIFESTS, repository, wanted.manifests)
    lacking = [digest for digest in wanted.blobs if digest not in have_blobs]
    have_manifests |= _have(connection, push_statements.HAVE_LINKS, repository, wanted.either)
    lacking += [digest for digest in wanted.manifests if digest not in have_manifests]
    return list(dict.fromkeys(lacking))


def asked(repository: int, manifest: Manifest, *, sparse: bool = False) -> list[tuple[Executable, Asked]]:
    """Return the statements of :func:`missing`, for :meth:`Dialect.send_ahead`."""
    wanted = wanted_by(manifest, sparse=sparse)
    return [
        *((push_statements.HAVE_LINKS, some) for some in _parts(repository, wanted.blobs)),
        *((push_statements.HAVE_MANIFESTS, some) for some in _parts(repository, wanted.manifests)),
        *((push_statements.HAVE_LINKS, some) for some in _parts(repository, wanted.either)),
    ]


def _have(connection: Connection, query: Select[str], repository: int, digests: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in _parts(repository, digests):
        found.update(connection.execute(query, some).scalars())
    return found


def _parts(repository: int, digests: Sequence[str]) -> Iterator[Asked]:
    for start in range(0, len(digests), _CHUNK):
        yield {"repository": repository, "digests": digests[start : start + _CHUNK]}


def store(connection: Connection, repository: int, manifest: Manifest, now: int) -> None:
    """Make a manifest visible in the repository, and note what it refers to."""
    digest = str(manifest.digest)
    values: dict[str, object] = {
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
    pairs = [(manifest.config, "config")] if manifest.config else []
    pairs += [(layer, "layer") for layer in manifest.layers]
    pairs += [(child, "manifest") for child in manifest.manifests]
    if pairs:
        listed = dict.fromkeys((str(child.digest), role) for child, role in pairs)
        shared = {"repository_id": repository, "parent": digest}
        encoded = msgspec.json.encode(list(listed)).decode()
        connection.execute(upserts.references, {**shared, "pairs": encoded})


def find(connection: Connection, repository: int, digest: str) -> StoredManifest | None:
    """Return one manifest of the repository, if it can be pulled."""
    row = connection.execute(push_statements.MANIFEST, {"repository": repository, "digest": digest}).first()
    return None if row is None else to_stored(row)


def end(connection: Connection, repository: int, digest: str, now: int) -> None:
    """Mark a manifest as deleted: it cannot be pulled, and what it was is still known."""
    connection.execute(
        update(manifests)
        .where(manifests.c.repository_id == repository, manifests.c.digest == digest)
        .values(deleted_at=now)
    )


def users(connection: Connection, repository: int, digest: str, *, roles: Iterable[str]) -> list[str]:
    """Return up to three manifests that can be pulled and refer to ``digest`` in one of ``roles``."""
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


def tags_of(connection: Connection, repository: int, digest: str) -> list[str]:
    """Return the tags that point at ``digest`` now."""
    query = select(tags.c.name).where(tags.c.repository_id == repository, tags.c.digest == digest)
    return list(connection.execute(query.order_by(tags.c.name)).scalars())


def to_stored(row: Any) -> StoredManifest:
    """Return a row of the table, all of its columns read."""
    return StoredManifest(
        digest=Digest.parse(row.digest),
        media_type=row.media_type,
        size=row.size,
        artifact_type=row.artifact_type,
        subject=None if row.subject is None else Digest.parse(row.subject),
        annotations=msgspec.json.decode(row.annotations, type=dict[str, str]),
        pushed_at=row.pushed_at,
    )


def in_pieces(found: Iterable[tuple[_Key, int]], most: int) -> Iterator[list[_Key]]:
    """Yield the keys of manifests, in their order, in lists whose manifests have ``most`` bytes, or are one;
    each key comes with its manifest's size.

    Annotations, a part of each manifest, are megabytes if somebody likes: rows with them are read by such
    lists, and are never put in order by the database.
    """
    piece: list[_Key] = []
    held = 0
    for key, size in found:
        if piece and held + size > most:
            yield piece
            piece, held = [], 0
        piece.append(key)
        held += size
    if piece:
        yield piece


def rows_in_order(connection: Connection, found: Iterable[tuple[Key, int]]) -> Iterator[Row[Any]]:
    """Yield the whole rows of manifests of any repositories, in the order of their keys, each of which comes
    with its manifest's size. What is not taken is not read. Raises :class:`TooMuch`."""
    here = manifests.c.repository_id, manifests.c.digest
    for keys in in_pieces(found, _PIECE_BYTES):
        rows = {
            (row.repository_id, row.digest): row
            for row in rows_of(connection, select(manifests), *here, keys)
        }
        yield from map(rows.__getitem__, keys)
