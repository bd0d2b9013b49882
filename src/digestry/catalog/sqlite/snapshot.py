"""Copies of a catalog's file while it is served, and the snapshot in a backup.

A snapshot is a single file, with no log beside it, and without the uploads that were under way: their bytes
are not content yet.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from digestry.catalog.relocation import FROZEN_TABLES
from digestry.catalog.schema_version import newest_schema
from digestry.catalog.snapshot import Held
from digestry.catalog.sqlite.connection import connect_directly
from digestry.catalog.sqlite.triggers import OLDER_TRIGGERS, TRIGGERS, freezing
from digestry.errors import Conflict, InvalidDigest, StorageError
from digestry.model.digest import Digest

_MOST_TAGS: Final = 20
_KNOWN_TRIGGERS: Final = (
    TRIGGERS | OLDER_TRIGGERS | {text for table in FROZEN_TABLES for text in freezing(table).values()}
)

# Visible content: that of links, and of manifests that can be pulled.
_HELD: Final = """
INSERT INTO held
SELECT digest, max(size) FROM (
    SELECT digest, size FROM links UNION ALL SELECT digest, size FROM manifests WHERE deleted_at IS NULL
) GROUP BY digest
"""

_HOLDERS: Final = """
SELECT repositories.id, repositories.name FROM repositories WHERE repositories.id IN (
    SELECT repository_id FROM links WHERE digest = :digest
    UNION SELECT repository_id FROM manifests WHERE digest = :digest AND deleted_at IS NULL
) ORDER BY repositories.name
"""

_TAGS: Final = """
WITH RECURSIVE above(digest) AS (
    VALUES (:digest)
    UNION
    SELECT manifests.digest FROM above
    JOIN manifest_references AS lower ON lower.repository_id = :repository AND lower.child = above.digest
    JOIN manifests ON manifests.repository_id = :repository AND manifests.digest = lower.parent
    WHERE manifests.deleted_at IS NULL
)
SELECT name FROM tags WHERE repository_id = :repository AND digest IN (SELECT digest FROM above)
ORDER BY name LIMIT :most
"""


def copy(source: Path, target: Path) -> None:
    """Copy the catalog's file ``source`` to ``target``, as it is at one moment. Not fsynced.

    Writers are not blocked. Raises :class:`StorageError`.
    """
    with _copied(source, target):
        pass


def take(source: Path, target: Path) -> None:
    """As :func:`copy`, for a backup: a single file, without the uploads that were under way."""
    with _copied(source, target) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("DELETE FROM uploads")


@contextlib.contextmanager
def _copied(source_path: Path, target: Path) -> Iterator[sqlite3.Connection]:
    try:
        with (
            contextlib.closing(connect_directly(source_path)) as source,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as connection,
        ):
            connection.execute("PRAGMA synchronous=OFF")
            # All pages in one step: with fewer, each commit of a writer makes it start again, and a busy
            # registry is never done. In WAL mode the step does not block writers.
            source.backup(connection, pages=-1)
            yield connection
    except sqlite3.Error as error:
        raise StorageError(f"the catalog {source_path} cannot be copied: {error}") from error


class SqliteSnapshot:
    """The :class:`~digestry.catalog.snapshot.Snapshot` in a file.

    Raises :class:`StorageError` if it is damaged, or no catalog, and :class:`Conflict` if a newer digestry
    wrote it: its content is not known here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
        )
        try:
            with self._errors():
                self._connection.execute("PRAGMA trusted_schema=OFF")
                self._connection.execute("PRAGMA cell_size_check=ON")
                self._check()
                self._connection.execute(
                    "CREATE TEMP TABLE held (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID"
                )
                self._connection.execute(_HELD)
                self.count, self.bytes = self._connection.execute(
                    "SELECT count(*), coalesce(sum(size), 0) FROM held"
                ).fetchone()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        row = self._connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if row is None or not isinstance(row[0], str):
            raise sqlite3.DatabaseError("it does not say which schema it has")
        self.schema: str = row[0]
        if self.schema > newest_schema():
            raise Conflict(
                f"the catalog has schema {self.schema}, and this digestry knows none after {newest_schema()}",
                hint="use the digestry that serves it, or a newer one",
            )
        # Triggers would run once it is served.
        rows = self._connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type IN ('trigger', 'view')"
        )
        for name, text in rows.fetchall():
            if text not in _KNOWN_TRIGGERS:
                raise sqlite3.DatabaseError(f"it has {name!r}, which is no part of a catalog")
        (found,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)

    def held(self) -> Iterator[Held]:
        """Yield all content that is served, in the order of the digests' text."""
        with self._errors():
            for digest, size in self._connection.execute("SELECT digest, size FROM held ORDER BY digest"):
                if not isinstance(size, int) or size < 0:
                    raise sqlite3.DatabaseError(f"{digest} is {size} bytes long")
                yield Held(Digest.parse(digest), size)

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes of content that is served; None if it is not."""
        with self._errors():
            row = self._connection.execute(
                "SELECT size FROM held WHERE digest = ?", (str(digest),)
            ).fetchone()
        return None if row is None else int(row[0])

    def any_damaged(self) -> bool:
        """Return whether its registry knew of content that is damaged."""
        with self._errors():
            table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'damaged'"
            if self._connection.execute(table).fetchone() is None:
                return False  # one of before there was a scrub
            return self._connection.execute("SELECT 1 FROM damaged LIMIT 1").fetchone() is not None

    def holders(self, digest: Digest) -> list[str]:
        """Return the holders of content: ``repository:tag``, up to 20 of each repository, or a repository
        alone."""
        found: list[str] = []
        with self._errors():
            rows = self._connection.execute(_HOLDERS, {"digest": str(digest)}).fetchall()
            for repository, name in rows:
                values = {"digest": str(digest), "repository": repository, "most": _MOST_TAGS}
                tags = [f"{name}:{tag}" for (tag,) in self._connection.execute(_TAGS, values)]
                found += tags or [name]
        return found

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, InvalidDigest) as error:
            raise StorageError(f"the snapshot of the catalog is damaged: {error}") from error

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
