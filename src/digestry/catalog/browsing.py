"""The reads of the pages: lists with all that a row shows, in a fixed number of statements each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from digestry.catalog import (
    image_details,
    image_parts,
    image_summaries,
    repository_pages,
    repository_rows,
    running_images,
    search_pages,
    tag_pages,
    tag_timeline,
)
from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.database import Database
from digestry.catalog.image_details import ManifestDetails, User
from digestry.catalog.image_summaries import Summaries
from digestry.catalog.manifest_rows import StoredManifest
from digestry.catalog.repository_pages import RepositoryRow
from digestry.catalog.running_images import RunningImage, RunningPlace
from digestry.catalog.search_pages import FoundDigest, FoundStatement, FoundTag
from digestry.catalog.tag_pages import ListedTag, TagCursor
from digestry.catalog.tag_timeline import TagMove, TagPeriod, TagTotals
from digestry.model.digest_prefix import DigestPrefix


@dataclass(frozen=True, slots=True)
class TagsPage:
    """Some tags of a repository, whether more follow, and what is known of the images they point to."""

    rows: tuple[ListedTag, ...]
    more: bool
    images: Summaries


@dataclass(frozen=True, slots=True)
class DigestDetails:
    """What a repository knows about a digest: the ``manifest`` that it is, or in bytes the ``blob``, and what
    is known of the ``images`` below it.

    Up to a limit, the newest first, it has the ``users``, which refer to the digest, and the ``referrers`` of
    it, of the indexes that list it, and of its config and layers; ``elsewhere`` are those that other
    repositories have of its config and layers, or of the digest if it is no manifest.
    """

    manifest: ManifestDetails | None
    blob: int | None
    images: Summaries
    users: tuple[User, ...]
    referrers: tuple[StoredManifest, ...]
    elsewhere: image_parts.ReferrersElsewhere


@dataclass(frozen=True, slots=True)
class TagTimeline:
    """The history of a tag: its ``totals``, some ``moves``, the newest first, whether ``more`` follow, and
    what it pointed to in a ``period``. Of the digests of the moves, those that are still ``present`` in the
    repository, and those that are ``running``."""

    totals: TagTotals
    moves: tuple[TagMove, ...]
    more: bool
    period: TagPeriod
    present: frozenset[str] = frozenset()
    running: Mapping[str, RunningImage] = field(default_factory=dict)


class Browsing:
    """The reads of the pages. Thread-safe; it only reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def repositories(
        self, *, after: str = "", beginning: str = "", containing: str = "", limit: int
    ) -> list[RepositoryRow]:
        """Return the repositories that have anything to pull, whose names begin and contain so, in the order
        of their bytes, those after ``after``."""
        with self._database.read() as connection:
            return repository_pages.repositories_after(
                connection, after=after, beginning=beginning, containing=containing, limit=limit
            )

    def repository(self, name: str) -> RepositoryRow:
        """Return one repository. Raises :class:`UnknownRepository`."""
        with self._database.read() as connection:
            found = repository_pages.repository_named(connection, name)
        if found is None:
            raise UnknownRepository(name)
        return found

    def tags(
        self,
        name: str,
        *,
        containing: str = "",
        newest_first: bool = True,
        after: TagCursor | None = None,
        runs_at: int | None,
        limit: int,
    ) -> TagsPage:
        """Return the tags of a repository that contain a text, those after a tag; with the time ``runs_at``
        also what is known then of their containers. Raises :class:`UnknownRepository`."""
        with self._database.read() as connection:
            repository = repository_rows.find(connection, name)
            if repository is None:
                raise UnknownRepository(name)
            found = tag_pages.tags_page(
                connection,
                repository,
                name,
                containing=containing,
                newest_first=newest_first,
                after=after,
                limit=limit + 1,
            )
            page = tuple(found[:limit])
            digests = [tag.digest for tag in page]
            images = _summaries(connection, repository, name, digests, runs_at=runs_at)
        return TagsPage(page, len(found) > limit, images)

    def digest(self, name: str, digest: str, *, limit: int, visible: image_parts.Visible) -> DigestDetails:
        """Return what a repository knows about a digest, with up to ``limit`` users and referrers; of other
        repositories those that are ``visible`` count. Raises :class:`UnknownRepository`."""
        with self._database.read() as connection:
            repository = repository_rows.find(connection, name)
            if repository is None:
                raise UnknownRepository(name)
            users = image_details.users_of(connection, repository, digest, limit=limit)
            subjects = [digest, *(user.digest for user in users if user.role == "manifest")]
            parts = image_details.parts_of(connection, repository, digest)
            manifest = image_details.manifest_details(connection, repository, digest)
            return DigestDetails(
                manifest,
                image_details.blob_size(connection, repository, digest),
                _summaries(connection, repository, name, [digest], runs_at=None),
                users,
                image_details.referrers_of(connection, repository, [*subjects, *parts], limit=limit),
                image_parts.referrers_elsewhere(
                    connection,
                    name,
                    [digest] if manifest is None else parts,
                    visible=visible,
                    limit=limit,
                ),
            )

    def tags_beginning(
        self, start: str, *, beginning: str, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[FoundTag]:
        """Return the tags that begin with ``start``; see :func:`.search_pages.tags_beginning`."""
        with self._database.read() as connection:
            return search_pages.tags_beginning(
                connection, start, beginning=beginning, after=after, limit=limit
            )

    def statements_about(
        self, vulnerability: str, *, beginning: str, after: FoundStatement | None = None, limit: int
    ) -> list[FoundStatement]:
        """Return what advisories state about a vulnerability; see :func:`.search_pages.statements_about`."""
        with self._database.read() as connection:
            return search_pages.statements_about(
                connection, vulnerability, beginning=beginning, after=after, limit=limit
            )

    def digests_beginning(
        self, prefix: DigestPrefix, *, beginning: str, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[FoundDigest]:
        """Return the digests that begin so; see :func:`.search_pages.digests_beginning`."""
        with self._database.read() as connection:
            return search_pages.digests_beginning(
                connection, prefix, beginning=beginning, after=after, limit=limit
            )

    def timeline(
        self,
        name: str,
        tag: str,
        *,
        before: int | None,
        limit: int,
        last: int | None,
        now: int,
        running: bool,
    ) -> TagTimeline | None:
        """Return the history of a tag, also of one that was deleted; None if there never was one.

        The moves are those before a time. The period ends ``now``, and begins with the first move, or as many
        microseconds ago as ``last``. Only with ``running`` it says what runs.
        """
        with self._database.read() as connection:
            totals = tag_timeline.totals(connection, name, tag)
            if totals is None:
                return None
            moves = tag_timeline.moves(connection, name, tag, before=before, limit=limit + 1)
            until = max(now, totals.last_at)
            since = totals.first_at - 1 if last is None else max(totals.first_at - 1, until - last)
            period = tag_timeline.period(connection, name, tag, since=since, until=until)
            page, more = tuple(moves[:limit]), len(moves) > limit
            repository = repository_rows.find(connection, name)
            if repository is None:
                return TagTimeline(totals, page, more, period)
            digests = {str(move.event.to_digest or move.event.from_digest) for move in page}
            present = repository_pages.present(connection, repository, digests)
            runs = running_images.running(connection, repository, name, digests, now=now) if running else {}
            return TagTimeline(totals, page, more, period, present, runs)

    def places(self, name: str, digest: str, *, now: int, limit: int) -> list[RunningPlace]:
        """Return where an image of a repository, or what it lists, runs or ran; see
        :func:`.running_images.places`."""
        with self._database.read() as connection:
            repository = repository_rows.find(connection, name)
            if repository is None:
                return []
            return running_images.places(connection, repository, name, digest, now=now, limit=limit)


def _summaries(
    connection: Connection, repository: int, name: str, digests: list[str], *, runs_at: int | None
) -> Summaries:
    if not digests:
        return Summaries()
    children = image_summaries.children_of(connection, repository, digests)
    images = [*digests, *(child.digest for listed in children.values() for child in listed)]
    return Summaries(
        children,
        image_summaries.sizes_of(connection, repository, images),
        {} if runs_at is None else running_images.running(connection, repository, name, digests, now=runs_at),
    )
