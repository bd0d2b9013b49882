"""The frozen state of a registry during a backup: no garbage collection, and a snapshot of the catalog."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from digestry import fsio
from digestry.backend import Backend
from digestry.blobs.layout_version import LAYOUT_FILE
from digestry.blobs.protocols import StoreMark
from digestry.catalog.snapshot import Held, Snapshot
from digestry.catalog.store import CatalogFile
from digestry.coordination import key_files
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, NotFound
from digestry.registry import log_heads, served_retention, store_identity
from digestry.registry.backup import description
from digestry.registry.backup.description import Description, JournalEnd, Missing, Part
from digestry.registry.observability.audit_log import PLACE_FILE
from digestry.version import __version__

_NOT_LISTED: Final = frozenset(
    {LAYOUT_FILE, "blobs", key_files.DIRECTORY}
    | {
        "absent",
        "guards",
        "metrics",
        "mirror",
        "reserve",
        "tls",
        PLACE_FILE,
        served_retention.FILE,
        log_heads.HEAD_FILE,  # of what is signed after the backup, too
    }  # made anew
    | {"lost+found"}
)
_WHY_NOT: Final = {
    "audit.log": "copy it as you copy other logs",
    "audit-refused.log": "copy it as you copy other logs",
    "ingest": "uploads under way",
    "quarantine": "damaged content",
}
_ROTATED: Final = re.compile(r"(?<=\.log)\.\d+$")
_NOT_OURS: Final = "not the registry's own: copy it yourself if you need it"


@dataclass(slots=True)
class BackupCounts:
    """Counts of a backup: its content, what was copied, and what is missing."""

    blobs: int = 0
    bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: list[Missing] = field(default_factory=list)

    def add(self, held: Held, *, copied: bool = True) -> None:
        self.blobs += 1
        self.bytes += held.size
        if copied:
            self.copied += 1
            self.copied_bytes += held.size

    def lose(self, held: Held, problem: str, catalog: Snapshot) -> None:
        holders = catalog.holders(held.digest)
        self.missing.append(Missing(str(held.digest), held.size, problem, holders))


@dataclass(slots=True)
class FrozenRegistry:
    """A registry in which garbage collection is locked out, with a staged snapshot of its catalog.

    ``root`` is the directory whose other files the backup leaves out.
    """

    backend: Backend
    root: Path
    copy: CatalogFile
    catalog: Snapshot
    mark: StoreMark | None
    part: Part
    journal: JournalEnd
    taken_at: datetime.datetime

    def read_keys(self) -> list[tuple[Part, bytes]]:
        """Return the keys, sorted by ID."""
        keys = self.backend.coordination.keys
        found = []
        for key_id in keys.ids():
            path = description.key_path(key_id)
            if description.KEY.fullmatch(path):
                with contextlib.suppress(NotFound):  # it was retired meanwhile
                    content = keys.read(key_id)
                    found.append((Part.of(path, content), content))
        return found

    def describe(self, tally: BackupCounts, kept_keys: list[Part]) -> Description:
        return Description(
            version=description.VERSION,
            digestry=__version__,
            taken_at=self.taken_at,
            schema=self.catalog.schema,
            catalog=self.part,
            journal=self.journal,
            blobs=tally.blobs,
            size=tally.bytes,
            keys=kept_keys,
            missing=tally.missing,
        )

    def left_out(self) -> list[tuple[str, str]]:
        """Return what the backup leaves out of the root, except locks and files that are made anew."""
        found = []
        ours = self.backend.catalog_store.file_names()
        with fsio.storage_errors("list", self.root):
            for path in sorted(self.root.iterdir()):
                name = path.name
                if name in _NOT_LISTED | ours or name.endswith(".lock") or name.startswith("."):
                    continue
                if name not in _WHY_NOT or not path.is_dir() or any(path.iterdir()):
                    found.append((name, _WHY_NOT.get(_ROTATED.sub("", name), _NOT_OURS)))
        return found


@contextlib.contextmanager
def frozen(backend: Backend, root: Path, place: Path, follows: str | None = None) -> Iterator[FrozenRegistry]:
    """Lock garbage collection out inside the block, and stage a snapshot in a folder of ``place``.

    ``follows`` is the last hash in an earlier backup's journal. This journal must have it too. Raises
    :class:`Conflict` for a catalog that is not a file.
    """
    catalog_file = backend.catalog_store.as_file()
    with backend.coordination.only_one(Job.COLLECTION, wait=True):
        prefix = f".backup-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]}-"
        with fsio.storage_errors("write to", place):
            for left in place.glob(
                f"{prefix}*"
            ):  # of a process that was killed: the holder of the lock is alone
                shutil.rmtree(left, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        try:
            taken_at = datetime.datetime.now(datetime.UTC)
            before = backend.blobs.mark()
            copy = catalog_file.snapshot_to(staging)
            mark = store_identity.check_copy(copy, before, backend.blobs.location)
            with copy.open_snapshot() as catalog:
                journal = _journal_end(copy, () if follows is None else (follows,))
                size, sha256 = description.hash_file(catalog.path)
                part = Part(f"catalog-{sha256[:16]}.db", size, sha256)
                yield FrozenRegistry(backend, root, copy, catalog, mark, part, journal, taken_at)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _journal_end(copy: CatalogFile, expect: tuple[str, ...]) -> JournalEnd:
    verdict = copy.verify_journal(expect)
    if verdict.absent:
        raise Conflict(
            "the backup that is there is of another registry, or of a later state of this one: its journal"
            f" ends with {verdict.absent[0]}, which is not in this one's",
            hint="choose another directory",
        )
    broken = verdict.broken
    reason = None if broken is None else f"entry {broken.sequence}: {broken.reason}"
    return JournalEnd(verdict.entries, verdict.last_hash, reason)
