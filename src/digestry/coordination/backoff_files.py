"""The back-off from an upstream, for the processes of one host: until when no request is sent, and why."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from digestry import fsio


class BackoffFile:
    """A back-off of ``longest`` seconds at most: the time of the file at ``path``, which has the reason."""

    def __init__(self, path: Path, *, longest: float) -> None:
        self._path = path
        self._longest = longest

    def start(self, seconds: float, why: str) -> None:
        """Start the back-off; see :meth:`Backoff.start`."""
        until = time.time() + seconds
        with contextlib.suppress(OSError):
            descriptor = fsio.open_regular(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with os.fdopen(descriptor, "w") as file:
                file.write(why)
            os.utime(self._path, (until, until))

    def end(self) -> None:
        """End the back-off."""
        self._path.unlink(missing_ok=True)

    def remaining(self) -> tuple[float, str]:
        """Return the seconds that are left, and the reason; see :meth:`Backoff.remaining`."""
        try:
            until = self._path.stat().st_mtime
            # A clock that was set back must not make it longer than it can have been.
            left = until - time.time()
            return (left, fsio.read_file(self._path).decode()) if 0 < left <= self._longest else (0.0, "")
        except (OSError, UnicodeDecodeError):
            return 0.0, ""
