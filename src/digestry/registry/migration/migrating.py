"""Move a registry to other stores: its content while it is served, then its catalog in one transaction.

An incomplete registry is never served. The new catalog says that it is not complete until the transaction
that gives it all rows. The old one is frozen before these are read, and stays so. After an interruption the
next call continues.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from digestry.blobs.protocols import StoreMark
from digestry.catalog import clock, dialect, journal_verification, table_copy
from digestry.catalog.catalog import Catalog
from digestry.catalog.database import Database
from digestry.catalog.journal_chain import Verdict
from digestry.catalog.listed_content import listed_bytes
from digestry.catalog.registry_identity import RegistryIdentity
from digestry.catalog.relocation import Relocation, Relocations, Stage
from digestry.catalog.transactions import OutcomeUnknown
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, ContentError, StorageError
from digestry.model.digest import Digest
from digestry.registry import store_identity
from digestry.registry.backup.copying import Flow
from digestry.registry.backup.description import Missing
from digestry.registry.backup.taking import Watcher
from digestry.registry.migration.content import ContentCopy, ContentCounts
from digestry.registry.migration.stores import MigratingStores, check_pair
from digestry.registry.root import check_user

_PASSES: Final = 5
_FEW: Final = 100
"""Content that may be left to copy when the registry stops taking pushes."""


class ContentMissing(ContentError):
    """The old store lacks content that its catalog lists, or has it damaged; ``missing`` names it."""

    def __init__(self, missing: list[Missing]) -> None:
        noun = "blob is" if len(missing) == 1 else "blobs are"
        super().__init__(
            f"{len(missing)} {noun} damaged or missing in the old store; the registry was not moved",
            hint="push an image that holds one once more, or leave them out with --skip-damaged",
        )
        self.missing = missing


@dataclass(slots=True)
class MigratedRegistry:
    """The result of a migration. ``moved`` is false if only content was copied; ``seconds`` is how long the
    old registry took no pushes; ``rows`` are those of each table."""

    old: str
    new: str
    moved: bool = False
    copied: int = 0
    copied_bytes: int = 0
    present: int = 0
    missing: list[Missing] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    journal: Verdict | None = None
    seconds: float = 0.0

    def add(self, counts: ContentCounts) -> None:
        """Add the counts of one pass over the content."""
        self.copied += counts.copied
        self.copied_bytes += counts.copied_bytes
        self.present = counts.present + counts.copied - self.copied  # less what earlier passes copied
        self.missing = list(counts.missing.values())


def migrate(
    old: MigratingStores,
    new: MigratingStores,
    *,
    copy_only: bool = False,
    verify: bool = False,
    skip_damaged: bool = False,
    flow: Flow,
    watcher: Watcher,
) -> MigratedRegistry:
    """Move the registry of ``old`` to the stores of ``new``, or continue that.

    With ``copy_only`` only content is copied, and the registry stays in use. ``verify`` reads again what the
    new store has. ``skip_damaged`` leaves out content that is damaged or missing.

    Raises :class:`Conflict` if the new stores have other content, or if the old registry accepts pushes;
    :class:`ContentMissing`, :class:`NotFound` and :class:`StorageError`.
    """
    check_pair(old, new)
    old.backend.catalog_store.check_schema()
    check_user(old.backend)
    with contextlib.ExitStack() as held:
        held.enter_context(_alone(old))
        if not copy_only:
            held.enter_context(old.stopped())
        if old.config.root != new.config.root:
            held.enter_context(new.unserved())
        migration = held.enter_context(_opened(old, new, flow, watcher))
        return migration.run(copy_only=copy_only, verify=verify, skip_damaged=skip_damaged)


def reopen(old: MigratingStores) -> Relocation:
    """Let a registry that was moved, or is being moved, take pushes where it was; return where it went.

    Raises :class:`Conflict` if it was not moved.
    """
    old.backend.catalog_store.check_schema()
    check_user(old.backend)
    with _alone(old), contextlib.closing(old.backend.open_catalog()) as catalog:
        found = catalog.relocation.get()
        if found is None or found.stage is Stage.ARRIVING:
            raise Conflict(f"the registry of the catalog {catalog.describe()} was not moved")
        if found.stage is Stage.LEFT:
            reason = f"it was taken back from {found.other}, to which its registry had moved"
            catalog.log_suspension.suspend(reason, now=clock.now())
        catalog.relocation.thaw()
        return found


def _alone(old: MigratingStores) -> contextlib.AbstractContextManager[object]:
    held = f"{old.backend.location} is being collected, backed up or moved already"
    return old.backend.coordination.only_one(Job.COLLECTION, held=held)


@contextlib.contextmanager
def _opened(old: MigratingStores, new: MigratingStores, flow: Flow, watcher: Watcher) -> Iterator[_Migration]:
    with (
        contextlib.closing(old.backend.open_catalog()) as catalog,
        contextlib.closing(old.backend.catalog_store.open()) as source,
        contextlib.closing(new.backend.catalog_store.open()) as target,
    ):
        yield _Migration(old, new, catalog, source, target, flow, watcher)


@dataclass(frozen=True, slots=True)
class _Migration:
    """A migration with the catalogs open: ``source`` is the database of ``catalog``, the old one."""

    old: MigratingStores
    new: MigratingStores
    catalog: Catalog
    source: Database
    target: Database
    flow: Flow
    watcher: Watcher

    def run(self, *, copy_only: bool, verify: bool, skip_damaged: bool) -> MigratedRegistry:
        result = MigratedRegistry(self.old.name, self.new.name)
        leaving = self._is_leaving()
        if not leaving:
            store_identity.ensure(self.catalog, self.old.backend.blobs)
        identity = self.catalog.identity.get()
        if self._has_arrived(identity, leaving):
            self._end(result)
            return result
        self._begin(identity)
        before = self.old.backend.catalog_store.verify_journal()
        if not self._shares_content:
            self._copy_content(result, verify=verify)
        if result.missing and not skip_damaged:
            raise ContentMissing(result.missing)
        if not copy_only:
            self._move(result, identity, before, skip_damaged=skip_damaged)
        return result

    @property
    def _shares_content(self) -> bool:
        return self.new.has_content_of(self.old)

    # -- which registry is where ---------------------------------------------------------------

    def _is_leaving(self) -> bool:
        """Return whether the old catalog is frozen already. Raises :class:`Conflict` if it went elsewhere."""
        found = self.catalog.relocation.get()
        if found is None:
            return False
        if found.stage is Stage.ARRIVING:
            raise Conflict(f"{self.old.name} are not complete: a registry is being moved there")
        if found.other != self.new.name:
            raise Conflict(
                f"the registry of {self.old.name} is being moved, or has moved, to {found.other}",
                hint="digestry migrate-storage --reopen takes it back",
            )
        return True

    def _has_arrived(self, identity: RegistryIdentity, leaving: bool) -> bool:
        """Return whether the new catalog has all rows. Raises :class:`Conflict` if it has other ones."""
        store = self.new.backend.catalog_store
        if store.is_empty():
            return False
        store.check_schema()
        found = Relocations(self.target).get()
        with contextlib.closing(self.new.backend.open_catalog()) as catalog:
            there = catalog.identity.get()
            used = there.bound or catalog.identity.has_content()
        if found is not None and found.stage is Stage.ARRIVING:
            if found.registry == identity.id:
                return False
            raise Conflict(f"another registry is being moved to {self.new.name}, from {found.other}")
        if found is None and leaving and there.id == identity.id:
            return True
        if found is not None or used:
            raise Conflict(
                f"there is a registry in {self.new.name} already",
                hint="name a new directory, a new database or a new prefix",
            )
        return False

    def _begin(self, identity: RegistryIdentity) -> None:
        """Make the new stores, which say whose they will be and cannot be served."""
        blobs, note = self.new.backend.blobs, Relocations(self.target)
        begun = not self.new.backend.catalog_store.is_empty() and note.get() is not None
        if not self._shares_content:
            blobs.prepare()
            mark = blobs.mark()
            ours = not self._has_unmarked_content() if mark is None else begun and mark.id == identity.id
            if not ours:
                raise Conflict(
                    f"there is content in {blobs.location} already",
                    hint="name a new directory, or a new prefix",
                )
        if not begun:
            self.target.migrate()
            note.arrive(self.old.name, identity.id)
        if not self._shares_content:
            blobs.set_mark(StoreMark(identity.id, 0))

    def _has_unmarked_content(self) -> bool:
        blobs = self.new.backend.blobs
        return not blobs.is_listed_in_catalog and next(blobs.digests(), None) is not None

    # -- the content ---------------------------------------------------------------------------

    def _copy_content(self, result: MigratedRegistry, *, verify: bool) -> None:
        self.watcher.total(listed_bytes(self.source))
        for number in range(_PASSES):
            counts = self._content.run(verify=verify and not number)
            result.add(counts)
            if counts.copied <= _FEW:
                return

    @property
    def _content(self) -> ContentCopy:
        return ContentCopy(
            self.catalog,
            self.source,
            self.old.backend.blobs,
            self.new.backend.blobs,
            self.target,
            self.flow,
            self.watcher,
        )

    # -- the last step -------------------------------------------------------------------------

    def _move(
        self, result: MigratedRegistry, identity: RegistryIdentity, before: Verdict, *, skip_damaged: bool
    ) -> None:
        began = time.monotonic()
        self.catalog.relocation.freeze(self.new.name, identity.id)
        try:
            if not self._shares_content:
                result.add(self._content.run())
                if result.missing and not skip_damaged:
                    raise ContentMissing(result.missing)
            self._copy_keys()
            self._copy_catalog(result, before)
        except OutcomeUnknown:
            raise  # the new catalog may be complete: called again, this finds out
        except BaseException:
            with contextlib.suppress(StorageError):
                found = Relocations(self.target).get()
                if found is not None and found.stage is Stage.ARRIVING:
                    self.catalog.relocation.thaw()
            raise
        self._end(result)
        result.seconds = time.monotonic() - began

    def _copy_keys(self) -> None:
        ours, theirs = self.old.backend.coordination.keys, self.new.backend.coordination.keys
        there = theirs.ids()
        for key_id in ours.ids():
            if key_id not in there:
                theirs.add(key_id, ours.read(key_id))

    def _copy_catalog(self, result: MigratedRegistry, before: Verdict) -> None:
        """Copy all rows, prove the journal, and let the new catalog be served, in one transaction."""
        missing = [(Digest.parse(content.digest), content.problem) for content in result.missing]
        subscriptions = self.new.backend.options.subscriptions
        with self.target.write() as target:
            with self.source.read() as source:
                dialect.of(source).lift_limits(source)
                rows = table_copy.load(source, target, with_objects=self._copies_objects)
                ends = table_copy.chain_ends(source)
            if table_copy.chain_ends(target) != ends:
                raise StorageError("the journal's chains do not end in the new catalog as in the old one")
            table_copy.finish(target, subscriptions, missing)
            expected = (before.last_hash,) if before.entries and before.broken is None else ()
            verdict = journal_verification.verify(target, expected)
            if verdict.broken != before.broken or verdict.absent:
                raise StorageError(_difference(verdict))
        result.rows, result.journal = rows, verdict

    @property
    def _copies_objects(self) -> bool:
        return self._shares_content and self.new.backend.blobs.is_listed_in_catalog

    def _end(self, result: MigratedRegistry) -> None:
        """Mark the new store as the new catalog's, and the old catalog as left, unless both were."""
        result.moved = True
        noted = self.catalog.relocation.get()
        if noted is not None and noted.stage is Stage.LEFT:
            return
        with contextlib.closing(self.new.backend.open_catalog()) as catalog:
            found = catalog.identity.get()
        self.new.backend.blobs.set_mark(StoreMark(found.id, found.generation))
        self.catalog.relocation.leave()


def _difference(verdict: Verdict) -> str:
    broken = verdict.broken
    if broken is not None:
        return f"the journal does not hold in the new catalog: entry {broken.sequence}: {broken.reason}"
    return f"the journal has no hash {verdict.absent[0]} in the new catalog, as the old one has"
