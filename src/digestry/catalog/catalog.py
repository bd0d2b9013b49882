"""The catalog: everything that the registry knows about content, each change one transaction.

Blocks; the registry calls it from worker threads. Rule 4 of docs/design.md is kept by its callers'
order: bytes are durable in the blob store before a method here makes them visible.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import delete, exists, insert, select, update

from digestry.catalog import clock, content, journal, resolution
from digestry.catalog.content import Cursor, Page, StoredManifest
from digestry.catalog.database import Database
from digestry.catalog.journal import BrokenEntry, Move, Origin
from digestry.catalog.resolution import Found
from digestry.catalog.schema import links, manifests, repositories, tags, uploads
from digestry.errors import Conflict, NotFound
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagEvent
from digestry.model.manifest import Manifest
from digestry.model.resolution import ResolveQuery

LEASE: Final = 24 * 3600 * clock.SECOND
"""How long content is kept after it was pushed, mounted or found, in microseconds."""


class MissingContent(NotFound):
    """A manifest refers to content that its repository does not have; ``digests`` names it."""

    def __init__(self, digests: list[str]) -> None:
        more = f" and {len(digests) - 1} more" if len(digests) > 1 else ""
        super().__init__(
            f"the manifest refers to {digests[0]}{more}, which this repository does not have",
            hint="push the blobs and child manifests first",
        )
        self.digests = digests


class UnknownRepository(NotFound):
    """No repository of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"repository {name} is not known to this registry")


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload under way. ``offset`` counts the bytes received; ``digest`` is of them, if known."""

    id: str
    repository: str
    algorithm: str
    offset: int
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class TagRow:
    """A tag, where it points, and since when (microseconds since 1970)."""

    name: str
    digest: Digest
    moved_at: int


class Catalog:
    """The catalog of the registry whose files are under ``root``. Thread-safe."""

    def __init__(self, root: Path, *, now: clock.Clock = clock.now, lease: int = LEASE) -> None:
        self._database = Database(root)
        self._now = now
        self._lease = lease
        self._boot = _boot_id()

    @property
    def path(self) -> Path:
        """The database's file."""
        return self._database.path

    def migrate(self) -> None:
        """Brings the schema up to date."""
        self._database.migrate()

    def close(self) -> None:
        self._database.close()

    # -- blobs ---------------------------------------------------------------------------------

    def add_blob(self, repository: str, digest: Digest, size: int, *, upload: str | None = None) -> None:
        """Makes a stored blob visible in the repository, and ends the upload that brought it."""
        now = self._now()
        with self._database.write() as connection:
            row = content.make_repository(connection, repository, now)
            content.link(connection, row, str(digest), size, now)
            content.extend_lease(connection, str(digest), now + self._lease)
            if upload is not None:
                connection.execute(delete(uploads).where(uploads.c.id == upload))

    def mount_blob(self, repository: str, digest: Digest, *, source: str | None) -> int | None:
        """Links a blob of ``source`` (None: of any repository) here; its size, or None if not there."""
        now = self._now()
        with self._database.write() as connection:
            size = content.linked_size(connection, str(digest), source)
            if size is not None:
                row = content.make_repository(connection, repository, now)
                content.link(connection, row, str(digest), size, now)
                content.extend_lease(connection, str(digest), now + self._lease)
            return size

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """A blob's size in bytes if the repository may serve it."""
        with self._database.read() as connection:
            return content.linked_size(connection, str(digest), repository)

    def delete_blob(self, repository: str, digest: Digest) -> None:
        """Takes a blob away from the repository. Raises :class:`NotFound`, or :class:`Conflict`
        while a manifest there needs it."""
        with self._database.write() as connection:
            row = content.repository_id(connection, repository)
            if row is None:
                raise UnknownRepository(repository)
            needed_by = content.users(connection, row, str(digest), roles=("config", "layer"))
            if needed_by:
                raise Conflict(
                    f"blob {digest} is still needed by manifest {needed_by[0]}",
                    hint="delete the manifest first",
                )
            if not content.unlink(connection, row, str(digest)):
                raise NotFound(f"blob {digest} is not in repository {repository}")

    def renew_lease(self, digest: Digest) -> None:
        """Promises to keep what a client just found. One with half its time left is not renewed."""
        now = self._now()
        with self._database.read() as connection:
            end = content.lease_end(connection, str(digest))
        if end is None or end < now + self._lease // 2:
            with self._database.write() as connection:
                content.extend_lease(connection, str(digest), now + self._lease)

    # -- uploads -------------------------------------------------------------------------------

    def begin_upload(self, repository: str, algorithm: str) -> Upload:
        """A new upload, empty."""
        now = self._now()
        upload = Upload(str(uuid.uuid4()), repository, algorithm, 0, None)
        with self._database.write() as connection:
            connection.execute(
                insert(uploads).values(
                    id=upload.id,
                    repository=repository,
                    algorithm=algorithm,
                    offset=0,
                    boot=self._boot,
                    started_at=now,
                    updated_at=now,
                )
            )
        return upload

    def upload(self, repository: str, upload_id: str) -> Upload | None:
        """An upload of this repository, or None. Its digest is given only if it can be believed."""
        with self._database.read() as connection:
            row = connection.execute(
                select(uploads).where(uploads.c.id == upload_id, uploads.c.repository == repository)
            ).first()
            if row is None:
                return None
            trusted = row.digest is not None and row.boot == self._boot
            digest = Digest.parse(row.digest) if trusted else None
        return Upload(row.id, row.repository, row.algorithm, row.offset, digest)

    def advance_upload(self, upload: Upload, offset: int, digest: Digest | None) -> Upload:
        """Notes how far the upload has come; ``digest`` is of all bytes up to there, or None."""
        with self._database.write() as connection:
            result = connection.execute(
                update(uploads)
                .where(uploads.c.id == upload.id)
                .values(
                    offset=offset,
                    digest=None if digest is None else str(digest),
                    boot=self._boot,
                    updated_at=self._now(),
                )
            )
            if result.rowcount == 0:
                raise NotFound(f"upload {upload.id} was cancelled")
        return dataclasses.replace(upload, offset=offset, digest=digest)

    def end_upload(self, upload_id: str) -> None:
        """Forgets an upload."""
        with self._database.write() as connection:
            connection.execute(delete(uploads).where(uploads.c.id == upload_id))

    def stale_uploads(self, older_than: int) -> list[Upload]:
        """The uploads that nothing was written to since a time (microseconds since 1970)."""
        with self._database.read() as connection:
            rows = connection.execute(select(uploads).where(uploads.c.updated_at < older_than)).all()
        return [Upload(row.id, row.repository, row.algorithm, row.offset, None) for row in rows]

    def upload_ids(self) -> set[str]:
        """All uploads under way."""
        with self._database.read() as connection:
            return set(connection.execute(select(uploads.c.id)).scalars())

    # -- manifests and tags --------------------------------------------------------------------

    def put_manifest(
        self, repository: str, manifest: Manifest, *, tag_names: Sequence[str] = (), origin: Origin
    ) -> list[TagEvent]:
        """Makes a stored manifest visible and points tags at it: all of it, or nothing.

        Returns the journal's entries for the tags that came to it; a tag that was there already
        makes none. Raises :class:`MissingContent`.
        """
        now = self._now()
        digest = str(manifest.digest)
        with self._database.write() as connection:
            row = content.make_repository(connection, repository, now)
            lacking = content.missing(connection, row, manifest)
            if lacking:
                raise MissingContent(lacking)
            content.store_manifest(connection, row, manifest, now)
            content.extend_lease(connection, digest, now + self._lease)
            events = []
            for name in dict.fromkeys(tag_names):
                here = (tags.c.repository_id == row) & (tags.c.name == name)
                previous = connection.execute(select(tags.c.digest).where(here)).scalar()
                if previous == digest:
                    continue
                event = journal.append(
                    connection,
                    Move(
                        repository=repository,
                        tag=name,
                        event="created" if previous is None else "moved",
                        from_digest=previous,
                        to_digest=digest,
                        media_type=manifest.media_type,
                        size=manifest.size,
                    ),
                    origin,
                    self._now,
                )
                at = clock.from_datetime(event.at)
                if previous is None:
                    connection.execute(
                        insert(tags).values(repository_id=row, name=name, digest=digest, moved_at=at)
                    )
                else:
                    connection.execute(update(tags).where(here).values(digest=digest, moved_at=at))
                events.append(event)
            return events

    def check_references(self, repository: str, manifest: Manifest) -> None:
        """Raises :class:`MissingContent` if the repository lacks what ``manifest`` refers to."""
        with self._database.read() as connection:
            row = content.repository_id(connection, repository)
            # No row has this id: what is not there lacks everything.
            lacking = content.missing(connection, -1 if row is None else row, manifest)
        if lacking:
            raise MissingContent(lacking)

    def delete_tag(self, repository: str, name: str, *, origin: Origin) -> TagEvent:
        """Removes a tag, not its manifest. Raises :class:`NotFound`."""
        with self._database.write() as connection:
            row = self._known(connection, repository)
            return self._drop_tag(connection, row, repository, name, origin)

    def delete_manifest(self, repository: str, digest: Digest, *, origin: Origin) -> list[TagEvent]:
        """Removes a manifest and the tags that point at it. Raises :class:`NotFound`, or
        :class:`Conflict` while an index there lists it."""
        with self._database.write() as connection:
            row = self._known(connection, repository)
            if content.manifest(connection, row, str(digest)) is None:
                raise NotFound(f"manifest {digest} is not in repository {repository}")
            listed_by = content.users(connection, row, str(digest), roles=("manifest",))
            if listed_by:
                raise Conflict(
                    f"manifest {digest} is still listed by index {listed_by[0]}",
                    hint="delete the index first",
                )
            events = [
                self._drop_tag(connection, row, repository, name, origin)
                for name in content.tags_of(connection, row, str(digest))
            ]
            content.delete_manifest(connection, row, str(digest), self._now())
            return events

    def _known(self, connection: Any, repository: str) -> int:
        row = content.repository_id(connection, repository)
        if row is None:
            raise UnknownRepository(repository)
        return row

    def _drop_tag(self, connection: Any, row: int, repository: str, name: str, origin: Origin) -> TagEvent:
        here = (tags.c.repository_id == row) & (tags.c.name == name)
        digest = connection.execute(select(tags.c.digest).where(here)).scalar()
        if digest is None:
            raise NotFound(f"tag {name} is not in repository {repository}")
        # Read even if the manifest is not visible any more: the entry must say what the tag left.
        kind = connection.execute(
            select(manifests.c.media_type, manifests.c.size).where(
                manifests.c.repository_id == row, manifests.c.digest == digest
            )
        ).first()
        connection.execute(delete(tags).where(here))
        move = Move(
            repository=repository,
            tag=name,
            event="deleted",
            from_digest=digest,
            to_digest=None,
            media_type="" if kind is None else kind.media_type,
            size=0 if kind is None else kind.size,
        )
        return journal.append(connection, move, origin, self._now)

    def manifest(self, repository: str, digest: Digest) -> StoredManifest | None:
        """A manifest that the repository can serve."""
        with self._database.read() as connection:
            row = content.repository_id(connection, repository)
            return None if row is None else content.manifest(connection, row, str(digest))

    def referrers(
        self,
        repository: str,
        subject: Digest,
        *,
        artifact_type: str | None = None,
        after: Cursor | None = None,
        limit: int,
    ) -> Page:
        """What refers to ``subject``, newest first; empty for an unknown repository."""
        with self._database.read() as connection:
            row = content.repository_id(connection, repository)
            if row is None:
                return Page((), more=False)
            return content.referrers(
                connection, row, str(subject), artifact_type=artifact_type, after=after, limit=limit
            )

    def advisories(
        self, repository: str, predicate_prefix: str, *, after: str | None = None, limit: int
    ) -> Page:
        """The repository's advisories, newest first, those after the one whose digest is ``after``."""
        with self._database.read() as connection:
            row = content.repository_id(connection, repository)
            if row is None:
                return Page((), more=False)
            return content.advisories(connection, row, predicate_prefix, after=after, limit=limit)

    def holders(self, repository: str, digest: Digest) -> Holders:
        """All that is, has as its config, or lists, ``digest``, overwritten and deleted included."""
        with self._database.read() as connection:
            row = content.repository_id(connection, repository)
            found = () if row is None else tuple(content.holders(connection, row, str(digest)))
        return Holders(digest=digest, holders=found)

    def resolve(self, queries: Sequence[ResolveQuery], *, contents: bool) -> Found:
        """Answers as many of the first ``queries`` as one answer has room for, and at least one."""
        with self._database.read() as connection:
            return resolution.resolve(connection, queries, contents=contents)

    # -- lists ---------------------------------------------------------------------------------

    def has_repository(self, repository: str) -> bool:
        with self._database.read() as connection:
            return content.repository_id(connection, repository) is not None

    def tags(self, repository: str, *, after: str = "", limit: int | None = None) -> list[TagRow]:
        """Tags in the order of their bytes, those after ``after``. Raises :class:`UnknownRepository`."""
        with self._database.read() as connection:
            row = self._known(connection, repository)
            query = select(tags).where(tags.c.repository_id == row, tags.c.name > after)
            rows = connection.execute(query.order_by(tags.c.name).limit(limit)).all()
            return [TagRow(found.name, Digest.parse(found.digest), found.moved_at) for found in rows]

    def repositories(self, *, after: str = "", limit: int) -> list[str]:
        """Repositories that have anything to pull, in the order of their bytes."""
        has_manifest = exists().where(
            manifests.c.repository_id == repositories.c.id, manifests.c.deleted_at.is_(None)
        )
        has_link = exists().where(links.c.repository_id == repositories.c.id)
        query = select(repositories.c.name).where(repositories.c.name > after, has_manifest | has_link)
        with self._database.read() as connection:
            return list(connection.execute(query.order_by(repositories.c.name).limit(limit)).scalars())

    # -- the journal ---------------------------------------------------------------------------

    def journal(self, repository: str, **filters: Any) -> list[TagEvent]:
        """The repository's tag events, newest first; filters as :func:`journal.entries` has them."""
        with self._database.read() as connection:
            return journal.entries(connection, repository, **filters)

    def verify_journal(self) -> BrokenEntry | None:
        """Walks the hash chain, and compares its end with the tags.

        Returns the first entry that breaks it, or None if it holds.
        """
        with self._database.read() as connection:
            return journal.verify(connection)


def _boot_id() -> str:
    """Names this run of the machine: files that were not fsynced are whole while it lasts."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        # Not Linux: believe nothing that another process left.
        return str(uuid.uuid4())
