"""The checks of a report that its form alone does not make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from digestry.errors import CallerError
from digestry.model.fleet import (
    MOST_ENTRIES,
    MOST_RUNS,
    MOST_SOURCES,
    FleetReport,
    RunReport,
    Snapshot,
    Started,
)
from digestry.model.platform import Platform

MOST_IMAGES: Final = MOST_ENTRIES
_LONGEST_PLATFORM: Final = 64


def check_report(report: FleetReport) -> None:
    """Raise :class:`CallerError` for a report that is too large, or names an image that it does not have."""
    if len(report.images) > MOST_IMAGES:
        raise CallerError(f"{len(report.images)} images in one report; {MOST_IMAGES} are the most")
    snapshots = [entry for entry in report.entries if isinstance(entry, Snapshot)]
    listed = sum(len(entry.runs) for entry in snapshots)
    if listed > MOST_RUNS:
        raise CallerError(f"{listed} containers in the snapshots of one report; {MOST_RUNS} are the most")
    if len(sources_of(report)) > MOST_SOURCES:
        raise CallerError(
            f"a report about {len(sources_of(report))} sources; {MOST_SOURCES} are the most in one"
        )
    for key, image in report.images.items():
        if image.platform is not None and not _is_short(image.platform):
            raise CallerError(
                f"the platform of the image {key[:64]!r} has a text of over {_LONGEST_PLATFORM} characters,"
                " or one with control characters"
            )
    for run in runs_of(report):
        if run.image not in report.images:
            raise CallerError(
                f"container {run.container[:64]!r} has the image {run.image[:64]!r}, which is not among the"
                " report's images"
            )


def _is_short(platform: Platform) -> bool:
    """Return whether all texts of a platform are short, and have printable characters alone."""
    texts = (platform.architecture, platform.os, platform.variant or "", platform.os_version or "")
    features = platform.os_features or ()
    return len(features) <= _LONGEST_PLATFORM and all(
        len(text) <= _LONGEST_PLATFORM and text.isprintable() for text in (*texts, *features)
    )


def runs_of(report: FleetReport) -> Iterator[RunReport]:
    """Yield all containers of a report that started, or that a snapshot has."""
    for entry in report.entries:
        if isinstance(entry, Started):
            yield entry.run
        elif isinstance(entry, Snapshot):
            yield from entry.runs


def sources_of(report: FleetReport) -> set[str]:
    """Return the names of all sources that a report is about."""
    return {entry.source for entry in report.entries} | {state.source for state in report.sources}
