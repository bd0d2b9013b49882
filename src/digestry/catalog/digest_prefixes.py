"""Look-up of digests by their beginning, in the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import ColumnElement, Select, exists, or_, select

from digestry.catalog.database import Database
from digestry.catalog.fleet_schema import fleet_image_digests
from digestry.catalog.schema import damaged, journal, links, manifest_references, manifests, repositories
from digestry.model.digest import Digest
from digestry.model.digest_prefix import DigestPrefix

_AFTER_HEX: Final = "g"


class DigestPrefixes:
    """Looks digests up by their beginning, each in an index. Thread-safe; it only reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def in_repository(self, repository: str, prefix: DigestPrefix, *, limit: int) -> list[Digest]:
        """Return the first ``limit`` manifests, indexes, configs and layers that the repository has or had,
        and that begin so, in the order of their text."""
        with self._database.read() as connection:
            row = connection.execute(
                select(repositories.c.id).where(repositories.c.name == repository)
            ).scalar()
            found: set[str] = set()
            for start in _starts(prefix):
                for query in _in_repository(row, repository, start):
                    found.update(connection.execute(query.limit(limit)).scalars())
        return [Digest.parse(text) for text in sorted(found)[:limit]]

    def repositories(self, prefix: DigestPrefix) -> list[str]:
        """Return the repositories that :meth:`in_repository` finds anything in, in the order of their
        bytes."""
        row = repositories.c.id
        known = [
            exists(query.where(same_algorithm))
            for start in _starts(prefix)
            for query, same_algorithm in (
                (
                    select(manifests.c.digest).where(_range(manifests.c.digest, start)),
                    manifests.c.repository_id == row,
                ),
                (
                    select(manifests.c.config).where(_range(manifests.c.config, start)),
                    manifests.c.repository_id == row,
                ),
                (_children(start), manifest_references.c.repository_id == row),
                (
                    select(journal.c.to_digest).where(_range(journal.c.to_digest, start)),
                    journal.c.repository == repositories.c.name,
                ),
            )
        ]
        with self._database.read() as connection:
            query = select(repositories.c.name).where(or_(*known)).order_by(repositories.c.name)
            return list(connection.execute(query).scalars())

    def reported(self, prefix: DigestPrefix, *, limit: int) -> list[Digest]:
        """Return the first ``limit`` digests of images that agents reported and that begin so, also of images
        of other registries, in the order of their text."""
        column = fleet_image_digests.c.digest
        found: set[str] = set()
        with self._database.read() as connection:
            for start in _starts(prefix):
                query = select(column).distinct().where(_range(column, start)).order_by(column)
                found.update(connection.execute(query.limit(limit)).scalars())
        return [Digest.parse(text) for text in sorted(found)[:limit]]

    def of_content(self, prefix: DigestPrefix, *, limit: int) -> list[Digest]:
        """Return the first ``limit`` digests of anything that the registry holds, or that is damaged, and
        that
        begin so, in the order of their text."""
        found: set[str] = set()
        with self._database.read() as connection:
            for start in _starts(prefix):
                for column in (links.c.digest, manifests.c.digest, damaged.c.digest):
                    query = (
                        select(column).distinct().where(_range(column, start)).order_by(column).limit(limit)
                    )
                    found.update(connection.execute(query).scalars())
        return [Digest.parse(text) for text in sorted(found)[:limit]]


def _starts(prefix: DigestPrefix) -> Iterator[str]:
    return (f"{algorithm}:{prefix.encoded}" for algorithm in prefix.algorithms)


def _range(column: ColumnElement[str], start: str) -> ColumnElement[bool]:
    return (column >= start) & (column < f"{start}{_AFTER_HEX}")


def _children(start: str) -> Select[str]:
    child = manifest_references.c.child
    return select(child).where(_range(child, start), manifest_references.c.role.in_(("manifest", "layer")))


def _in_repository(row: int | None, repository: str, start: str) -> Iterator[Select[str]]:
    if row is not None:
        for column in (manifests.c.digest, manifests.c.config):
            query = select(column).where(manifests.c.repository_id == row, _range(column, start))
            yield query.distinct().order_by(column)
        child = manifest_references.c.child
        yield _children(start).where(manifest_references.c.repository_id == row).distinct().order_by(child)
    # Also digests that only the history of a tag still has.
    column = journal.c.to_digest
    pointed = select(column).where(journal.c.repository == repository, _range(column, start))
    yield pointed.distinct().order_by(column)
