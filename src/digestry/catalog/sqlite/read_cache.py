"""The reads that every pull makes, answered from memory.

For the event loop's thread of one worker process: a bare SQLite connection, no SQLAlchemy, no
other thread. What was read stays valid until the database's change counter moves
(``PRAGMA data_version``, sqlite.org/pragma.html), whichever process or connection moved it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from digestry.catalog.reads import CachedBlob, CachedContent, CachedManifest, MirroredTag, SeenTag
from digestry.catalog.sqlite.connection import connect_directly
from digestry.errors import StorageError

_MOST: Final = 100_000

_TAG: Final = (
    "SELECT t.digest, m.media_type, m.size FROM repositories r"
    " JOIN tags t ON t.repository_id = r.id AND t.name = ?2"
    " JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest AND m.deleted_at IS NULL"
    " WHERE r.name = ?1 AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.digest = t.digest)"
)
_MANIFEST: Final = (
    "SELECT m.digest, m.media_type, m.size, e.expires_at FROM repositories r"
    " JOIN manifests m ON m.repository_id = r.id AND m.digest = ?2 AND m.deleted_at IS NULL"
    " LEFT JOIN leases e ON e.digest = m.digest"
    " WHERE r.name = ?1 AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.digest = ?2)"
)
_BLOB: Final = (
    "SELECT l.size, e.expires_at FROM repositories r"
    " JOIN links l ON l.repository_id = r.id AND l.digest = ?2"
    " LEFT JOIN leases e ON e.digest = l.digest"
    " WHERE r.name = ?1 AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.digest = ?2)"
)
_CONTENT: Final = (
    "SELECT coalesce(l.size, m.size), coalesce(e.expires_at, 0), l.digest IS NOT NULL,"
    " EXISTS (SELECT 1 FROM damaged d WHERE d.digest = ?2) FROM repositories r"
    " LEFT JOIN links l ON l.repository_id = r.id AND l.digest = ?2"
    " LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = ?2 AND m.deleted_at IS NULL"
    " LEFT JOIN leases e ON e.digest = ?2"
    " WHERE r.name = ?1 AND (l.digest IS NOT NULL OR m.digest IS NOT NULL)"
)
_SERVES: Final = (
    "SELECT NOT EXISTS (SELECT 1 FROM json_each(?2) w WHERE"
    " EXISTS (SELECT 1 FROM damaged d WHERE d.digest = w.key) OR NOT EXISTS {found})"
    " FROM repositories r WHERE r.name = ?1"
)
_SERVES_BLOBS: Final = _SERVES.format(
    found="(SELECT 1 FROM links l WHERE l.repository_id = r.id AND l.digest = w.key AND l.size = w.value)"
)
_SERVES_MANIFESTS: Final = _SERVES.format(
    found="(SELECT 1 FROM manifests m WHERE m.repository_id = r.id AND m.digest = w.key"
    " AND m.size = w.value AND m.deleted_at IS NULL)"
)
# What the first three above leave out for its damage alone.
_DAMAGED_TAG: Final = (
    "SELECT 1 FROM repositories r JOIN tags t ON t.repository_id = r.id AND t.name = ?2"
    " JOIN damaged d ON d.digest = t.digest WHERE r.name = ?1"
)
_DAMAGED: Final = (
    "SELECT 1 FROM damaged d JOIN repositories r ON r.name = ?1 WHERE d.digest = ?2 AND ("
    "EXISTS (SELECT 1 FROM links l WHERE l.repository_id = r.id AND l.digest = d.digest) OR"
    " EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = r.id AND m.digest = d.digest"
    " AND m.deleted_at IS NULL))"
)

# What a registry has of itself: a repository that something was pushed to and that has any of it left.
_REPOSITORY: Final = (
    "SELECT EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = r.id AND m.deleted_at IS NULL)"
    " OR EXISTS (SELECT 1 FROM links l WHERE l.repository_id = r.id)"
    " FROM repositories r WHERE r.name = ?1"
)
_ROW: Final = "SELECT id FROM repositories WHERE name = ?1"
_TAGS: Final = "SELECT name FROM tags WHERE repository_id = ?1 AND name > ?2 ORDER BY name LIMIT ?3"
_MIRRORED_TAG: Final = (
    "SELECT s.digest, s.checked_at, m.digest, m.media_type, m.size FROM (SELECT 1)"
    " LEFT JOIN upstream_tags s ON s.repository = ?1 AND s.tag = ?2"
    " LEFT JOIN repositories r ON r.name = ?1"
    " LEFT JOIN tags t ON t.repository_id = r.id AND t.name = ?2"
    " AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.digest = t.digest)"
    " LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest AND m.deleted_at IS NULL"
)


class ReadCache:
    """The :class:`~digestry.catalog.reads.CatalogReads` of a file. No call suspends: each ends at once."""

    def __init__(self, catalog: Path) -> None:
        self._path = catalog
        self._connection = connect_directly(catalog)
        self._version = -1
        self._manifests: dict[tuple[str, str], CachedManifest | None] = {}
        self._blobs: dict[tuple[str, str], CachedBlob | None] = {}
        self._contents: dict[tuple[str, str], CachedContent | None] = {}
        self._repositories: dict[str, bool] = {}
        self._mirrored_tags: dict[tuple[str, str], MirroredTag] = {}

    def _refresh(self) -> None:
        # Another connection's commit moves the number; this connection never writes.
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version or len(self._manifests) + len(self._contents) > _MOST:
            self._manifests.clear()
            self._blobs.clear()
            self._contents.clear()
            self._repositories.clear()
            self._mirrored_tags.clear()
            self._version = version

    async def manifest(self, repository: str, target: str) -> CachedManifest | None:
        """Return what ``target``, a tag or a digest, is in the repository now."""
        try:
            self._refresh()
            key = (repository, target)
            try:
                return self._manifests[key]
            except KeyError:
                # A tag has no colon, a digest has one.
                row = self._connection.execute(_MANIFEST if ":" in target else _TAG, key).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        found = self._manifests[key] = None if row is None else CachedManifest(*row)
        return found

    async def blob(self, repository: str, digest: str) -> CachedBlob | None:
        """Return a blob that the repository may serve, or None. Raises :class:`StorageError`."""
        try:
            self._refresh()
            key = (repository, digest)
            try:
                return self._blobs[key]
            except KeyError:
                row = self._connection.execute(_BLOB, key).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        if len(self._blobs) > _MOST:
            self._blobs.clear()
        found = self._blobs[key] = None if row is None else CachedBlob(row[0], row[1] or 0)
        return found

    async def content(self, repository: str, digest: str) -> CachedContent | None:
        """Return what the repository has under a digest, a blob or a manifest, damaged or not; or None."""
        try:
            self._refresh()
            key = (repository, digest)
            try:
                return self._contents[key]
            except KeyError:
                row = self._connection.execute(_CONTENT, key).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        found = self._contents[key] = None if row is None else CachedContent(*row)
        return found

    async def serves_all(self, repository: str, sizes: Mapping[str, int], *, manifests: bool) -> bool:
        """Return whether the repository can serve all of these blobs, or with ``manifests`` manifests, and
        they have these sizes in bytes."""
        query = _SERVES_MANIFESTS if manifests else _SERVES_BLOBS
        try:
            row = self._connection.execute(query, (repository, json.dumps(sizes))).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return row is not None and bool(row[0])

    async def damaged(self, repository: str, target: str) -> bool:
        """Return whether ``target``, a tag or a digest, would be served but for the damage to its content."""
        try:
            query = _DAMAGED if ":" in target else _DAMAGED_TAG
            return self._connection.execute(query, (repository, target)).fetchone() is not None
        except sqlite3.Error as error:
            raise self._failure(error) from error

    async def repository(self, name: str) -> bool:
        """Return whether there is such a repository, with anything in it. Raises :class:`StorageError`."""
        try:
            self._refresh()
            try:
                return self._repositories[name]
            except KeyError:
                row = self._connection.execute(_REPOSITORY, (name,)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        if len(self._repositories) > _MOST:
            self._repositories.clear()
        found = self._repositories[name] = row is not None and bool(row[0])
        return found

    async def tags(self, repository: str, *, after: str, limit: int) -> list[str] | None:
        """Return the first ``limit`` tags after ``after``, in the order of their bytes; None if there is no
        such repository. Read each time: for a page, not for a list of any length."""
        try:
            row = self._connection.execute(_ROW, (repository,)).fetchone()
            if row is None:
                return None
            return [name for (name,) in self._connection.execute(_TAGS, (row[0], after, limit))]
        except sqlite3.Error as error:
            raise self._failure(error) from error

    async def mirrored_tag(self, repository: str, tag: str) -> MirroredTag:
        """Return what an upstream's tag pointed to when it was last asked, and what the tag is here, both at
        one moment. Raises :class:`StorageError`."""
        try:
            self._refresh()
            key = (repository, tag)
            try:
                return self._mirrored_tags[key]
            except KeyError:
                row = self._connection.execute(_MIRRORED_TAG, key).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        if len(self._mirrored_tags) > _MOST:
            self._mirrored_tags.clear()
        seen = None if row[0] is None else SeenTag(row[0], row[1])
        here = None if row[2] is None else CachedManifest(row[2], row[3], row[4])
        found = self._mirrored_tags[key] = MirroredTag(seen, here)
        return found

    def _failure(self, error: sqlite3.Error) -> StorageError:
        return StorageError(f"the catalog {self._path} cannot be read: {error}")

    async def close(self) -> None:
        """End the connection."""
        self._connection.close()
