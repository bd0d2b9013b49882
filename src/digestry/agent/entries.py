"""Entries of reports, made of the changes that followers tell."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from digestry.inventory.image_reports import as_report
from digestry.inventory.observation import ImageFacts
from digestry.inventory.runs import AllRuns, Run, RunChange, RunStarted, RunStopped, Unobserved
from digestry.model.descriptor import encode_hook
from digestry.model.fleet import (
    LONGEST_TEXT,
    Entry,
    Gap,
    ImageReport,
    RunReport,
    Snapshot,
    Started,
    Stopped,
)

RUNS_IN_PART: Final = 200
"""The runs in one part of a snapshot."""

_LONGEST_ID: Final = 256
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class EntryMaker:
    """Makes the entries of one source, and collects the images that they name in :attr:`images`."""

    def __init__(self, source: str) -> None:
        self._source = text_of(source, _LONGEST_ID)
        self.images: dict[str, ImageReport] = {}
        self._known: tuple[ImageFacts, str] | None = None

    def entries(self, changes: Iterable[RunChange]) -> Iterator[Entry]:
        """Yield the entries for ``changes``, in their order."""
        for change in changes:
            if isinstance(change, RunStarted):
                yield Started(self._source, self._run(change.run))
            elif isinstance(change, RunStopped):
                yield Stopped(
                    self._source,
                    text_of(change.container, _LONGEST_ID),
                    change.at,
                    text_of(change.instance),
                    change.after,
                )
            elif isinstance(change, AllRuns):
                yield from self._snapshot(change)
            elif isinstance(change, Unobserved):
                yield Gap(self._source, change.since, change.until, text_of(change.reason))

    def _snapshot(self, change: AllRuns) -> Iterator[Snapshot]:
        identity = os.urandom(8).hex()
        runs = change.runs
        for start in range(0, max(1, len(runs)), RUNS_IN_PART):
            part = tuple(map(self._run, runs[start : start + RUNS_IN_PART]))
            yield Snapshot(self._source, identity, change.at, part, last=start + RUNS_IN_PART >= len(runs))

    def _run(self, run: Run) -> RunReport:
        return RunReport(
            container=text_of(run.container, _LONGEST_ID),
            instance=text_of(run.instance),
            image=self._image(run.image),
            started_at=run.started_at,
            name=text_of(run.name),
            namespace=text_of(run.namespace),
            node=text_of(run.node),
            workload=text_of(run.workload),
        )

    def _image(self, image: ImageFacts) -> str:
        """Return the key of an image in a report: the hash of what is reported of it."""
        if self._known is not None and self._known[0] is image:
            return self._known[1]
        report = as_report(image)
        if report.reference is not None:
            report = msgspec.structs.replace(report, reference=text_of(report.reference))
        encoded = msgspec.json.encode(report, enc_hook=encode_hook)
        key = hashlib.blake2b(encoded, digest_size=12).hexdigest()
        self.images[key] = report
        self._known = image, key
        return key


def text_of(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return ``text`` as a report may have it: without control characters, and not too long."""
    return _CONTROL.sub("?", text)[:longest]
