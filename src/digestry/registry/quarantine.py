"""The quarantine of damaged content: hidden from clients, and its file set aside.

The row is written first, then the file is moved: a crash between the two leaves a bad file that is not
served, and the next check moves it. Content that a push has just replaced is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from digestry.blobs.protocols import BlobStore, FullSpeed, Throttle, Verification
from digestry.catalog import clock
from digestry.catalog.damage import Damage, Noted
from digestry.coordination.protocol import Coordination
from digestry.model.digest import Digest

log: Final = logging.getLogger("digestry.registry")

HEALS: Final = "push an image that holds it once more: that puts it back"


Note = Callable[[str, Digest, str], None]
"""Called for ``quarantine-blob`` and ``release-blob``, with the digest and the reason."""


class Quarantine:
    """Checks content, and quarantines or releases it. Thread-safe. Blocks."""

    def __init__(
        self,
        blobs: BlobStore,
        coordination: Coordination,
        damage: Damage,
        *,
        now: clock.Clock = clock.now,
        note: Note = lambda *_: None,
    ) -> None:
        self._blobs = blobs
        self._coordination = coordination
        self._damage = damage
        self._now = now
        self._note = note

    def quarantine_if_damaged(self, digest: Digest, size: int) -> bool:
        """Check content that could not be served again, and return whether it is damaged.

        Others may have found it and seen to it already.
        """
        return self._damage.known(digest) or self.verify(digest, size, uncached=True)

    def verify(
        self,
        digest: Digest,
        size: int,
        *,
        known: bool = False,
        throttle: Throttle | None = None,
        uncached: bool = False,
    ) -> bool:
        """Read all of a blob, and return whether it is damaged.

        ``known``: it is recorded as damaged; if it is whole, because its file was put back, it is served
        again. With ``uncached`` the page cache drops the file, because the cached copy may be the damaged
        one. Raises :class:`Unreadable` for a file that cannot be judged, and :class:`StorageError`.
        """
        found = self._blobs.verify(digest, size, throttle or FullSpeed(), uncached=uncached)
        if found.problem is None and not known:
            return False
        # Pushes hold it from before their rename until the catalog has committed: the file under the name now
        # stays there, and the push that put it there is complete.
        with self._coordination.guard(digest, exclusive=True) as guard:
            guard.check()
            if self._blobs.revision(digest) != found.revision:
                return False  # a push was faster: its bytes were verified as they came
            if found.problem is None:
                if self._damage.forget(digest):
                    log.warning("%s is whole again, and served", digest)
                    self._note("release-blob", digest, "it is whole again")
                return False
            noted = self._damage.note(digest, found.problem, self._now())
            if noted == "unheld":
                return False  # it cannot be served; garbage collection removes its file
            self._move(found, found.problem, noted)
        return True

    def _move(self, found: Verification, problem: str, noted: Noted) -> None:
        if noted == "new":
            self._note("quarantine-blob", found.digest, problem)
        text = "%s is damaged: %s. It is no longer served; %s"
        if found.revision is not None:
            moved = self._blobs.quarantine(found.digest, self._now())
            log.error(f"{text}. The file is now %s", found.digest, problem, HEALS, moved.location)
        elif noted == "new":
            log.error(text, found.digest, problem, HEALS)
