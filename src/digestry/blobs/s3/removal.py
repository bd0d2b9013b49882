"""The removal of objects: of those that are due, and of those that nothing names."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from digestry.blobs.s3.client import DELETED_AT_ONCE, S3Client
from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.rows import ObjectRows, Removal

_PASSES_A_GRACE: Final = 4

T = TypeVar("T")


class ObjectRemoval:
    """Removes objects of one store. Thread-safe."""

    def __init__(self, config: S3Config, client: S3Client, rows: ObjectRows) -> None:
        self._config = config
        self._client = client
        self._rows = rows
        self._look_at = time.monotonic() + config.grace / _PASSES_A_GRACE

    def remove_due(self) -> int:
        """Remove the objects that are due, in batches, and return how many."""
        removed = 0
        while due := self._rows.removals(DELETED_AT_ONCE):
            done = self._remove(due)
            self._rows.removed(done)
            removed += len(done)
            if len(done) < DELETED_AT_ONCE:
                break  # there are no more, or the rest cannot be removed now
        return removed

    def _remove(self, removals: Sequence[Removal]) -> list[Removal]:
        """Remove some objects, and return those that are gone."""
        for removal in removals:
            if removal.upload_id:
                self._client.abort_upload(removal.key, removal.upload_id)
        left = set(self._client.delete([removal.key for removal in removals]))
        return [removal for removal in removals if removal.key not in left]

    def remove_orphans_if_due(self) -> int:
        """Call :meth:`remove_orphans` a few times in a grace; return how many were removed."""
        if time.monotonic() < self._look_at:
            return 0
        self._look_at = time.monotonic() + self._config.grace / _PASSES_A_GRACE
        return self.remove_orphans()

    def remove_orphans(self) -> int:
        """Remove the objects and multipart uploads that no row names, and return how many.

        Those that are younger than the store's grace stay: their rows may be about to be written. An object
        with a row stays in any case, and what a store has whose prefix begins with this one's. A key can have
        two uploads, if an answer was lost and the upload was begun again: the one without a row is removed,
        though a row has the key.
        """
        oldest = time.time() - self._config.grace
        prefix, is_ours = self._config.objects_prefix, self._config.is_object_key
        objects = (found for found in self._client.objects(prefix) if is_ours(found.key))
        old = (found.key for found in objects if found.modified_at <= oldest)
        removed = 0
        for keys in _batches(old):
            named = self._rows.named(keys)
            if orphans := [key for key in keys if key not in named]:
                removed += len(orphans) - len(self._client.delete(orphans))
        uploads = (upload for upload in self._client.uploads(prefix) if is_ours(upload.key))
        begun = (upload for upload in uploads if upload.started_at <= oldest)
        for some in _batches(begun):
            used = self._rows.uploading([upload.upload_id for upload in some])
            for upload in some:
                if upload.upload_id not in used:
                    self._client.abort_upload(upload.key, upload.upload_id)
                    removed += 1
        return removed


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(itertools.islice(source, DELETED_AT_ONCE)):
        yield batch
