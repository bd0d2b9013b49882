"""Liveness: the SQL conditions under which content is kept.

Every inner question is one that an index answers (docs/adr/0007).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, and_, exists, or_, select, true

from digestry.catalog import clock
from digestry.catalog.expired_tags import seen_running
from digestry.catalog.fleet_schema import fleet_image_digests, fleet_runs, fleet_sources
from digestry.catalog.observation_schema import kept_observations, observed_moves
from digestry.catalog.retention_rules import Retention
from digestry.catalog.schema import (
    journal,
    leases,
    links,
    manifest_references,
    manifests,
    repositories,
    sightings,
    upstream_tags,
)
from digestry.catalog.schema import tags as tag_rows
from digestry.catalog.tag_moves import RepositoryKey

TABLES: Final = tuple(
    table.name
    for table in (
        tag_rows,
        manifests,
        manifest_references,
        links,
        leases,
        journal,
        sightings,
        upstream_tags,
        fleet_image_digests,
        fleet_runs,
        fleet_sources,
        observed_moves,
        kept_observations,
    )
)
"""The tables that decide what is removed."""

_PARENT: Final = manifests.alias("parent")  # once: to make one takes longer than to ask
_SUBJECT: Final = manifests.alias("subject")
_PARTS: Final = ("layer", "config")


def manifest(key: RepositoryKey, retention: Retention, now: int) -> ColumnElement[bool]:
    """Return whether a row of ``manifests`` is held: directly, or by another manifest that can be pulled."""
    listed = _needed(manifests, manifest_references.c.role == "manifest")
    refers = (
        exists()
        .where(
            _SUBJECT.c.repository_id == manifests.c.repository_id,
            _SUBJECT.c.digest == manifests.c.subject,
            _SUBJECT.c.deleted_at.is_(None),
        )
        .correlate(manifests)
    )
    return or_(alone(key, retention, now), listed, refers, about_part())


def about_part(*where: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether a row of ``manifests``, such as an advisory, refers to a layer or config of an image
    that can be pulled, in any repository for which ``where`` holds. It does not hold that image."""
    is_manifest = (
        exists()
        .where(
            _SUBJECT.c.repository_id == manifests.c.repository_id, _SUBJECT.c.digest == manifests.c.subject
        )
        .correlate(manifests)
    )
    in_image = (
        exists()
        .where(
            manifest_references.c.repository_id == repositories.c.id,
            manifest_references.c.child == manifests.c.subject,
            manifest_references.c.role.in_(_PARTS),
            _PARENT.c.repository_id == manifest_references.c.repository_id,
            _PARENT.c.digest == manifest_references.c.parent,
            _PARENT.c.deleted_at.is_(None),
            # Two that refer to a layer, and have it too, would hold each other.
            _PARENT.c.subject.is_(None),
        )
        .correlate(manifests, repositories)
    )
    # One look into an index for each repository: the index begins with the repository.
    has_part = exists().where(in_image, *where).select_from(repositories).correlate(manifests)
    # In this order: hardly any subject is no manifest.
    return and_(manifests.c.subject.is_not(None), ~is_manifest, has_part)


def alone(key: RepositoryKey, retention: Retention, now: int) -> ColumnElement[bool]:
    """Return whether a row of ``manifests`` is held directly: for reasons other than another manifest."""
    tagged = exists().where(tag_rows.c.repository_id == key.row, tag_rows.c.digest == manifests.c.digest)
    recent: ColumnElement[bool] = true()
    left: ColumnElement[bool] = true()
    if retention.untagged is not None:
        since = now - int(retention.untagged * clock.SECOND)
        recent = manifests.c.pushed_at > since
        left = exists().where(
            journal.c.repository == key.name,
            journal.c.from_digest == manifests.c.digest,
            journal.c.at > since,
        )
    return or_(
        recent,
        tagged,
        leased(manifests.c.digest, now),
        left,
        seen_running(manifests.c.digest, key, retention, now, beside=manifests.c.digest),
        _kept(key, now),
    )


def _kept(key: RepositoryKey, now: int) -> ColumnElement[bool]:
    """Return whether a row of ``manifests`` was observed in another registry, and is to be kept."""
    kept, moves = kept_observations.c, observed_moves.c
    in_time = or_(kept.duration.is_(None), moves.at > now - kept.duration)
    here = exists().where(moves.repository == key.name, kept.repository == key.name, in_time)
    # One look into an index for each.
    return or_(
        here.where(moves.to_digest == manifests.c.digest).correlate(manifests),
        here.where(moves.from_digest == manifests.c.digest).correlate(manifests),
    )


def link() -> ColumnElement[bool]:
    """Return whether a row of ``links`` is needed by a manifest of its repository that can be pulled."""
    return _needed(links)


def _needed(table: Table, *how: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether a manifest that can be pulled refers to the digest of a row of ``table``."""
    return (
        exists()
        .where(
            manifest_references.c.repository_id == table.c.repository_id,
            manifest_references.c.child == table.c.digest,
            *how,
            _PARENT.c.repository_id == manifest_references.c.repository_id,
            _PARENT.c.digest == manifest_references.c.parent,
            _PARENT.c.deleted_at.is_(None),
        )
        .correlate(table)
    )


def leased(digest: ColumnElement[str], now: int) -> ColumnElement[bool]:
    """Return whether that content is leased."""
    return exists().where(leases.c.digest == digest, leases.c.expires_at > now)


def holders(connection: Connection, repository: int, digests: set[str]) -> set[str]:
    """Return the manifests that can be pulled and hold one of these: the indexes, the subjects, and the
    images whose layer or config is a subject."""
    chunk = list(digests)
    listing = select(_PARENT.c.digest).where(
        manifest_references.c.repository_id == repository,
        manifest_references.c.child.in_(chunk),
        manifest_references.c.role == "manifest",
        _PARENT.c.repository_id == repository,
        _PARENT.c.digest == manifest_references.c.parent,
        _PARENT.c.deleted_at.is_(None),
    )
    subjects = select(_PARENT.c.digest).where(
        manifests.c.repository_id == repository,
        manifests.c.digest.in_(chunk),
        manifests.c.deleted_at.is_(None),
        _PARENT.c.repository_id == repository,
        _PARENT.c.digest == manifests.c.subject,
        _PARENT.c.deleted_at.is_(None),
    )
    images = select(_PARENT.c.digest).where(
        manifests.c.repository_id == repository,
        manifests.c.digest.in_(chunk),
        manifests.c.deleted_at.is_(None),
        manifest_references.c.repository_id == repository,
        manifest_references.c.child == manifests.c.subject,
        manifest_references.c.role.in_(_PARTS),
        _PARENT.c.repository_id == repository,
        _PARENT.c.digest == manifest_references.c.parent,
        _PARENT.c.deleted_at.is_(None),
    )
    queries = listing, subjects, images
    return {digest for query in queries for digest in connection.execute(query).scalars()}
