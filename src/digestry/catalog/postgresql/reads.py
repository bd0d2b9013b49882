"""The reads that every pull makes, gathered into one statement for all that wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from digestry.catalog.postgresql.address import DatabaseAddress
from digestry.catalog.postgresql.batched_lookups import BatchedLookups, question
from digestry.catalog.postgresql.pipeline import server_statement
from digestry.catalog.reads import CachedBlob, CachedContent, CachedManifest, MirroredTag, SeenTag

# Each key by itself, with a limit: so it is always looked up in the indices, whatever the planner believes of
# the tables. Tables that are joined as a whole may be read as a whole.
# The planner must not know how many keys there are: it would plan anew for each number of them.
_KEYS: Final = "unnest((SELECT $1::text[]))"
_PAIRS: Final = "unnest((SELECT $1::text[]), (SELECT $2::text[]))"
_ASKED: Final = f" FROM {_PAIRS} WITH ORDINALITY AS w(repository, target, number)"
_EACH: Final = f"SELECT w.number, f.*{_ASKED} CROSS JOIN LATERAL (SELECT"
_END: Final = " LIMIT 1) f"
_HERE: Final = " FROM repositories r"

_TAG: Final = question(
    f"{_EACH} t.digest, m.media_type, m.size{_HERE}"
    " JOIN tags t ON t.repository_id = r.id AND t.name = w.target"
    " JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest AND m.deleted_at IS NULL"
    " WHERE r.name = w.repository AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.digest = t.digest)"
    f"{_END}"
)
_MANIFEST: Final = question(
    f"{_EACH} m.digest, m.media_type, m.size, e.expires_at{_HERE}"
    " JOIN manifests m ON m.repository_id = r.id AND m.digest = w.target AND m.deleted_at IS NULL"
    " LEFT JOIN leases e ON e.digest = m.digest"
    " WHERE r.name = w.repository AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.digest = m.digest)"
    f"{_END}"
)
_BLOB: Final = question(
    f"{_EACH} l.size, coalesce(e.expires_at, 0){_HERE}"
    " JOIN links l ON l.repository_id = r.id AND l.digest = w.target"
    " LEFT JOIN leases e ON e.digest = l.digest"
    " WHERE r.name = w.repository AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.digest = l.digest)"
    f"{_END}"
)
_CONTENT: Final = question(
    f"{_EACH} coalesce(l.size, m.size), coalesce(e.expires_at, 0), l.digest IS NOT NULL,"
    f" EXISTS (SELECT 1 FROM damaged d WHERE d.digest = w.target){_HERE}"
    " LEFT JOIN links l ON l.repository_id = r.id AND l.digest = w.target"
    " LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = w.target AND m.deleted_at IS NULL"
    " LEFT JOIN leases e ON e.digest = w.target"
    f" WHERE r.name = w.repository AND (l.digest IS NOT NULL OR m.digest IS NOT NULL){_END}"
)
# The digests of one target, each with its size, are divided by spaces.
_SERVES: Final = (
    f"{_EACH} 1{_HERE} WHERE r.name = w.repository AND NOT EXISTS ("
    "SELECT 1 FROM (SELECT split_part(pair, '=', 1) AS digest, split_part(pair, '=', 2)::bigint AS size"
    " FROM unnest(string_to_array(w.target, ' ')) AS p(pair)) AS n"
    " LEFT JOIN LATERAL ({found} LIMIT 1) h ON true"
    " LEFT JOIN LATERAL (SELECT 1 AS bad FROM damaged d WHERE d.digest = n.digest LIMIT 1) d ON true"
    f" WHERE h.one IS NULL OR d.bad IS NOT NULL){_END}"
)
_SERVES_BLOBS: Final = question(
    _SERVES.format(
        found="SELECT 1 AS one FROM links l"
        " WHERE l.repository_id = r.id AND l.digest = n.digest AND l.size = n.size"
    )
)
_SERVES_MANIFESTS: Final = question(
    _SERVES.format(
        found="SELECT 1 AS one FROM manifests m"
        " WHERE m.repository_id = r.id AND m.digest = n.digest AND m.size = n.size"
        " AND m.deleted_at IS NULL"
    )
)
# What the first three above leave out for its damage alone.
_DAMAGED_TAG: Final = question(
    f"{_EACH} 1{_HERE} JOIN tags t ON t.repository_id = r.id AND t.name = w.target"
    f" JOIN damaged d ON d.digest = t.digest WHERE r.name = w.repository{_END}"
)
_DAMAGED: Final = question(
    f"{_EACH} 1{_HERE} JOIN damaged d ON d.digest = w.target"
    " LEFT JOIN links l ON l.repository_id = r.id AND l.digest = w.target"
    " LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = w.target AND m.deleted_at IS NULL"
    f" WHERE r.name = w.repository AND (l.digest IS NOT NULL OR m.digest IS NOT NULL){_END}"
)
# What a registry has of itself: a repository that something was pushed to and that has any of it left.
_REPOSITORY: Final = question(
    f"SELECT w.number FROM {_KEYS} WITH ORDINALITY AS w(repository, number)"
    f" CROSS JOIN LATERAL (SELECT{_HERE} CROSS JOIN LATERAL ("
    "(SELECT 1 FROM manifests m WHERE m.repository_id = r.id AND m.deleted_at IS NULL LIMIT 1)"
    " UNION ALL (SELECT 1 FROM links l WHERE l.repository_id = r.id LIMIT 1)"
    f") AS held WHERE r.name = w.repository{_END}"
)
_MIRRORED_TAG: Final = question(
    f"{_EACH} s.digest, s.checked_at, m.digest, m.media_type, m.size FROM (SELECT 1) AS one"
    " LEFT JOIN upstream_tags s ON s.repository = w.repository AND s.tag = w.target"
    " LEFT JOIN repositories r ON r.name = w.repository"
    " LEFT JOIN tags t ON t.repository_id = r.id AND t.name = w.target"
    " AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.digest = t.digest)"
    " LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest AND m.deleted_at IS NULL"
    f"{_END}"
)
_TAGS: Final = server_statement(
    "SELECT ARRAY(SELECT t.name FROM tags t WHERE t.repository_id = r.id AND t.name > $1"
    " ORDER BY t.name LIMIT $2) FROM repositories r WHERE r.name = $3"
)


class PostgresqlReads:
    """The :class:`~digestry.catalog.reads.CatalogReads` of a database. Connects when it is first asked."""

    def __init__(self, address: DatabaseAddress) -> None:
        self._gathering = BatchedLookups(address)

    async def manifest(self, repository: str, target: str) -> CachedManifest | None:
        """Return what ``target``, a tag or a digest, is in the repository now."""
        # A tag has no colon, a digest has one.
        row = await self._gathering.ask(_MANIFEST if ":" in target else _TAG, (repository, target))
        return None if row is None else CachedManifest(*row)

    async def blob(self, repository: str, digest: str) -> CachedBlob | None:
        """Return a blob that the repository may serve, or None."""
        row = await self._gathering.ask(_BLOB, (repository, digest))
        return None if row is None else CachedBlob(*row)

    async def content(self, repository: str, digest: str) -> CachedContent | None:
        """Return what the repository has under a digest, a blob or a manifest, damaged or not; or None."""
        row = await self._gathering.ask(_CONTENT, (repository, digest))
        return None if row is None else CachedContent(*row)

    async def serves_all(self, repository: str, sizes: Mapping[str, int], *, manifests: bool) -> bool:
        """Return whether the repository can serve all of these blobs, or with ``manifests`` manifests, and
        they have these sizes in bytes."""
        target = " ".join(f"{digest}={size}" for digest, size in sizes.items())
        question = _SERVES_MANIFESTS if manifests else _SERVES_BLOBS
        return await self._gathering.ask(question, (repository, target)) is not None

    async def damaged(self, repository: str, target: str) -> bool:
        """Return whether ``target``, a tag or a digest, would be served but for the damage to its content."""
        question = _DAMAGED if ":" in target else _DAMAGED_TAG
        return await self._gathering.ask(question, (repository, target)) is not None

    async def repository(self, name: str) -> bool:
        """Return whether there is such a repository, with anything in it."""
        return await self._gathering.ask(_REPOSITORY, (name,)) is not None

    async def tags(self, repository: str, *, after: str, limit: int) -> list[str] | None:
        """Return the first ``limit`` tags after ``after``, in the order of their bytes; None if there is no
        such repository. For a page, not for a list of any length."""
        row = await self._gathering.one(_TAGS, (after, limit, repository))
        return None if row is None else list(row[0])

    async def mirrored_tag(self, repository: str, tag: str) -> MirroredTag:
        """Return what an upstream's tag pointed to when it was last asked, and what the tag is here, both at
        one moment."""
        row = await self._gathering.ask(_MIRRORED_TAG, (repository, tag))
        if row is None:
            return MirroredTag(None, None)
        seen = None if row[0] is None else SeenTag(row[0], row[1])
        here = None if row[2] is None else CachedManifest(row[2], row[3], row[4])
        return MirroredTag(seen, here)

    async def close(self) -> None:
        """End the connections."""
        await self._gathering.close()
