"""The removal of uploads that clients have abandoned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from digestry.catalog import clock
from digestry.catalog.uploads import Upload
from digestry.errors import Conflict, StorageError
from digestry.registry.observability import audit_events
from digestry.registry.observability.audit_log import LogEntry
from digestry.registry.stores import Stores


class UploadSweep:
    """Drops uploads after ``timeout`` seconds without a byte, with a line in the audit log each."""

    def __init__(
        self, stores: Stores, note: Callable[[Sequence[LogEntry]], None], *, timeout: float, now: clock.Clock
    ) -> None:
        self.clocks = clock.Clocks(now)
        self._stores = stores
        self._note = note
        self._timeout = timeout
        self._now = now

    def run(self) -> int:
        """Drop stale uploads, and files that no upload owns; return how many. Blocks."""
        dropped = 0
        if self.clocks.jump() > self._timeout / 4:
            self._stores.catalog.age_uploads_from_now()  # they look older than they are
        oldest = self._now() - int(self._timeout * clock.SECOND)
        for upload in self._stores.catalog.stale_uploads(oldest):
            now = self._stores.catalog.upload(upload.repository, upload.id)
            if now is not None and now.offset != upload.offset:
                continue  # its client continued it while others were removed
            try:
                self._stores.blobs.discard(upload.id)
            except Conflict:
                continue  # somebody writes to it right now
            if self._stores.catalog.end_upload(upload.id):  # else another process sweeps too
                self._note_dropped(upload, "no client continued it")
                dropped += 1
        known = self._stores.catalog.upload_ids()
        return dropped + len(self._stores.blobs.sweep_ingests(self._timeout, keep=known))

    def drop_replaced(self, upload: Upload) -> None:
        """Remove the file of an upload that has ended to make room for another user's. Blocks."""
        with contextlib.suppress(Conflict, StorageError):  # its writer removes it, or the sweep does
            self._stores.blobs.discard(upload.id)
        self._note_dropped(upload, "the user with the most uploads under way makes room for others")

    def _note_dropped(self, upload: Upload, reason: str) -> None:
        entry = audit_events.of_itself(
            "uploads",
            "drop-upload",
            repository=upload.repository,
            upload=upload.id,
            size=upload.offset,
            reason=reason,
        )
        self._note([entry])
