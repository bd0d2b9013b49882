"""Summaries of many images: the children of indexes, and the sizes of images.

Functions on a transaction, each one statement for all digests. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from digestry.catalog import dialect
from digestry.catalog.running_images import RunningImage
from digestry.catalog.schema import links, manifest_references, manifests


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A manifest that an index lists, or an index. ``size`` is its own in bytes."""

    digest: str
    media_type: str
    size: int
    config: str | None


@dataclass(frozen=True, slots=True)
class Summaries:
    """What is known of some images: ``children`` of indexes, in bytes the ``sizes`` of images with config and
    layers, and which are ``running``."""

    children: Mapping[str, tuple[ImageRow, ...]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    running: Mapping[str, RunningImage] = field(default_factory=dict)


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
