"""The JSON documents of commands for a registry's operator; fields are the JSON's keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from digestry.registry.backup.description import Description, Missing


class CollectedItem(Struct, frozen=True):
    """An object that a garbage collection removed, or that stays although it should have been removed."""

    kind: str
    repository: str
    name: str
    why: str
    stays: bool
    size: int = 0


class CollectionTotals(Struct, frozen=True):
    """The counts of a garbage collection; ``bytes`` are those of files."""

    tags: int
    manifests: int
    links: int
    blobs: int
    bytes: int
    stayed: int


class Collection(Struct, frozen=True):
    """The outcome of `digestry gc`."""

    dry_run: bool
    items: Sequence[CollectedItem]
    totals: CollectionTotals


class ScrubPass(Struct, frozen=True):
    """A reading of all that a registry holds; ``finished_at`` is null until its end."""

    started_at: str
    finished_at: str | None
    blobs: int
    bytes: int
    damaged: int
    unread: int


class DamagedRepository(Struct, frozen=True):
    """A repository that needs damaged content, by these tags and as many more."""

    name: str
    tags: Sequence[str]
    more_tags: int


class DamagedBlob(Struct, frozen=True):
    """Damaged content, and the repositories that need it."""

    digest: str
    problem: str
    found_at: str
    files: Sequence[str]
    repositories: Sequence[DamagedRepository]


class Scrub(Struct, frozen=True):
    """The outcome of `digestry scrub`; ``pass`` is null if there was none."""

    last: ScrubPass | None = field(name="pass")
    damaged: Sequence[DamagedBlob]


class LeftOut(Struct, frozen=True):
    """Another file of a registry's directory, and why it is not in the backup."""

    name: str
    reason: str


class Backup(Struct, frozen=True):
    """The outcome of `digestry backup`; ``backup`` is the content of backup.json."""

    backup: Description
    copied: int
    copied_bytes: int
    kept: int
    removed: int
    left_out: Sequence[LeftOut]


class RestoreBackup(Struct, frozen=True):
    """The outcome of `digestry restore-backup`; ``backup`` is the content of backup.json."""

    backup: Description
    root: str
    blobs: int
    bytes: int
    missing: Sequence[Missing]


class BrokenEntry(Struct, frozen=True):
    """The first entry of a journal that does not hold, and why."""

    sequence: int
    reason: str


class MovedJournal(Struct, frozen=True):
    """The end of the journal that was moved."""

    entries: int
    last_hash: str
    broken: BrokenEntry | None


class MigrateStorage(Struct, frozen=True):
    """The outcome of `digestry migrate-storage`; ``rows`` are those of each table."""

    old: str
    new: str
    moved: bool
    copied: int
    copied_bytes: int
    present: int
    missing: Sequence[Missing]
    rows: Mapping[str, int]
    journal: MovedJournal | None
    seconds: float


class JournalVerification(Struct, frozen=True):
    """The outcome of `digestry journal verify`."""

    entries: int
    first: int
    last_hash: str | None
    anchor: str | None
    broken: BrokenEntry | None
    absent: Sequence[str]
