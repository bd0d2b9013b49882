"""Until when an upstream that limits its rate is left alone: known to all workers, and after a restart."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class Limit:
    """The time of an empty file. What cannot be written or read limits only who knows of it."""

    def __init__(self, path: Path, *, longest: float) -> None:
        self._path = path
        self._longest = longest

    def hold(self, seconds: float) -> None:
        """From now on, for so long."""
        until = time.time() + seconds
        with contextlib.suppress(OSError):
            self._path.touch()
            os.utime(self._path, (until, until))

    def left(self) -> float:
        """For how many seconds more; 0 if there is no limit."""
        try:
            until = self._path.stat().st_mtime
        except OSError:
            return 0.0
        # A clock that was set back must not make it longer than it can have been.
        left = until - time.time()
        return left if 0 < left <= self._longest else 0.0
