"""What the catalog answers about repositories: their manifests, referrers, tags, names and journal.

What every pull asks is answered elsewhere, on the event loop; see :mod:`digestry.catalog.reads`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from sqlalchemy import Connection, exists, select

from digestry.catalog import (
    damage,
    holders,
    image_parts,
    journal,
    journal_verification,
    manifest_rows,
    referrer_pages,
    repository_rows,
    resolution,
)
from digestry.catalog.blob_links import BlobLinks, UnknownRepository
from digestry.catalog.image_parts import Visible
from digestry.catalog.journal import Filters
from digestry.catalog.journal_chain import BrokenEntry
from digestry.catalog.manifest_rows import StoredManifest
from digestry.catalog.referrer_pages import Cursor, Page
from digestry.catalog.resolution import Found
from digestry.catalog.schema import links, manifests, repositories
from digestry.catalog.schema import tags as tag_rows
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagEvent
from digestry.model.image_parts import LayerImage
from digestry.model.resolution import ResolveQuery


@dataclass(frozen=True, slots=True)
class TagRow:
    """A tag, where it points, and since when (microseconds since 1970)."""

    name: str
    digest: Digest
    moved_at: int


class RepositoryReads(BlobLinks):
    """The reads of :class:`~digestry.catalog.catalog.Catalog`. Thread-safe."""

    def _known(self, connection: Connection, repository: str, *, locked: bool = False) -> int:
        find = repository_rows.lock if locked else repository_rows.find
        row = find(connection, repository)
        if row is None:
            raise UnknownRepository(repository)
        return row

    def manifest(self, repository: str, digest: Digest) -> StoredManifest | None:
        """Return a manifest that the repository can serve."""
        with self._database.read() as connection:
            row = repository_rows.find(connection, repository)
            if row is None or damage.is_damaged(connection, str(digest)):
                return None
            return manifest_rows.find(connection, row, str(digest))

    def referrers(
        self,
        repository: str,
        subject: Digest,
        *,
        artifact_type: str | None = None,
        after: Cursor | None = None,
        limit: int,
    ) -> Page:
        """Return what refers to ``subject``, newest first; empty for an unknown repository."""
        with self._database.read() as connection:
            row = repository_rows.find(connection, repository)
            if row is None:
                return Page((), more=False)
            return referrer_pages.referrers(
                connection, row, str(subject), artifact_type=artifact_type, after=after, limit=limit
            )

    def advisories(
        self, repository: str, predicate_prefix: str, *, after: str | None = None, limit: int
    ) -> Page:
        """Return the repository's advisories, newest first, those after the one whose digest is ``after``."""
        with self._database.read() as connection:
            row = repository_rows.find(connection, repository)
            if row is None:
                return Page((), more=False)
            return referrer_pages.advisories(connection, row, predicate_prefix, after=after, limit=limit)

    def holders(self, repository: str, digest: Digest) -> Holders:
        """Return all that is, has as its config, or lists, ``digest``, overwritten and deleted included."""
        with self._database.read() as connection:
            row = repository_rows.find(connection, repository)
            found = () if row is None else tuple(holders.find_holders(connection, row, str(digest)))
        return Holders(digest=digest, holders=found)

    def resolve(self, queries: Sequence[ResolveQuery], *, contents: bool, visible: Visible) -> Found:
        """Answer as many of the first ``queries`` as one answer has room for, and at least one. Referrers of
        layers and configs are those of all repositories that are ``visible``."""
        with self._database.read() as connection:
            return resolution.resolve(connection, queries, contents=contents, visible=visible)

    def images_with_layer(self, repository: str, layer: Digest, *, limit: int) -> list[LayerImage]:
        """Return images of the repository with ``layer``, deleted ones included, those with the fewest layers
        first."""
        with self._database.read() as connection:
            row = repository_rows.find(connection, repository)
            names = {} if row is None else {row: repository}
            return image_parts.images_with(connection, str(layer), names, limit=limit)

    def images_with_layer_anywhere(self, layer: Digest, *, visible: Visible, limit: int) -> list[LayerImage]:
        """Return images with ``layer`` as :meth:`images_with_layer` does, of all repositories that are
        ``visible``."""
        with self._database.read() as connection:
            known = image_parts.repositories_with(connection, str(layer))
            names = {row: name for row, name in known.items() if visible(name)}
            return image_parts.images_with(connection, str(layer), names, limit=limit)

    def has_repository(self, repository: str) -> bool:
        with self._database.read() as connection:
            return repository_rows.find(connection, repository) is not None

    def tags(self, repository: str, *, after: str = "", limit: int | None = None) -> list[TagRow]:
        """Return the tags in the order of their bytes, those after ``after``. Raises
        :class:`UnknownRepository`."""
        with self._database.read() as connection:
            row = self._known(connection, repository)
            query = select(tag_rows).where(tag_rows.c.repository_id == row, tag_rows.c.name > after)
            rows = connection.execute(query.order_by(tag_rows.c.name).limit(limit)).all()
            return [TagRow(found.name, Digest.parse(found.digest), found.moved_at) for found in rows]

    def repositories(self, *, after: str = "", beginning: str = "", limit: int) -> list[str]:
        """Return the repositories that have anything to pull and whose names begin so, in the order of their
        bytes."""
        has_manifest = exists().where(
            manifests.c.repository_id == repositories.c.id, manifests.c.deleted_at.is_(None)
        )
        has_link = exists().where(links.c.repository_id == repositories.c.id)
        query = select(repositories.c.name).where(repositories.c.name > after, has_manifest | has_link)
        if beginning:
            end = f"{beginning}\x7f"  # after every character that a name may have
            query = query.where(repositories.c.name >= beginning, repositories.c.name < end)
        with self._database.read() as connection:
            return list(connection.execute(query.order_by(repositories.c.name).limit(limit)).scalars())

    def repositories_of(self, digest: Digest, *, layers: bool = False) -> list[str]:
        """Return the repositories that ever had ``digest``, with ``layers`` as a layer too, in the order of
        their bytes."""
        with self._database.read() as connection:
            return repository_rows.that_had(connection, str(digest), layers=layers)

    def journal(self, repository: str, **filters: Unpack[Filters]) -> list[TagEvent]:
        """Return the repository's tag events, newest first; filters as :func:`journal.entries` has them."""
        with self._database.read() as connection:
            return journal.entries(connection, repository, **filters)

    def verify_journal(self) -> BrokenEntry | None:
        """Walk the hash chain, and compare its end with the tags.

        Returns the first entry that breaks it, or None if it holds.
        """
        with self._database.read() as connection:
            return journal_verification.verify(connection).broken
