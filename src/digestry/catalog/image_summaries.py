"""Summaries of many images: the children of indexes, the sizes of images, and where they were seen running.

Functions on a transaction, each one statement for all digests. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from digestry.catalog import dialect
from digestry.catalog.schema import links, manifest_references, manifests, sightings


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A manifest that an index lists, or an index. ``size`` is its own in bytes."""

    digest: str
    media_type: str
    size: int
    config: str | None


@dataclass(frozen=True, slots=True)
class SeenRunning:
    """Where audits saw an image: the containers at all places, and when it was last seen."""

    containers: int
    places: int
    last_at: int


@dataclass(frozen=True, slots=True)
class Summaries:
    """What is known of some images: ``children`` of indexes, in bytes the ``sizes`` of images with config and
    layers, and which were ``seen`` running."""

    children: Mapping[str, tuple[ImageRow, ...]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    seen: Mapping[str, SeenRunning] = field(default_factory=dict)


def children_of(
    connection: Connection, repository: int, digests: Iterable[str]
) -> dict[str, tuple[ImageRow, ...]]:
    """Return the manifests that each index lists and the repository has."""
    keys = dialect.of(connection).bulk_keys(sorted((repository, digest) for digest in set(digests)), int)
    listed = (
        (manifest_references.c.repository_id == keys.first)
        & (manifest_references.c.parent == keys.second)
        & (manifest_references.c.role == "manifest")
    )
    here = (manifests.c.repository_id == manifest_references.c.repository_id) & (
        manifests.c.digest == manifest_references.c.child
    )
    query = (
        select(
            manifest_references.c.parent,
            manifests.c.digest,
            manifests.c.media_type,
            manifests.c.size,
            manifests.c.config,
        )
        .join_from(keys.table, manifest_references, listed)
        .join(manifests, here)
    )
    found: dict[str, tuple[ImageRow, ...]] = {}
    for row in connection.execute(query):
        child = ImageRow(row.digest, row.media_type, row.size, row.config)
        found[row.parent] = (*found.get(row.parent, ()), child)
    return found


def sizes_of(connection: Connection, repository: int, digests: Iterable[str]) -> dict[str, int]:
    """Return how many bytes the config and the layers of each image have together."""
    keys = dialect.of(connection).bulk_keys(sorted((repository, digest) for digest in set(digests)), int)
    inside = (
        (manifest_references.c.repository_id == keys.first)
        & (manifest_references.c.parent == keys.second)
        & manifest_references.c.role.in_(("config", "layer"))
    )
    linked = (links.c.repository_id == manifest_references.c.repository_id) & (
        links.c.digest == manifest_references.c.child
    )
    query = (
        select(manifest_references.c.parent, func.sum(links.c.size).label("bytes"))
        .join_from(keys.table, manifest_references, inside)
        .join(links, linked)
        .group_by(manifest_references.c.parent)
    )
    return {row.parent: int(row.bytes) for row in connection.execute(query)}


def seen_running(connection: Connection, repository: str, digests: Iterable[str]) -> dict[str, SeenRunning]:
    """Return where each digest was seen running, of those that were."""
    keys = dialect.of(connection).bulk_keys(sorted((repository, digest) for digest in set(digests)), str)
    query = (
        select(
            sightings.c.digest,
            func.sum(sightings.c.containers).label("containers"),
            func.count().label("places"),
            func.max(sightings.c.last_at).label("last_at"),
        )
        .join_from(
            keys.table,
            sightings,
            (sightings.c.repository == keys.first) & (sightings.c.digest == keys.second),
        )
        .group_by(sightings.c.digest)
    )
    return {
        row.digest: SeenRunning(int(row.containers), row.places, row.last_at)
        for row in connection.execute(query)
    }
