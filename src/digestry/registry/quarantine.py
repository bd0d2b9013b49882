"""The quarantine of damaged content: hidden from clients, and its file set aside.

The row first, then the file: a crash between the two leaves a bad file that nobody is served, and the
next look at it moves it. Neither is done to content that a push has just replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from digestry.blobs.disk import DiskBlobs
from digestry.blobs.examine import Finding, FullSpeed, Pace, examine, identity
from digestry.catalog import clock
from digestry.catalog.damage import Damage, Noted
from digestry.model.digest import Digest

log: Final = logging.getLogger("digestry.registry")

HEALS: Final = "push an image that holds it once more: that puts it back"


Note = Callable[[str, Digest, str], None]
"""Told of ``quarantine-blob`` and ``release-blob``: of what, and why."""


class Quarantine:
    """Checks content, and quarantines or releases it. Thread-safe. Blocks."""

    def __init__(
        self,
        blobs: DiskBlobs,
        damage: Damage,
        *,
        now: clock.Clock = clock.now,
        note: Note = lambda *_: None,
    ) -> None:
        self._blobs = blobs
        self._damage = damage
        self._now = now
        self._note = note

    def quarantine_if_damaged(self, digest: Digest, size: int) -> bool:
        """Check content that could not be served again, and return whether it is damaged.

        Others may have found it and seen to it already.
        """
        return self._damage.known(digest) or self.look(digest, size, drop=True)

    def look(
        self,
        digest: Digest,
        size: int,
        *,
        known: bool = False,
        pace: Pace | None = None,
        drop: bool = False,
    ) -> bool:
        """Read all of some content, and return whether it is damaged.

        ``known`` tells that it is thought to be: if it is whole, because somebody put its file back, it
        is served again. With ``drop`` memory forgets the file, for it may be what is wrong. Raises
        :class:`Unreadable` for a file that cannot be judged, and :class:`StorageError`.
        """
        path = self._blobs.path(digest)
        finding = examine(path, digest, size, pace or FullSpeed(), drop=drop)
        if finding.problem is None and not known:
            return False
        # Pushers hold it from before their rename until the catalog has committed: what is under the
        # name now stays there, and whoever put it there is done.
        with self._blobs.guard(digest, exclusive=True) as guard:
            guard.check()
            if identity(path) != finding.file:
                return False  # a push was faster: its bytes were verified as they came
            if finding.problem is None:
                if self._damage.forget(digest):
                    log.warning("%s is whole again, and served", digest)
                    self._note("release-blob", digest, "it is whole again")
                return False
            noted = self._damage.note(digest, finding.problem, self._now())
            if noted == "unheld":
                return False  # nobody can be served it; its file is the collector's
            self._move(finding, finding.problem, noted)
        return True

    def _move(self, finding: Finding, problem: str, noted: Noted) -> None:
        if noted == "new":
            self._note("quarantine-blob", finding.digest, problem)
        text = "%s is damaged: %s. It is not served any more; %s"
        if finding.file is not None:
            aside = self._blobs.set_aside(finding.digest, self._now())
            log.error(f"{text}. The file is now %s", finding.digest, problem, HEALS, aside)
        elif noted == "new":
            log.error(text, finding.digest, problem, HEALS)
