"""Declared copies, one after the other: after a failure the others are still copied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from digestry.copy.copy import CopyOptions, CopyResult
from digestry.copy.places import Surroundings
from digestry.copy.request import CopyRequest, run_copy
from digestry.errors import DigestryError


@dataclass(frozen=True, slots=True)
class Synced:
    """The outcome of one declared copy: ``result``, or the ``error`` that ended it."""

    request: CopyRequest
    result: CopyResult | None
    error: DigestryError | None = None

    @property
    def moved(self) -> int:
        """How many images of the target are new or others than before."""
        if self.result is None:
            return 0
        return sum(image.before != image.digest for image in self.result.images)


def sync(
    copies: Iterable[tuple[CopyRequest, CopyOptions]],
    around: Surroundings,
    *,
    dry_run: bool = False,
    parallel: int = 4,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Synced]:
    """Run ``copies``, and yield the outcome of each when it has ended. ``tell`` is as for a copy."""
    for request, declared in copies:
        options = dataclasses.replace(declared, dry_run=dry_run, parallel=parallel)
        try:
            yield Synced(request, run_copy(request, around, options, tell=tell))
        except DigestryError as error:
            yield Synced(request, None, error)
