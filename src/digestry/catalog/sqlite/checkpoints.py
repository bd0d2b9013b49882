"""Checkpoints of SQLite's log, in a thread beside the commits.

A checkpoint copies the log's pages into the database's file. SQLite does one in the commit that finds 1,000
pages in the log: that commit writes hundreds of pages all over the file and waits twice for the disk, and all
other writes wait for it. If several processes write, it does so in commit after commit, until nobody else has
written meanwhile. The thread copies without the writers' lock
(https://www.sqlite.org/wal.html, "Avoiding Excessively Large WAL Files").
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Final

LAST_RESORT: Final = 32_768
"""Pages of the log, 128 MB, at which a commit does the checkpoint itself, as the thread does not keep up."""
_COMMITS: Final = 12
"""A push changes some 40 pages: half as many commits as SQLite itself lets pass. Many pages at once keep the
disk busy for so long that the commits beside them wait."""
_PAUSE: Final = 0.02
_LONG: Final = 12_288
"""Pages of the log, 48 MB, from which on it is to begin anew."""
_PATIENCE: Final = 0.1
"""Seconds that writers may have to wait for a checkpoint of all pages, which needs a moment without them."""
_AGAIN: Final = 1.0
"""Seconds until that is tried again, if a reader that needs the log was in the way."""


class Checkpoints:
    """The checkpoints of one catalog's file, which one process's commits make necessary. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._commits = 0
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._ended = threading.Event()

    def committed(self) -> None:
        """Note a commit. Called by one thread at a time."""
        self._commits += 1
        if self._commits >= _COMMITS:
            self._commits = 0
            if self._thread is None:
                self._ended.clear()
                self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
                self._thread.start()
            self._wanted.set()

    def close(self) -> None:
        """End the thread, after a checkpoint that is under way."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ended.set()
            self._wanted.set()
            thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        whole = True
        try:
            while not self._ended.is_set():
                self._wanted.wait(None if whole else _AGAIN)
                self._wanted.clear()
                # What fails here is tried again, and at the last resort a commit does it.
                with contextlib.suppress(sqlite3.Error):
                    if connection is None:
                        connection = self._open()
                    if not self._ended.is_set():
                        whole = self._checkpoint(connection)
                self._ended.wait(_PAUSE if whole else _AGAIN)
        finally:
            if connection is not None:
                connection.close()

    def _open(self) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode=rw"  # it is never made here
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_PATIENCE)
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _checkpoint(self, connection: sqlite3.Connection) -> bool:
        """Copy what can be copied; return False if a long log could not be copied to its end."""
        _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if pages < _LONG:
            return True
        # Few pages are left. With all of them copied, the next commit begins the log anew.
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        return not busy
