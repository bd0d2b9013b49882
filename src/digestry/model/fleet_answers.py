"""The fleet: the wire forms of what is read from ``_digestry/fleet/…`` (docs/http-api.md)."""

from __future__ import annotations

import datetime
from typing import Final, Literal, TypeAlias

import msgspec

from digestry.model.digest import Digest
from digestry.model.fleet import ImageReport

FleetState: TypeAlias = Literal["affected", "unknown", "not_assessed", "fixed", "not_affected", "unjudged"]
"""The audit's state of an image; ``unjudged``: the registry has not judged it yet."""

MOST_ROWS: Final = 1000
"""The most rows in one answer."""
MOST_POINTS: Final = 500
"""The most points of a timeline."""


class FleetVerdict(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The audit's judgement of an image.

    ``vulnerabilities`` are those that affect it; ``layer`` is the layer that the advisory is about, ``base``
    the image (``name:tag@digest``) that it came with. ``fixed`` is the way out, an image's reference;
    ``reasons`` are the audit's. The image has been in its state since ``since``, or for longer if that is
    None.
    """

    state: FleetState
    vulnerabilities: tuple[str, ...] = ()
    layer: Digest | None = None
    base: str = ""
    fixed: str = ""
    advice: str = ""
    tag: str = ""
    reasons: tuple[str, ...] = ()
    foreign: str = ""
    since: datetime.datetime | None = None


class FleetImage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An image that runs, or ran. ``report`` is there only if it was asked for."""

    number: int
    reference: str | None
    digest: Digest | None
    kind: str
    verdict: FleetVerdict
    judged_at: datetime.datetime | None = None
    report: ImageReport | None = None


class FleetRun(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A container from one start to its end.

    ``image`` is the number of an image of the same answer. ``until`` is None while it runs, as far as is
    known; it ended between ``until_after`` and ``until``, which are equal if the end was seen.
    ``last_seen`` is until when it is known to have run. ``silent``: it has no end, and its place no longer
    reports, so that nobody knows whether it still runs.
    """

    number: int
    place: str
    source: str
    container: str
    image: int
    from_: datetime.datetime = msgspec.field(name="from")
    last_seen: datetime.datetime
    agent: str
    name: str = ""
    namespace: str = ""
    node: str = ""
    workload: str = ""
    until: datetime.datetime | None = None
    until_after: datetime.datetime | None = None
    silent: bool = False


class FleetRuns(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A page of runs, those that run first, then the latest first, with their images. ``total`` counts all
    of the pages, a million at the most, ``running`` those that run; ``next`` is the parameter ``after`` of
    the next page. ``limited``: only the images of some repositories are counted, which the user may audit."""

    runs: tuple[FleetRun, ...]
    images: tuple[FleetImage, ...]
    total: int
    running: int
    next: str = ""
    limited: bool = False


class FleetAgent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An agent. ``clock_ahead`` is in seconds. ``silent``: it should have reported since, and did not."""

    id: str
    place: str
    version: str
    user: str
    first: datetime.datetime
    last: datetime.datetime
    interval: int
    clock_ahead: float = 0.0
    silent: bool = False
    stopped: datetime.datetime | None = None


class FleetSource(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is looked at in a place: known until ``confirmed``; ``running`` counts its containers."""

    place: str
    source: str
    confirmed: datetime.datetime
    running: int
    silent: bool = False
    problem: str = ""
    problem_since: datetime.datetime | None = None


class FleetGap(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A time of which nobody knows what started and stopped in a source."""

    place: str
    source: str
    from_: datetime.datetime = msgspec.field(name="from")
    until: datetime.datetime
    reason: str


class FleetPlaces(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The agents and what they look at, the longest silent first; ``next`` as of :class:`FleetRuns`."""

    agents: tuple[FleetAgent, ...] = ()
    sources: tuple[FleetSource, ...] = ()
    gaps: tuple[FleetGap, ...] = ()
    next: str = ""


class FleetSummary(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How many containers run, by state; how many of them in places that are silent.

    ``oldest_affected`` is when the oldest affected one started; ``limited`` as of :class:`FleetRuns`.
    ``unknown_hosts`` are the registries that were not asked about unknown images, with the containers of
    each, the most first: other registries, or names of this one that it was not told.
    """

    at: datetime.datetime
    containers: dict[FleetState, int]
    images: dict[FleetState, int]
    silent_containers: int
    places: int
    silent_places: int
    agents: int
    silent_agents: int
    oldest_affected: datetime.datetime | None = None
    limited: bool = False
    unknown_hosts: dict[str, int] = {}


class FleetChange(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A start or an end, at ``at``."""

    at: datetime.datetime
    change: Literal["started", "stopped"]
    run: FleetRun


class FleetChanges(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A page of changes, the oldest first, with the images of their runs; the rest as of
    :class:`FleetRuns`."""

    changes: tuple[FleetChange, ...]
    images: tuple[FleetImage, ...]
    total: int
    next: str = ""
    limited: bool = False


class TimelinePoint(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How many containers ran from ``at`` on."""

    at: datetime.datetime
    containers: int


class FleetTimeline(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How many affected containers ran over time, a point for each change, or for each of equal steps if
    there are too many (``exact`` is False then).

    ``first`` is when the first one started, ``last_end`` when the last one ended: None while one runs. It
    is between ``last_end_after`` and ``last_end`` if nobody saw the end. ``unknown`` counts those without an
    end in places that are silent: their end is not known.
    """

    points: tuple[TimelinePoint, ...]
    exact: bool
    running: int
    unknown: int
    total: int
    first: datetime.datetime | None = None
    last_end: datetime.datetime | None = None
    last_end_after: datetime.datetime | None = None
    limited: bool = False
