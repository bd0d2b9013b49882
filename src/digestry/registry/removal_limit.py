"""The limit on removals: removing most of a registry requires an explicit confirmation.

Such a removal is seldom right: it may be caused by a wrong catalog, a mistyped retention rule, or a user who
deleted all tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.errors import Conflict

FEW: Final = 100
"""So many manifests, or blobs, are never most of a store."""
LITTLE: Final = 1 << 30
"""Nor are so many bytes of blobs."""
OPTION: Final = "--really-remove-most"


class RemovalRefused(Conflict):
    """A run would remove most of the registry. It has removed nothing of that kind."""


@dataclass(slots=True)
class RemovalShare:
    """The number of manifests or blobs, and how many of them a run would remove; blobs with their bytes."""

    kind: str
    total: int = 0
    dead: int = 0
    dead_bytes: int = 0
    live_bytes: int | None = None
    """None if it was not counted."""

    @property
    def most(self) -> bool:
        """Whether it is more than half, by number or by bytes, and more than a few."""
        by_number = self.dead > FEW and 2 * self.dead > self.total
        by_bytes = self.live_bytes is not None and self.dead_bytes > max(LITTLE, self.live_bytes)
        return by_number or by_bytes

    def error(self) -> RemovalRefused:
        """Return the error that refuses to remove this much."""
        size = f", of {self.dead_bytes} bytes," if self.dead_bytes else ""
        return RemovalRefused(
            f"{self.dead} of {self.total} {self.kind}s{size} would be removed: that is most of the store, and"
            " none was",
            hint=f"digestry gc --dry-run lists what would go, and why; if it is right: digestry gc {OPTION}",
        )
