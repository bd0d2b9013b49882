"""The blobs of the catalog: linking, mounting, leasing and deleting them, within the quotas.

A link is a repository's right to serve a blob.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from digestry.catalog import (
    clock,
    damage,
    lease_rows,
    link_rows,
    manifest_rows,
    push_statements,
    quotas,
    repository_rows,
)
from digestry.catalog.database import Database
from digestry.catalog.quotas import Quota
from digestry.catalog.transactions import retried
from digestry.catalog.uploads import Upload, Uploads
from digestry.errors import Conflict, NotFound
from digestry.model.digest import Digest

LEASE: Final = 24 * 3600 * clock.SECOND
"""How long content is kept after it was pushed, mounted or found, in microseconds."""


class UnknownRepository(NotFound):
    """No repository of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"repository {name} is not known to this registry")
        self.name = name


class BlobLinks(Uploads):
    """The blobs of :class:`~digestry.catalog.catalog.Catalog`, and the uploads that deliver them.
    Thread-safe. What it links and finds is leased for ``lease`` microseconds."""

    def __init__(
        self,
        database: Database,
        now: clock.Clock,
        lease: int,
        limits: Sequence[Quota] = (),
        *,
        uploads_last: bool = False,
    ) -> None:
        super().__init__(database, now, last=uploads_last)
        self._lease = lease
        self._quotas = tuple(limits)

    def change_limits(self, lease: int, limits: Sequence[Quota]) -> None:
        """Use another lease and other quotas from now on."""
        self._lease = lease
        self._quotas = tuple(limits)

    @retried
    def add_blob(self, repository: str, digest: Digest, size: int, *, upload: str | None = None) -> None:
        """Make a stored blob visible in the repository, and end its upload."""
        with self._database.write() as connection:
            if upload is not None:
                # Before the quota is checked, so that these bytes count once.
                connection.execute(push_statements.END_UPLOAD, {"upload": upload})
            self._add(connection, repository, digest, size)

    def add_blob_at_once(self, repository: str, digest: Digest, size: int, *, upload: str) -> None:
        """Do as :meth:`add_blob` does for an upload that got no bytes before its last request.

        Raises :class:`NotFound` if it is not there, or has got some.
        """
        with self._database.write() as connection:
            if connection.execute(push_statements.END_NEW_UPLOAD, {"upload": upload}).rowcount == 0:
                raise NotFound(f"upload {upload} was cancelled, or another request went on with it")
            self._add(connection, repository, digest, size)

    def _add(self, connection: Connection, repository: str, digest: Digest, size: int) -> None:
        self._link(connection, repository, str(digest), size, self._now())
        damage.heal(connection, str(digest))

    @retried
    def mount_blob(
        self,
        repository: str,
        digest: Digest,
        *,
        source: str | None,
        may_pull: Callable[[str], bool] = lambda _: True,
    ) -> int | None:
        """Link a blob of ``source`` here; return its size, or None if it is not there.

        A source of None is any repository that ``may_pull`` says yes to.
        """
        now = self._now()
        with self._database.write() as connection:
            # All callers lock in this order. The source's link cannot be removed meanwhile.
            repository_rows.lock(connection, repository)
            lease_rows.lock(connection, [str(digest)])
            holding = [source] if source is not None else link_rows.repositories_of(connection, str(digest))
            for name in holding:
                size = link_rows.size_of(connection, str(digest), name) if may_pull(name) else None
                if size is not None:
                    self._link(connection, repository, str(digest), size, now)
                    return size
        return None

    def _link(self, connection: Connection, repository: str, digest: str, size: int, now: int) -> None:
        row = repository_rows.lock_or_make(connection, repository, now)
        added = link_rows.add(connection, row, digest, size, now)
        lease_rows.extend(connection, digest, now + self._lease)
        if self._quotas and added.rowcount:
            quotas.check_bytes(connection, self._quotas, repository)

    def bytes_left(self, repository: str) -> int | None:
        """Return how many bytes more the quotas let the repository hold; None for any number."""
        if not self._quotas:
            return None
        with self._database.read() as connection:
            return quotas.bytes_left(connection, self._quotas, repository)

    def limits_bytes(self, repository: str) -> bool:
        """Return whether a quota limits what the repository may hold."""
        return quotas.limits_bytes(self._quotas, repository)

    @retried
    def reserve(self, upload: Upload, least: int, wished: int) -> int:
        """Reserve ``wished`` bytes for an upload, or at least ``least`` if quotas leave less; return how
        many.

        Other uploads and requests cannot use the reserved room. Raises :class:`OverQuota` if there is less,
        and :class:`NotFound` if the upload was cancelled.
        """
        with self._database.write(durable=False) as connection:
            self._reserve(connection, upload, 0)
            left = quotas.bytes_left(connection, self._quotas, upload.repository, locked=True)
            room = wished if left is None else max(least, min(wished, left + upload.offset))
            self._reserve(connection, upload, room)
            quotas.check_bytes(connection, self._quotas, upload.repository)
        return room

    @retried
    def release(self, upload: Upload, size: int) -> None:
        """Let others have the room that an upload of ``size`` bytes on the disk has not used."""
        with self._database.write(durable=False) as connection:
            connection.execute(push_statements.RESERVE, {"upload": upload.id, "to": size})

    def _reserve(self, connection: Connection, upload: Upload, size: int) -> None:
        values = {"upload": upload.id, "to": size}
        if connection.execute(push_statements.RESERVE, values).rowcount == 0:
            raise NotFound(f"upload {upload.id} was cancelled")

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes if the repository may serve it."""
        with self._database.read() as connection:
            return link_rows.size_of(connection, str(digest), repository)

    @retried
    def delete_blob(self, repository: str, digest: Digest) -> None:
        """Take a blob away from the repository. Raises :class:`NotFound`, or :class:`Conflict`
        while a manifest there needs it."""
        with self._database.write() as connection:
            row = repository_rows.lock(connection, repository)
            if row is None:
                raise UnknownRepository(repository)
            roles = ["config", "layer"]
            if manifest_rows.find(connection, row, str(digest)) is None:
                roles.append("manifest")  # an index lists it
            needed_by = manifest_rows.users(connection, row, str(digest), roles=roles)
            if needed_by:
                raise Conflict(
                    f"blob {digest} is still needed by manifest {needed_by[0]}",
                    hint="delete the manifest first",
                )
            lease_rows.lock(connection, [str(digest)])
            if not link_rows.remove(connection, row, str(digest)):
                raise NotFound(f"blob {digest} is not in repository {repository}")

    @retried
    def renew_lease(self, repository: str, digest: Digest) -> bool:
        """Renew the lease of content that a client just found in the repository; return False if it is gone.
        A lease with half its time left is not renewed."""
        now = self._now()
        with self._database.read() as connection:
            end = lease_rows.end(connection, str(digest))
            if end is not None and end >= now + self._lease // 2:
                # Another repository may have renewed it just after this one had let go of the content.
                row = repository_rows.find(connection, repository)
                return row is not None and link_rows.serves(connection, row, str(digest))
        with self._database.write() as connection:
            row = repository_rows.lock(connection, repository)
            if row is None or not link_rows.serves(connection, row, str(digest)):
                return False
            lease_rows.extend(connection, str(digest), now + self._lease)
            return True
