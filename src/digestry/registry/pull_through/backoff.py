"""Until when an upstream is left alone, and why: known to all workers, and after a restart."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from digestry import fsio


class Limit:
    """The time of a file that has the reason. What cannot be written or read limits only who knows of it."""

    def __init__(self, path: Path, *, longest: float) -> None:
        self._path = path
        self._longest = longest

    def hold(self, seconds: float, why: str) -> None:
        """From now on, for so long."""
        until = time.time() + seconds
        with contextlib.suppress(OSError):
            descriptor = fsio.open_regular(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with os.fdopen(descriptor, "w") as file:
                file.write(why)
            os.utime(self._path, (until, until))

    def lift(self) -> None:
        """No longer."""
        self._path.unlink(missing_ok=True)

    def left(self) -> tuple[float, str]:
        """For how many seconds more, and why; 0 if there is no limit."""
        try:
            until = self._path.stat().st_mtime
            # A clock that was set back must not make it longer than it can have been.
            left = until - time.time()
            return (left, fsio.read_file(self._path).decode()) if 0 < left <= self._longest else (0.0, "")
        except (OSError, UnicodeDecodeError):
            return 0.0, ""
