"""The catalog: everything that the registry knows about content, each change one transaction.

Blocks; the registry calls it from worker threads. Rule 4 of docs/design.md is kept by its callers'
order: bytes are durable in the blob store before a method here makes them visible.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from digestry.catalog import (
    clock,
    damage,
    lease_rows,
    manifest_rows,
    push_lookups,
    quotas,
    repository_rows,
    tag_moves,
)
from digestry.catalog.age_overrides import AgeOverrides
from digestry.catalog.browsing import Browsing
from digestry.catalog.changed_repositories import RepositoryChanges
from digestry.catalog.damage import Damage
from digestry.catalog.database import Database, Job, Outcome
from digestry.catalog.delivery_queue import DeliveryQueue
from digestry.catalog.digest_prefixes import DigestPrefixes
from digestry.catalog.fleet.counts import FleetCounts
from digestry.catalog.fleet.events import FleetEvents
from digestry.catalog.fleet.judgements import FleetJudgements
from digestry.catalog.fleet.retention import FleetRetention
from digestry.catalog.fleet.run_count_checks import FleetRunCountChecks
from digestry.catalog.fleet.run_counts import FleetRunCounts
from digestry.catalog.fleet.scans import Scans
from digestry.catalog.fleet.store import Fleet
from digestry.catalog.garbage import Garbage
from digestry.catalog.job_states import JobStates
from digestry.catalog.journal import Origin
from digestry.catalog.journal_sequencing import JournalSequencing
from digestry.catalog.manifest_rows import MissingContent, Wanted
from digestry.catalog.observation_plan import ObservationPlan
from digestry.catalog.observations import Observations
from digestry.catalog.observed_moves import ObservedMoves
from digestry.catalog.options import CatalogOptions
from digestry.catalog.pull_through import PullThrough
from digestry.catalog.registry_identity import RegistryIdentities
from digestry.catalog.relocation import Relocations
from digestry.catalog.repository_reads import RepositoryReads
from digestry.catalog.retention_rules import Retention
from digestry.catalog.sightings import Sightings
from digestry.catalog.statistics import Statistics
from digestry.catalog.tag_ages import TagAges
from digestry.catalog.tag_history import TagHistory
from digestry.catalog.tag_moves import ANYTHING, NOWHERE, Expected, RepositoryKey, Rules, Target
from digestry.catalog.throttle import Throttle
from digestry.catalog.transactions import retried
from digestry.catalog.transparency.reads import TransparencyLog
from digestry.catalog.transparency.signing import LogSigner
from digestry.catalog.transparency.suspension import LogSuspension
from digestry.catalog.transparency.witnessing import Witnessing
from digestry.catalog.web_sessions import WebSessions
from digestry.errors import Conflict, NotFound
from digestry.model.digest import Digest
from digestry.model.history import Restored, TagEvent
from digestry.model.manifest import Manifest
from digestry.model.name_pattern import matches


class Catalog(RepositoryReads):
    """The catalog of a registry, in any database. Thread-safe.

    Its own methods read repositories, and change them in one transaction each. Attributes have the rest:

    * tags and the journal: ``tag_history`` (the past), ``tag_ages`` (how long a digest stood under a tag),
      ``age_overrides``, ``sequencing`` (positions of entries), ``changes`` (which repositories changed);
    * the transparency log of the journal: ``log``, ``log_signer``, ``log_suspension``, and ``witnessing``
      (what was seen of other logs);
    * content: ``damage``, ``sightings``, ``digest_prefixes``, ``pull_through`` (the cache's rows);
    * other registries' tags: ``observations``, ``observation_plan``, ``observed_moves``;
    * what agents report: ``fleet``, ``fleet_retention``, ``fleet_judgements``, ``fleet_counts``,
      ``fleet_run_counts`` and ``fleet_run_count_checks``, ``fleet_scans``, ``fleet_events``;
    * the pages: ``browsing``, ``web_sessions``;
    * the registry itself: ``jobs`` (its own work), ``delivery_queue`` (webhooks), ``identity``,
      ``relocation``, ``statistics``.
    """

    def __init__(
        self,
        database: Database,
        options: CatalogOptions = CatalogOptions(),  # noqa: B008 - frozen
        *,
        now: clock.Clock = clock.now,
    ) -> None:
        super().__init__(database, now, options.lease, options.quotas, uploads_last=options.uploads_last)
        self._sparse = options.sparse
        self._ages = options.ages
        self.tag_history = TagHistory(self._database)
        self.digest_prefixes = DigestPrefixes(self._database)
        self.delivery_queue = DeliveryQueue(self._database)
        self.jobs = JobStates(self._database)
        self.identity = RegistryIdentities(self._database)
        self.relocation = Relocations(self._database)
        self.statistics = Statistics(self._database)
        self.browsing = Browsing(self._database)
        self.web_sessions = WebSessions(self._database)
        self.damage = Damage(self._database)
        self.sightings = Sightings(self._database)
        self.observations = Observations(self._database, now)
        self.observation_plan = ObservationPlan(self._database)
        self.observed_moves = ObservedMoves(self._database)
        self.changes = RepositoryChanges(self._database, now)
        self.fleet = Fleet(self._database)
        self.fleet_retention = FleetRetention(self._database)
        self.fleet_run_counts = FleetRunCounts(self._database)
        self.fleet_run_count_checks = FleetRunCountChecks(self._database)
        self.fleet_counts = FleetCounts(self._database)
        self.fleet_judgements = FleetJudgements(self._database)
        self.fleet_scans = Scans(self._database)
        self.fleet_events = FleetEvents(self._database)
        self._rules = Rules(options.policy, options.subscriptions, now, options.lease)
        self.log = TransparencyLog(self._database)
        self.log_signer = LogSigner(self._database)
        self.log_suspension = LogSuspension(self._database)
        self.witnessing = Witnessing(self._database)
        self.sequencing = JournalSequencing(self._database, options.subscriptions)
        self.tag_ages = TagAges(self._database)
        self.age_overrides = AgeOverrides(self._database, self.sequencing, options.subscriptions, now)
        self.pull_through = PullThrough(
            self._database, self.sequencing, self._rules, options.lease, self._quotas
        )

    def change_options(self, options: CatalogOptions) -> None:
        """Go by other ``options`` from now on. A transaction under way may still go by the earlier ones."""
        self._sparse = options.sparse
        self._ages = options.ages
        self._rules = Rules(options.policy, options.subscriptions, self._rules.now, options.lease)
        self.change_limits(options.lease, options.quotas)
        self.pull_through.change_rules(self._rules, options.lease, options.quotas)
        self.sequencing.change_subscriptions(options.subscriptions)
        self.age_overrides.change_subscriptions(options.subscriptions)

    def describe(self) -> str:
        """Return the catalog's name in messages, such as its path."""
        return self._database.describe()

    def size(self) -> int:
        """Return how many bytes the catalog takes."""
        return self._database.size()

    def migrate(self) -> None:
        """Migrate the schema to the newest version. Only one process may do this at a time."""
        self._database.migrate()

    @property
    def writers(self) -> int:
        """Return how many threads gain from writing side by side; see :attr:`Database.writers`."""
        return self._database.writers

    def group_commit(self, jobs: Sequence[Job], *, durable: bool = True) -> list[Outcome]:
        """Call ``jobs``, which call methods of this catalog, and commit what they write; see
        :meth:`Database.group_commit`."""
        return self._database.group_commit(jobs, durable=durable)

    def close(self) -> None:
        """End all connections."""
        self._database.close()

    def garbage(self, retention: Retention, *, throttle: Throttle | None = None) -> Garbage:
        """Return what removes the garbage under ``retention``; with a ``throttle`` others have turns."""
        return Garbage(
            self._database, self._rules, retention, lease=self._lease, ages=self._ages, throttle=throttle
        )

    # -- manifests and tags --------------------------------------------------------------------

    @retried
    def put_manifest(
        self,
        repository: str,
        manifest: Manifest,
        *,
        tag_names: Sequence[str] = (),
        origin: Origin,
        expected: Expected = ANYTHING,
        extends: frozenset[tuple[str, str]] = frozenset(),
    ) -> list[TagEvent]:
        """Make a stored manifest visible and point tags at it: all of it, or nothing.

        ``extends`` are manifests whose content it has, and more: tags of signatures that point there may
        move. ``expected`` is of each tag, or of the manifest itself if there is none. Returns the journal's
        entries for the tags that came to it; a tag that was there already makes none. Raises
        :class:`MissingContent`, :class:`TagChanged`, :class:`TagRefused`.
        """
        now = self._now()
        target = Target(str(manifest.digest), manifest.media_type, manifest.size)
        with self.sequencing.write() as connection:
            key = RepositoryKey(repository_rows.lock_or_make(connection, repository, now), repository)
            push_lookups.send(
                connection, key, manifest, tag_names, sparse=self._is_sparse(repository), moves=True
            )
            new = manifest_rows.find(connection, key.row, target.digest) is None
            if not tag_names:
                expected.check(repository, target.digest, None if new else target.digest)
            if tag_names:
                tag_moves.check_not_observed(connection, key)
            # The policy decides on each move, and each is compared, only here, where no other transaction can
            # write.
            moves = [
                tag_moves.point(
                    connection,
                    self._rules,
                    key,
                    name,
                    target,
                    origin=origin,
                    expected=expected,
                    extends=extends,
                )
                for name in dict.fromkeys(tag_names)
            ]
            self._check_content(connection, key, manifest)
            manifest_rows.store(connection, key.row, manifest, now)
            damage.heal(connection, target.digest)
            lease_rows.extend(connection, target.digest, now + self._lease)
            events = [event for event in moves if event is not None]
            if new:
                quotas.check_bytes(connection, self._quotas, repository)
            if any(event.event == "created" for event in events):
                quotas.check_tags(connection, self._quotas, repository)
            return events

    def check_references(
        self,
        repository: str,
        manifest: Manifest,
        *,
        tag_names: Sequence[str] = (),
        expected: Expected = ANYTHING,
        extends: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        """Raise what :meth:`put_manifest` would raise now: for who has not stored the bytes yet."""
        digest = str(manifest.digest)
        with self._database.read() as connection:
            row = repository_rows.find(connection, repository)
            key = RepositoryKey(NOWHERE if row is None else row, repository)
            push_lookups.send(
                connection, key, manifest, tag_names, sparse=self._is_sparse(repository), moves=False
            )
            if not tag_names and expected is not ANYTHING:
                there = manifest_rows.find(connection, key.row, digest)
                expected.check(repository, digest, None if there is None else digest)
            for name in tag_names:
                tag_moves.check(
                    connection, self._rules, key, name, digest, expected=expected, extends=extends
                )
            self._check_content(connection, key, manifest)

    def asks_content_alone(
        self, repository: str, manifest: Manifest, tag_names: Sequence[str], expected: Expected
    ) -> Wanted | None:
        """Return what the repository must have, if nothing else decides whether :meth:`check_references`
        raises; None if more does."""
        if not tag_moves.depends_on_nothing(self._rules, repository, tag_names, expected):
            return None
        return manifest_rows.wanted_by(manifest, sparse=self._is_sparse(repository))

    def _is_sparse(self, repository: str) -> bool:
        return any(matches(pattern, repository) for pattern in self._sparse)

    def _check_content(self, connection: Connection, key: RepositoryKey, manifest: Manifest) -> None:
        """Raise :class:`MissingContent` unless the repository has what the manifest refers to."""
        lacking = manifest_rows.missing(connection, key.row, manifest, sparse=self._is_sparse(key.name))
        if lacking:
            raise MissingContent(lacking)

    @retried
    def restore_tag(
        self,
        repository: str,
        name: str,
        wanted: Digest | int,
        *,
        origin: Origin,
        expected: Expected = ANYTHING,
    ) -> Restored:
        """Point a tag back at a digest that it had before, or at the one that it had at a time (microseconds
        since 1970).

        Raises :class:`NotFound` if the tag never existed, or if the repository does not have that manifest;
        :class:`TagChanged`, :class:`TagRefused`.
        """
        now = self._now()
        with self.sequencing.write() as connection:
            key = RepositoryKey(self._known(connection, repository, locked=True), repository)
            tag_moves.check_not_observed(connection, key)
            digest = tag_moves.past(connection, key, name, wanted)
            found = manifest_rows.find(connection, key.row, digest)
            if found is None or damage.is_damaged(connection, digest):
                raise NotFound(
                    f"tag {name} of {repository} pointed to {digest}, which the repository does not have"
                    " any more",
                    hint="push that image again, by its digest",
                )
            before = tag_moves.pointed(connection, key, name)
            target = Target(digest, found.media_type, found.size)
            lease_rows.extend(connection, digest, now + self._lease)
            event = tag_moves.point(
                connection, self._rules, key, name, target, origin=origin, expected=expected
            )
            if before is None:
                quotas.check_tags(connection, self._quotas, repository)
        return Restored(
            repository=repository,
            tag=name,
            from_digest=None if before is None else Digest.parse(before),
            to_digest=found.digest,
            event=event,
        )

    @retried
    def delete_tag(
        self, repository: str, name: str, *, origin: Origin, expected: Expected = ANYTHING
    ) -> TagEvent:
        """Remove a tag, not its manifest.

        Raises :class:`NotFound`, :class:`TagChanged`, :class:`TagRefused`.
        """
        with self.sequencing.write() as connection:
            key = RepositoryKey(self._known(connection, repository, locked=True), repository)
            return tag_moves.drop(connection, self._rules, key, name, origin=origin, expected=expected)

    @retried
    def delete_manifest(self, repository: str, digest: Digest, *, origin: Origin) -> list[TagEvent]:
        """Remove a manifest and the tags that point at it. Raises :class:`NotFound`, or
        :class:`Conflict` while an index there lists it, :class:`TagRefused` for one of the tags."""
        with self.sequencing.write() as connection:
            key = RepositoryKey(self._known(connection, repository, locked=True), repository)
            if manifest_rows.find(connection, key.row, str(digest)) is None:
                raise NotFound(f"manifest {digest} is not in repository {repository}")
            listed_by = manifest_rows.users(connection, key.row, str(digest), roles=("manifest",))
            if listed_by:
                raise Conflict(
                    f"manifest {digest} is still listed by index {listed_by[0]}",
                    hint="delete the index first",
                )
            events = [
                tag_moves.drop(connection, self._rules, key, name, origin=origin)
                for name in manifest_rows.tags_of(connection, key.row, str(digest))
            ]
            manifest_rows.end(connection, key.row, str(digest), self._now())
            return events
