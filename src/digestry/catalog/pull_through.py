"""The rows of the pull-through cache: manifests of other registries, and where their tags pointed when.

The repositories are ordinary ones. But here a manifest may be visible before its content, which is fetched
when a client requests it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from digestry.catalog import damage, dialect, lease_rows, manifest_rows, quotas, repository_rows, tag_moves
from digestry.catalog.database import Database
from digestry.catalog.journal import Origin
from digestry.catalog.journal_sequencing import JournalSequencing
from digestry.catalog.quotas import Quota
from digestry.catalog.reads import SeenTag
from digestry.catalog.schema import upstream_tags
from digestry.catalog.tag_moves import RepositoryKey, Rules, Target
from digestry.catalog.transactions import retried
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.manifest import Manifest


class PullThrough:
    """The catalog's part of a cache in front of other registries. Thread-safe."""

    def __init__(
        self,
        database: Database,
        sequencing: JournalSequencing,
        rules: Rules,
        lease: int,
        limits: Sequence[Quota],
    ) -> None:
        self._database = database
        self._sequencing = sequencing
        self.change_rules(rules, lease, limits)

    def change_rules(self, rules: Rules, lease: int, limits: Sequence[Quota]) -> None:
        """Use other rules, another lease and other quotas from now on."""
        self._rules = rules
        self._lease = lease
        self._quotas = tuple(limits)

    @retried
    def put(
        self, repository: str, manifest: Manifest, *, tag: str | None = None, origin: Origin
    ) -> TagEvent | None:
        """Make a stored manifest visible, even if its content is missing here, and point ``tag`` at it, as
        upstream does now. Returns the journal's entry, if the tag moved.

        Raises :class:`TagRefused`, :class:`OverQuota`.
        """
        now = self._rules.now()
        target = Target(str(manifest.digest), manifest.media_type, manifest.size)
        with self._sequencing.write() as connection:
            key = RepositoryKey(repository_rows.lock_or_make(connection, repository, now), repository)
            new = manifest_rows.find(connection, key.row, target.digest) is None
            damage.heal(connection, target.digest)
            manifest_rows.store(connection, key.row, manifest, now)
            lease_rows.extend(connection, target.digest, now + self._lease)
            event = None
            if tag is not None:
                event = tag_moves.point(connection, self._rules, key, tag, target, origin=origin)
                _note(connection, repository, tag, target.digest, now)
            if new:
                quotas.check_bytes(connection, self._quotas, repository)
            if event is not None and event.event == "created":
                quotas.check_tags(connection, self._quotas, repository)
            return event

    @retried
    def note(self, repository: str, tag: str, digest: Digest) -> None:
        """Upstream's tag was seen to point to ``digest`` now; the tag here stays where it is."""
        with self._database.write() as connection:
            _note(connection, repository, tag, str(digest), self._rules.now())

    @retried
    def gone(self, repository: str, tag: str, *, origin: Origin) -> TagEvent | None:
        """Delete a tag that upstream has deleted, with its journal entry.

        Raises :class:`TagRefused`.
        """
        with self._sequencing.write() as connection:
            row = repository_rows.lock(connection, repository)
            connection.execute(
                delete(upstream_tags).where(
                    upstream_tags.c.repository == repository, upstream_tags.c.tag == tag
                )
            )
            if row is None or tag_moves.pointed(connection, RepositoryKey(row, repository), tag) is None:
                return None
            return tag_moves.drop(connection, self._rules, RepositoryKey(row, repository), tag, origin=origin)

    def tag_state(self, repository: str, tag: str) -> tuple[SeenTag | None, Digest | None]:
        """Return the digest of upstream's tag when it was last requested, and the digest of the tag here."""
        query = select(upstream_tags.c.digest, upstream_tags.c.checked_at).where(
            upstream_tags.c.repository == repository, upstream_tags.c.tag == tag
        )
        with self._database.read() as connection:
            seen = connection.execute(query).first()
            row = repository_rows.find(connection, repository)
            here = None if row is None else tag_moves.pointed(connection, RepositoryKey(row, repository), tag)
            if row is None or here is None or manifest_rows.find(connection, row, here) is None:
                here = None
            elif damage.is_damaged(connection, here):
                here = None  # it cannot be served: it is fetched again, which heals it
        return None if seen is None else SeenTag(*seen), None if here is None else Digest.parse(here)


def _note(connection: Connection, repository: str, tag: str, digest: str, now: int) -> None:
    row = {"repository": repository, "tag": tag, "digest": digest, "checked_at": now}
    connection.execute(dialect.of(connection).upserts.upstream_tag, row)
