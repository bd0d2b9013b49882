"""Recording of sightings: registries learn which of their digests run where, so that they keep them.

For any number of containers, each digest is reported once for each place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from digestry.audit.findings import AuditReport
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.remediation import NO_ORIGINS, Origins
from digestry.errors import DigestryError
from digestry.inventory.observation import ContainerObservation
from digestry.model.sightings import MOST_CONTAINERS, SightingReport, SightingsReceipt, as_place


@dataclass(frozen=True, slots=True)
class RecordingOutcome:
    """The outcome of recording at one registry: its receipt (``noted``), the ``failure``, or neither if it
    keeps no sightings."""

    host: str
    noted: SightingsReceipt | None = None
    failure: DigestryError | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """All registries that were to record something, by name, and how many containers run ``nothing_known``:
    nothing that any registry is known to have."""

    outcomes: tuple[RecordingOutcome, ...]
    nothing_known: int


def record(report: AuditReport, queries: RegistryQueries, origins: Origins = NO_ORIGINS) -> Recording:
    """Report to each registry which of its digests run where. A registry that fails is in the result, and
    raises nothing.

    ``origins`` are the origins of the sources, by name.
    """
    running, nothing_known = sightings_of_report(report, origins)
    return Recording(
        tuple(_tell(queries, host, sightings) for host, sightings in sorted(running.items())), nothing_known
    )


def _tell(queries: RegistryQueries, host: str, sightings: list[SightingReport]) -> RecordingOutcome:
    try:
        return RecordingOutcome(host, queries.record(host, sightings))
    except DigestryError as error:
        return RecordingOutcome(host, failure=error)


def sightings_of_report(
    report: AuditReport, origins: Origins = NO_ORIGINS
) -> tuple[dict[str, list[SightingReport]], int]:
    """Return the sightings for each registry, ordered by repository; and the number of containers whose image
    no registry confirmed."""
    identities: dict[int, ImageIdentity] = {}
    counts: Counter[tuple[int, str]] = Counter()
    places = _Places(origins)
    nothing_known = 0
    for finding in report.findings:
        identity = finding.identity
        if not finding.container.runs:
            continue
        if identity is None or not identity.confirmed:
            nothing_known += 1
            continue
        # The containers of one image share one identity.
        identities[id(identity)] = identity
        counts[id(identity), places.of(finding.container)] += 1
    together: Counter[tuple[str, str, str, str]] = Counter()
    digests = {}
    for (key, place), containers in counts.items():
        identity = identities[key]
        repository = identity.repository
        for digest in {identity.running, identity.manifest or identity.running}:
            digests[str(digest)] = digest
            together[repository.host, repository.repository, str(digest), place] += containers
    running: dict[str, list[SightingReport]] = {}
    for (host, name, text, place), containers in sorted(together.items()):
        sighting = SightingReport(name, digests[text], place, min(containers, MOST_CONTAINERS))
        running.setdefault(host, []).append(sighting)
    return running, nothing_known


class _Places:
    """The names of places: a cluster's namespace, else a host, else the source's name."""

    def __init__(self, origins: Mapping[str, str]) -> None:
        self._origins = origins
        self._known: dict[tuple[str, str, str], str] = {}

    def of(self, seen: ContainerObservation) -> str:
        key = seen.source, seen.host, seen.namespace
        place = self._known.get(key)
        if place is None:
            place = self._known[key] = as_place(self._name(*key))
        return place

    def _name(self, source: str, host: str, namespace: str) -> str:
        kind, _, where = self._origins.get(source, source).partition(":")
        if kind != "kubernetes":
            return host or source
        cluster = source if source in self._origins else where.partition("?")[0] or kind
        return f"{cluster}/{namespace}"
