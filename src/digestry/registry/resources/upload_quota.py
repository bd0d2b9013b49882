"""The quota of uploads: room for their bytes, taken while they arrive.

Bytes of unfinished uploads count, and of several uploads at once only so many are taken as there is room for
all of them. Room is taken in steps: an upload that declares much and sends little keeps little from others.
"""

from __future__ import annotations

import contextlib
from typing import Final

from digestry.catalog.quotas import OverQuota
from digestry.catalog.uploads import Upload
from digestry.errors import DigestryError, NotFound
from digestry.registry.error_responses import upload_unknown
from digestry.registry.service import Service

LEAST_STEP: Final = 1 << 20
MOST_STEP: Final = 16 << 20
"""The bounds of the room that is reserved beyond the received bytes: as much as was received; the maximum for
a body of known length, so that one of several racing uploads completes."""


class UploadReservation:
    """The room of one request to an upload whose file has ``began`` bytes. ``length`` is of the body, if
    known."""

    def __init__(self, service: Service, upload: Upload, began: int, length: int | None) -> None:
        self._service = service
        self._upload = upload
        self._began = began
        self._most = service.config.upload_limit if length is None else began + length
        self._step = LEAST_STEP if length is None else MOST_STEP
        self._size = began

    async def check(self, size: int) -> None:
        """Raise :class:`OverQuota` if there is no room for ``size`` bytes now; take none."""
        name = self._upload.repository
        left = await self._service.executors.run(self._service.stores.catalog.bytes_left, name)
        if left is not None and size > left + self._upload.reserved:
            raise over_quota(name, max(0, left))

    async def take(self, size: int) -> None:
        """Take room for ``size`` bytes in all. Raises :class:`OverQuota`, and 404 if the upload was
        cancelled."""
        if size <= self._size:
            return
        step = min(max(size - self._began, self._step), MOST_STEP)
        service, upload = self._service, self._upload
        try:
            self._size = await service.executors.write_volatile(
                service.stores.catalog.reserve, upload, size, max(size, min(self._most, size + step))
            )
        except NotFound as error:
            raise upload_unknown(upload.id, upload.repository) from error

    async def give_back(self, size: int) -> None:
        """Return the unused room of a failed request that left ``size`` bytes in the upload's file."""
        if self._size > size:
            with contextlib.suppress(DigestryError):  # the first error is the one to report
                await self._service.executors.write_volatile(
                    self._service.stores.catalog.release, self._upload, size
                )


def over_quota(name: str, left: int) -> OverQuota:
    """Return the refusal of more bytes than a quota allows."""
    return OverQuota(
        f"the quota of repository {name} has {left} bytes left, and the blob has more",
        hint="delete what is no longer needed, or ask the registry's operator for more",
    )
