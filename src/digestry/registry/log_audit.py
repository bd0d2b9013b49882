"""The comparison of the journal with the signed log, again and again, some entries at a time.

Who reads a repository's history compares that. An entry that nobody reads any more is compared here.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from digestry.catalog.transparency.reads import TransparencyLog

log: Final = logging.getLogger("digestry.registry")

_BETWEEN_SECONDS: Final = 30.0
_AT_ONCE: Final = 1000
"""Some 40 ms of one processor."""


class LogAudit:
    """``changed`` is the index of an entry that is not what was signed; None if none was found.

    It begins with what was found before, and forgets that after a whole round that finds nothing.
    """

    def __init__(self, catalog_log: TransparencyLog, changed: int | None) -> None:
        self._log = catalog_log
        self.changed = changed
        self._found: int | None = None
        self._place = 0
        self._next = 0.0

    def step(self) -> bool:
        """Compare some entries, if it is time; return whether :attr:`changed` is another one now.

        Raises :class:`StorageError`.
        """
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _BETWEEN_SECONDS
        before = self.changed
        self._place, found = self._log.compare(self._place, limit=_AT_ONCE)
        if found is not None:
            log.error(
                "entry %d of the signed log is not what was signed: its row of the journal was changed or"
                " removed (digestry journal verify finds the first; docs/transparency.md)",
                found,
            )
            self._found = found if self._found is None else self._found
            self.changed = self._found
        if not self._place:
            self.changed, self._found = self._found, None
        return self.changed != before
