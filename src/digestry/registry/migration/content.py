"""The copy of a registry's content from one store to another, repeated as often as something is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from digestry.blobs.protocols import BlobStore
from digestry.catalog.catalog import Catalog
from digestry.catalog.database import Database
from digestry.catalog.listed_content import listed_pages, stored_sizes
from digestry.catalog.snapshot import Held
from digestry.model.digest import Digest
from digestry.registry.backup import copying
from digestry.registry.backup.copying import Flow, Unusable
from digestry.registry.backup.description import Missing
from digestry.registry.backup.taking import Watcher

_HOLDERS: Final = 20


@dataclass(slots=True)
class ContentCounts:
    """How much content was copied, how much was present, and what could not be copied, by its digest."""

    copied: int = 0
    copied_bytes: int = 0
    present: int = 0
    missing: dict[Digest, Missing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContentCopy:
    """The copy of the content that ``catalog`` lists in ``database`` from ``source`` to ``target``.

    ``rows`` is the database of the objects of a ``target`` whose list is in the catalog.
    """

    catalog: Catalog
    database: Database
    source: BlobStore
    target: BlobStore
    rows: Database
    flow: Flow
    watcher: Watcher

    def run(self, *, verify: bool = False) -> ContentCounts:
        """Copy what the target lacks, hashing it on the way. With ``verify`` also read what it has.

        Raises :class:`StorageError`.
        """
        counts = ContentCounts()

        def carry(held: Held) -> bool:
            if verify and self.target.stat(held.digest) == held.size:
                if copying.check(self.target, held, self.flow):
                    return False
                self.target.delete(held.digest)
            copying.copy(self.source, self.target, held, self.flow)
            return True

        wanted = self._wanted(counts, verify=verify)
        with contextlib.closing(copying.in_threads(carry, wanted, self.flow)) as outcomes:
            for held, outcome in outcomes:
                if isinstance(outcome, Unusable):
                    counts.missing[held.digest] = self._missing(held, outcome.message)
                elif outcome:
                    counts.copied += 1
                    counts.copied_bytes += held.size
                else:
                    counts.present += 1
        return counts

    def _wanted(self, counts: ContentCounts, *, verify: bool) -> Iterator[Held]:
        for page in listed_pages(self.database):
            there = self._there(page)
            for held in page:
                if verify or there.get(held.digest) != held.size:
                    yield held
                else:
                    counts.present += 1
                    self.watcher.moved(held.size)

    def _there(self, page: Sequence[Held]) -> dict[Digest, int | None]:
        digests = [held.digest for held in page]
        if self.target.is_listed_in_catalog:
            return {**stored_sizes(self.rows, digests)}
        return {digest: self.target.stat(digest) for digest in digests}

    def _missing(self, held: Held, problem: str) -> Missing:
        holders = [
            f"{affected.repository}:{tag}" if tag else affected.repository
            for affected in self.catalog.damage.affected(held.digest, limit=_HOLDERS)
            for tag in affected.tags or [""]
        ]
        return Missing(str(held.digest), held.size, problem, holders)
