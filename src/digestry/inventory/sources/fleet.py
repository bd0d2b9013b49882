"""The source ``fleet``: what agents reported to a registry. No host is asked."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Final

from digestry.client.fleet import Fleet
from digestry.errors import DigestryError
from digestry.inventory.image_reports import as_facts
from digestry.inventory.observation import ContainerObservation, ImageFacts, Note, Observation, Unseen
from digestry.model.fleet_answers import FleetRun, FleetSource
from digestry.model.text import number_of

MOST_SILENT: Final = 1000
"""The most silent places that are named; further ones are counted."""

_SHORT: Final = 12


class ReportedFleet:
    """The containers that run as far as agents reported to the registry at ``host``.

    A container is seen at the time until which its agent is known to have looked. A place that is silent is a
    problem, and so is a registry to which no agent has reported.
    """

    def __init__(self, host: str, fleet: Fleet) -> None:
        self._host = host
        self._fleet = fleet

    @property
    def name(self) -> str:
        return f"fleet:{self._host}"

    def observe(self) -> Iterator[Observation]:
        """See :class:`~digestry.inventory.observation.Source`."""
        try:
            yield from self._places()
        except DigestryError as error:
            # A user who may not see all places may still see where some images run.
            yield Unseen(self.name, f"which places report is not known: {error.message}", error.hint)
        try:
            yield from self._containers()
        except DigestryError as error:
            yield Unseen(self.name, error.message, error.hint)

    def _places(self) -> Iterator[Observation]:
        known: list[FleetSource] = []
        for page in self._fleet.places():
            known += page.sources
        if not known:
            yield Unseen(
                self.name,
                f"no agent has reported what runs to {self._host}",
                "digestry agent reports it (docs/fleet.md)",
            )
            return
        silent = [source for source in known if source.silent]
        for source in silent[:MOST_SILENT]:
            yield Unseen(f"{self.name} {source.place}", _why_silent(source), "look whether its agent runs")
        if len(silent) > MOST_SILENT:
            more = number_of(len(silent) - MOST_SILENT, "more source")
            yield Unseen(self.name, f"{more} that are silent", "digestry fleet silent lists them all")
        heard = [source for source in known if not source.silent]
        if heard:
            oldest = min(heard, key=lambda source: source.confirmed)
            yield Note(
                self.name,
                f"{number_of(len(heard), 'source')} reported; the oldest knowledge is of"
                f" {_of(oldest)}, {_time(oldest.confirmed)}",
            )

    def _containers(self) -> Iterator[ContainerObservation]:
        images: dict[int, ImageFacts] = {}
        for page in self._fleet.runs(with_images=True):
            for image in page.images:
                if image.report is not None and image.number not in images:
                    images[image.number] = as_facts(image.report)
            for run in page.runs:
                yield self._observation(run, images.get(run.image, ImageFacts(None)))

    def _observation(self, run: FleetRun, image: ImageFacts) -> ContainerObservation:
        remarks: tuple[str, ...] = ()
        if run.silent:
            remarks = (f"not known whether it still runs: {run.place} was last heard {_time(run.last_seen)}",)
        return ContainerObservation(
            self.name,
            run.node or run.place,
            run.namespace,
            run.name or run.container[:_SHORT],
            run.container,
            image,
            run.last_seen.replace(microsecond=0),
            remarks,
        )


def _why_silent(source: FleetSource) -> str:
    why = f", {source.problem}" if source.problem else ""
    return (
        f"{source.source} is known until {_time(source.confirmed)} only{why}:"
        f" {number_of(source.running, 'container')} ran then"
    )


def _of(source: FleetSource) -> str:
    return f"{source.source} of {source.place}"


def _time(at: datetime.datetime) -> str:
    return at.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
