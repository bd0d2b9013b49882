"""The rows of the pull-through cache: manifests of other registries, and where their tags pointed when.

The repositories are ordinary ones. But here a manifest may be visible before its content, which is fetched
when a client requests it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, delete, select

from digestry.catalog import (
    clock,
    damage,
    dialect,
    lease_rows,
    manifest_rows,
    observation_rows,
    observed_moves,
    quotas,
    repository_rows,
    tag_moves,
)
from digestry.catalog.database import Database
from digestry.catalog.job_states import Fence
from digestry.catalog.journal import Origin
from digestry.catalog.journal_sequencing import JournalSequencing
from digestry.catalog.observation_rows import Observation
from digestry.catalog.quotas import Quota
from digestry.catalog.reads import SeenTag
from digestry.catalog.schema import upstream_tags
from digestry.catalog.tag_moves import RepositoryKey, Rules, Target
from digestry.catalog.transactions import retried
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.manifest import Manifest

INTERVAL: Final = 300 * clock.SECOND
"""How often a tag is checked, if the caller does not say."""


class PullThrough:
    """The catalog's part of a cache in front of other registries. Thread-safe.

    Each check of a tag is recorded as an observation too (docs/adr/0032), as one of those made at the
    interval of the tag's schedule or, if it has none, at the caller's ``interval``, in microseconds. A move's
    entry in the journal says since when it was possible: ``not_before``.

    With a ``fence``, nothing is written, and :class:`Conflict` is raised, if its process no longer has it.
    """

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
        self,
        repository: str,
        manifest: Manifest,
        *,
        tag: str | None = None,
        origin: Origin,
        interval: int = INTERVAL,
        fence: Fence | None = None,
    ) -> TagEvent | None:
        """Make a stored manifest visible, even if its content is missing here, and point ``tag`` at it, as
        upstream does now. Returns the journal's entry, if the tag moved.

        Raises :class:`TagRefused`, :class:`OverQuota`.
        """
        now = self._rules.now()
        target = Target(str(manifest.digest), manifest.media_type, manifest.size)
        with self._sequencing.write() as connection:
            _check(connection, fence)
            key = RepositoryKey(repository_rows.lock_or_make(connection, repository, now), repository)
            new = manifest_rows.find(connection, key.row, target.digest) is None
            damage.heal(connection, target.digest)
            manifest_rows.store(connection, key.row, manifest, now)
            lease_rows.extend(connection, target.digest, now + self._lease)
            event = None
            if tag is not None:
                dated = _dated(connection, origin, key, tag, target.digest, now=now)
                event = tag_moves.point(connection, self._rules, key, tag, target, origin=dated)
                _note(connection, repository, tag, target.digest, now)
                seen = Observation(repository, tag, "seen", now, interval, manifest.digest)
                _observe(connection, seen, event)
            if new:
                quotas.check_bytes(connection, self._quotas, repository)
            if event is not None and event.event == "created":
                quotas.check_tags(connection, self._quotas, repository)
            return event

    @retried
    def note(
        self,
        repository: str,
        tag: str,
        digest: Digest,
        *,
        interval: int = INTERVAL,
        fence: Fence | None = None,
    ) -> None:
        """Upstream's tag was seen to point to ``digest`` now; the tag here stays where it is."""
        now = self._rules.now()
        # What a crash of the machine takes back is the end of a span: then less is known, and nothing wrong.
        with self._database.write(durable=False) as connection:
            _check(connection, fence)
            _note(connection, repository, tag, str(digest), now)
            _observe(connection, Observation(repository, tag, "seen", now, interval, digest))

    @retried
    def absent(
        self, repository: str, tag: str, *, interval: int = INTERVAL, fence: Fence | None = None
    ) -> None:
        """Upstream was seen not to have the tag; a tag here stays as it is."""
        with self._database.write(durable=False) as connection:
            _check(connection, fence)
            _observe(connection, Observation(repository, tag, "absent", self._rules.now(), interval))

    @retried
    def failed(
        self,
        repository: str,
        tag: str,
        reason: str,
        *,
        interval: int = INTERVAL,
        fence: Fence | None = None,
    ) -> None:
        """Upstream did not say where the tag points, for a ``reason``."""
        with self._database.write(durable=False) as connection:
            _check(connection, fence)
            at = self._rules.now()
            _observe(connection, Observation(repository, tag, "failed", at, interval, reason=reason))

    @retried
    def gone(
        self,
        repository: str,
        tag: str,
        *,
        origin: Origin,
        interval: int = INTERVAL,
        fence: Fence | None = None,
    ) -> TagEvent | None:
        """Delete a tag that upstream has deleted, with its journal entry.

        Raises :class:`TagRefused`; then nothing is recorded: see :meth:`absent`.
        """
        now = self._rules.now()
        with self._sequencing.write() as connection:
            _check(connection, fence)
            row = repository_rows.lock(connection, repository)
            connection.execute(
                delete(upstream_tags).where(
                    upstream_tags.c.repository == repository, upstream_tags.c.tag == tag
                )
            )
            event = None
            if row is not None:
                key = RepositoryKey(row, repository)
                if tag_moves.pointed(connection, key, tag) is not None:
                    dated = _dated(connection, origin, key, tag, None, now=now)
                    event = tag_moves.drop(connection, self._rules, key, tag, origin=dated)
            _observe(connection, Observation(repository, tag, "absent", now, interval), event)
            return event

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


def _dated(
    connection: Connection, origin: Origin, key: RepositoryKey, tag: str, digest: str | None, *, now: int
) -> Origin:
    """Return ``origin`` with the time since when the tag may have moved to ``digest`` (None: was deleted)."""
    if origin.not_before is not None or tag_moves.pointed(connection, key, tag) == digest:
        return origin
    return replace(origin, not_before=observation_rows.last_other(connection, key.name, tag, digest, now))


def _observe(connection: Connection, found: Observation, event: TagEvent | None = None) -> None:
    """Record an observation and, of a tag with a schedule, the move that it found."""
    interval = observation_rows.interval_of(connection, found.repository, found.tag)
    if interval is not None:
        found = replace(found, interval=interval)
        if event is not None:
            observed_moves.add(connection, event)
    observation_rows.record(connection, found)


def _check(connection: Connection, fence: Fence | None) -> None:
    if fence is not None:
        fence.require_held(connection)
