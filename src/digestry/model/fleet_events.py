"""The events that webhooks receive beside those of tags (docs/fleet.md, docs/observe.md)."""

from __future__ import annotations

import datetime
from typing import Final, Literal, TypeAlias

import msgspec

from digestry.model.digest import Digest

FleetEventKind: TypeAlias = Literal[
    "affected-started", "last-affected-stopped", "agent-silent", "agent-heard", "upstream-moved"
]

FLEET_EVENTS: Final[tuple[FleetEventKind, ...]] = (
    "affected-started", "last-affected-stopped", "agent-silent", "agent-heard", "upstream-moved",
)  # fmt: skip
MOST_LISTED: Final = 100
"""The most containers, vulnerabilities or agents that one event lists; its numbers count all of them."""


class AffectedContainer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A container that runs an affected image."""

    place: str
    container: str
    since: datetime.datetime
    name: str = ""
    namespace: str = ""
    reference: str | None = None
    digest: Digest | None = None


class AffectedStarted(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Affected containers that started, or that run an image that became known to be affected."""

    containers: int
    images: int
    vulnerabilities: tuple[str, ...] = ()
    listed: tuple[AffectedContainer, ...] = ()


class StoppedVulnerability(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A vulnerability of which no affected container runs any more.

    The last one ended between ``last_end_after`` and ``last_end``, which are equal if the end was seen.
    """

    vulnerability: str
    last_end: datetime.datetime
    last_end_after: datetime.datetime


class LastAffectedStopped(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Vulnerabilities of which the last affected container has ended: silence is never an end."""

    vulnerabilities: int
    listed: tuple[StoppedVulnerability, ...] = ()


class ChangedAgent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An agent that fell silent, or was heard again; ``last`` is when it was heard."""

    agent: str
    place: str
    last: datetime.datetime


class ChangedAgents(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Agents that fell silent, or were heard again."""

    agents: int
    listed: tuple[ChangedAgent, ...] = ()


UPSTREAM_MOVED: Final = "upstream-moved"
"""A tag of another registry, which is observed, moved (docs/observe.md)."""

FleetEventData: TypeAlias = AffectedStarted | LastAffectedStopped | ChangedAgents


class FleetEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An event as it waits for its webhooks. ``data`` is the JSON of a :data:`FleetEventData`, or that of an
    :class:`~digestry.model.observations.UpstreamMove`."""

    id: str
    event: FleetEventKind
    at: datetime.datetime
    subject: str
    data: msgspec.Raw
