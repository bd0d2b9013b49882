"""The timelines of tags: where each tag pointed over time, and which containers run each of these images."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError, InvalidReference
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.reference import Reference

MOST_TAGS: Final = 200
"""Tags whose history is requested; those of the worst containers come first."""

_PARALLEL: Final = 8


@dataclass(frozen=True, slots=True)
class Era:
    """A time, ``since`` to ``until`` (None: now), when a tag pointed to ``digest`` (None: was deleted).

    ``findings`` are the containers that run it: of the digest's latest era alone, if it has several.
    """

    digest: Digest | None
    since: datetime.datetime
    until: datetime.datetime | None
    findings: tuple[ContainerFinding, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One tag: its eras, the oldest first, and the containers that run an image that it never pointed to.

    ``problem`` is why there are no eras.
    """

    tag: Reference
    eras: tuple[Era, ...]
    elsewhere: tuple[ContainerFinding, ...] = ()
    problem: str = ""


def timelines(report: AuditReport, queries: RegistryQueries) -> list[Timeline]:
    """Return the timelines of the tags in ``report``. An error becomes a timeline's ``problem``."""
    tags: dict[Reference, list[ContainerFinding]] = {}
    others: dict[Reference, list[ContainerFinding]] = {}
    for finding in report.findings:
        repository = None
        tag = _tag(finding)
        if tag is not None:
            repository = tag.repository_only()
            tags.setdefault(tag, []).append(finding)
        elif finding.identity is not None:
            repository = finding.identity.repository
        if repository is not None:
            others.setdefault(repository, []).append(finding)
    chosen = list(tags)[:MOST_TAGS]

    def one(tag: Reference) -> Timeline:
        return _timeline(queries, tag, tags[tag], others[tag.repository_only()])

    with ThreadPoolExecutor(_PARALLEL, "timeline") as pool:
        return list(pool.map(one, chosen))


def _tag(finding: ContainerFinding) -> Reference | None:
    seen = finding.container
    if seen.image.reference is None or not seen.image.registry_named:
        return None
    try:
        reference = Reference.parse(seen.image.reference).or_latest()
    except InvalidReference:
        return None
    return None if reference.digest is not None else reference


def _timeline(
    queries: RegistryQueries, tag: Reference, own: list[ContainerFinding], near: list[ContainerFinding]
) -> Timeline:
    try:
        events = queries.tag_history(tag.repository_only(), tag.tag or "")
    except DigestryError as error:
        return Timeline(tag, (), tuple(own), f"its history could not be read: {error.message}")
    if events is None:
        return Timeline(tag, (), tuple(own), f"{tag.host} keeps no tag history")
    if not events:
        return Timeline(tag, (), tuple(own), "its registry never had this tag")
    return _eras(tag, sorted(events, key=lambda event: event.at), own, near)


def _eras(
    tag: Reference, events: Sequence[TagEvent], own: list[ContainerFinding], near: list[ContainerFinding]
) -> Timeline:
    last = {event.to_digest: position for position, event in enumerate(events)}
    running: dict[int, list[ContainerFinding]] = {}
    placed: set[int] = set()
    for finding in near:
        position = _position(finding, last)
        if position is not None:
            running.setdefault(position, []).append(finding)
            placed.add(id(finding))
    eras = tuple(
        Era(
            event.to_digest,
            event.at,
            events[position + 1].at if position + 1 < len(events) else None,
            tuple(running.get(position, ())),
        )
        for position, event in enumerate(events)
    )
    return Timeline(tag, eras, tuple(finding for finding in own if id(finding) not in placed))


def _position(finding: ContainerFinding, last: dict[Digest | None, int]) -> int | None:
    """Return the position of the latest era in which the tag pointed to the image of ``finding``."""
    if finding.identity is None:
        return None
    runs = {finding.identity.running, *finding.identity.closure}
    known = [last[digest] for digest in runs if digest in last]
    return max(known, default=None)
