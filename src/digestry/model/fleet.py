"""The fleet: the wire forms of ``_digestry/fleet/reports``, which agents send (docs/http-api.md).

The registry and the agent, which never import each other, both find them here.

An agent has an ID of its own and numbers what happens, its entries, from 1. A report has consecutive
entries; the registry records each number once and in order, so that a report may be sent again. Times are by
the agent's clock; ``sent_at`` lets the registry correct them. A report without entries is a heartbeat:
everything that ran still runs.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from digestry.model.digest import Digest
from digestry.model.json_types import prepared
from digestry.model.platform import Platform

MOST_ENTRIES: Final = 5000
"""The most entries in one report."""
MOST_SOURCES: Final = 64
"""The most sources that one report is about."""
MOST_RUNS: Final = 5000
"""The most containers in all snapshots of one report."""
LARGEST_REPORT: Final = 8 << 20
"""In bytes."""
LONGEST_TEXT: Final = 1024
"""The most characters of a name, a problem or a reference."""
MOST_CLAIMS: Final = 64
"""The most digests that one image is reported with."""
EVENT_START: Final = "start "
"""The beginning of the ``instance`` of a start that is known by its event alone, because the container was
gone; the event's nanoseconds since 1970 follow. Another observer may know the engine's own words for it."""
WRITTEN_START: Final = "start at "
"""The beginning of the ``instance`` of a start of which the engine's own time is known, but not whether it
was the first; that time in nanoseconds since 1970 follows. Another observer may know it by another name."""
SHORTEST_INTERVAL: Final = 1
LONGEST_INTERVAL: Final = 3600
"""Seconds between two reports of an agent at the most, which it promises."""
SILENT_AFTER: Final = 3
"""An agent is silent if nothing was received for so many of its intervals."""

_PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*\Z"
Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT, pattern=_PRINTABLE)]
PlaceName = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
SourceName = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
ContainerId = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
AgentId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Time = Annotated[datetime.datetime, msgspec.Meta(tz=True)]


class ClaimReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A digest that an engine gave for a container's image: an ``inventory.observation.Claim``."""

    digest: Digest
    kind: Literal["index", "manifest", "config", "unknown"] = "unknown"
    repository: Text | None = None
    read_from: Text = ""
    found_by: Literal["repo-digest", "image-id", "inventory"] = "inventory"
    obtained: bool = False
    rewritten: bool = False


class AbbreviationReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The beginning of a digest, in hex digits: an ``inventory.observation.Abbreviation``."""

    encoded: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{12,63}\Z")]
    read_from: Text = ""
    found_by: Literal["repo-digest", "image-id", "inventory"] = "inventory"


class ImageReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A container's image as its engine describes it: an ``inventory.observation.ImageFacts``.

    ``inventory.image_reports`` converts one to the other.
    """

    reference: Text | None = None
    claims: Annotated[tuple[ClaimReport, ...], msgspec.Meta(max_length=MOST_CLAIMS)] = ()
    image_id: Digest | None = None
    platform_manifest: Digest | None = None
    platform: Platform | None = None
    platform_assumed: bool = False
    registry_named: bool = True
    abbreviations: Annotated[tuple[AbbreviationReport, ...], msgspec.Meta(max_length=MOST_CLAIMS)] = ()


class RunReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A container since one of its starts.

    ``instance`` tells this start from the container's others (``first``, Docker's ``StartedAt`` of a further
    one, the process of a task …): it is the same whoever reports it. ``image`` is a key of the
    report's images.
    """

    container: ContainerId
    instance: Text
    image: Text
    started_at: Time
    name: Text = ""
    namespace: Text = ""
    node: Text = ""
    workload: Text = ""


class Started(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, tag="started"):
    """A container of ``source`` started."""

    source: SourceName
    run: RunReport


class Stopped(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, tag="stopped"):
    """A container of ``source`` stopped at ``at``.

    An empty ``instance`` means whichever start of it is known to run. ``after`` is there if nobody saw the
    end: it is between ``after`` and ``at``.
    """

    source: SourceName
    container: ContainerId
    at: Time
    instance: Text = ""
    after: Time | None = None


class Snapshot(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, tag="snapshot"):
    """All that runs in ``source`` at ``at``, or a part of it: parts have the same ``id``.

    With the ``last`` part, every other run of the source that started before ``at`` has ended.
    """

    source: SourceName
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,32}\Z")]
    at: Time
    runs: Annotated[tuple[RunReport, ...], msgspec.Meta(max_length=MOST_RUNS)] = ()
    last: bool = True


class Gap(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, tag="gap"):
    """The agent does not know what started and stopped in ``source`` between ``from_`` and ``until``.

    For example because its buffer was full, or the engine's events could not be read.
    """

    source: SourceName
    from_: Time = msgspec.field(name="from")
    until: Time
    reason: Text


Entry: TypeAlias = Started | Stopped | Snapshot | Gap


class SourceReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The state of a source: until when the agent knows all that ran in it, and what prevents that now.

    ``confirmed_at`` counts once all entries until then are received.
    """

    source: SourceName
    confirmed_at: Time | None = None
    problem: Text = ""


class FleetReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The body of a report: the entries from number ``first`` on.

    ``place`` is the host or cluster, which the agent's token must allow: the token's own place, or one
    within it, such as ``cluster/node``. ``interval`` is the most seconds until the next report. ``stopping``:
    the agent ends on purpose. ``behind``: entries that wait in its buffer after these. ``ahead``: the
    seconds by which the agent's clock is ahead of the registry's, as an earlier receipt has told it.
    """

    agent: AgentId
    place: PlaceName
    version: Text
    interval: Annotated[int, msgspec.Meta(ge=SHORTEST_INTERVAL, le=LONGEST_INTERVAL)]
    sent_at: Time
    first: Sequence = 1
    images: dict[str, ImageReport] = {}
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=MOST_ENTRIES)] = ()
    sources: Annotated[tuple[SourceReport, ...], msgspec.Meta(max_length=MOST_SOURCES)] = ()
    stopping: bool = False
    behind: Sequence = 0
    ahead: Annotated[float, msgspec.Meta(ge=-1e10, le=1e10)] | None = None


class FleetReceipt(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The response to a report: everything up to entry ``received`` is recorded for good.

    ``time`` is the registry's. ``resynchronize``: entries before the report's first are not there, because
    the registry was restored from a backup, or the agent lost its numbers: the agent sends a snapshot of each
    source.
    """

    received: int
    time: datetime.datetime
    resynchronize: bool = False


def event_of_start(instance: str) -> int | None:
    """Return when the event was that a start is named by (:data:`EVENT_START`), in microseconds since 1970;
    None for a start with a name of the engine's."""
    return _microseconds(instance, EVENT_START)


def written_time_of_start(instance: str) -> int | None:
    """Return the engine's own time of a start that is named by it (:data:`WRITTEN_START`), in microseconds
    since 1970; None for a start with another name."""
    return _microseconds(instance, WRITTEN_START)


def _microseconds(instance: str, beginning: str) -> int | None:
    number = instance.removeprefix(beginning)
    if number == instance or not (number.isascii() and number.isdigit() and len(number) <= 19):
        return None
    return int(number) // 1000


def check_place(place: str) -> str:
    """Return ``place`` if it can be the name of a host or cluster. Raises ValueError."""
    try:
        return msgspec.convert(place, prepared(PlaceName))
    except msgspec.ValidationError as error:
        raise ValueError(f"{place!r} cannot be a place: 1 to 256 printable characters") from error


def within(place: str, allowed: str) -> bool:
    """Return whether a token for the place ``allowed`` may report for ``place``."""
    return place == allowed or place.startswith(f"{allowed}/")
