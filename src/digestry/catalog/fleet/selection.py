"""Which images a question is about, and which of them may be named to the one who asks.

The table of images is small beside that of runs: a question is answered for its images, by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, or_, select

from digestry.catalog import dialect
from digestry.catalog.fleet_schema import fleet_image_digests, fleet_image_vulnerabilities, fleet_images
from digestry.catalog.schema import journal, repositories, tags
from digestry.model.digest import Digest
from digestry.model.reference import DOCKER_HUB, Reference

MayAudit = Callable[[str], bool]
"""Tells whether the one who asks may know where images of a repository ran."""


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """A choice of images: those that all of what is given is true of.

    ``digest`` is one by which an image is known: of its index, manifest, config, or a layer. ``reference``
    without a tag and digest is a repository; with a tag it is what that points to now, or with ``ever`` what
    it ever pointed to. ``own``: it is of this registry.
    """

    digest: Digest | None = None
    reference: Reference | None = None
    own: bool = True
    vulnerability: str = ""
    state: str = ""
    ever: bool = False
    number: int | None = None

    @property
    def everything(self) -> bool:
        return self == ImageFilter(ever=self.ever, own=self.own)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: everything may be named to one who audits ``everything``; to others the images of
    repositories that ``may_audit`` is true of, with the names of those that ``may_pull`` is true of, too."""

    everything: bool = True
    may_audit: MayAudit = bool
    may_pull: MayAudit = bool


EVERYBODY: Final = Asker()


def chosen(connection: Connection, choice: ImageFilter, asker: Asker) -> Select[Any] | None:
    """Return a SELECT of the chosen images' numbers that ``asker`` may know of; None for all images."""
    if choice.everything and asker.everything:
        return None
    query = select(fleet_images.c.number)
    for condition in _conditions(connection, choice):
        query = query.where(condition)
    if not asker.everything:
        query = query.where(_visible(connection, asker))
    return query


def _visible(connection: Connection, asker: Asker) -> ColumnElement[bool]:
    homes = connection.execute(select(fleet_images.c.home).where(fleet_images.c.home != "").distinct())
    allowed = [(home, "") for home in homes.scalars() if asker.may_audit(home)]
    listed = dialect.of(connection).bulk_keys(allowed, str)
    return fleet_images.c.home.in_(select(listed.first).select_from(listed.table))


def _conditions(connection: Connection, choice: ImageFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if choice.number is not None:
        found.append(fleet_images.c.number == choice.number)
    if choice.state:
        found.append(fleet_images.c.state == choice.state)
    if choice.digest is not None:
        found.append(_known_by([str(choice.digest)], connection))
    if choice.vulnerability:
        affected = select(fleet_image_vulnerabilities.c.image).where(
            fleet_image_vulnerabilities.c.vulnerability == choice.vulnerability,
            fleet_image_vulnerabilities.c.status == "affected",
        )
        found.append(fleet_images.c.number.in_(affected))
    if choice.reference is not None:
        found.append(_named(connection, choice.reference, own=choice.own, ever=choice.ever))
    return found


def _known_by(digests: list[str], connection: Connection) -> ColumnElement[bool]:
    wanted = dialect.of(connection).bulk_keys([(digest, "") for digest in sorted(set(digests))], str)
    known = select(fleet_image_digests.c.image).join_from(
        wanted.table, fleet_image_digests, fleet_image_digests.c.digest == wanted.first
    )
    return fleet_images.c.number.in_(known)


def _named(connection: Connection, reference: Reference, *, own: bool, ever: bool) -> ColumnElement[bool]:
    host, name = reference.host, reference.repository
    here: ColumnElement[bool] = (fleet_images.c.host == host) & (fleet_images.c.repository == name)
    if own:
        here = or_(here, fleet_images.c.home == name)
    if reference.digest is not None:
        return here & _known_by([str(reference.digest)], connection)
    if reference.tag is None:
        return here
    pointed = _pointed(connection, reference.repository, reference.tag, ever=ever) if own else []
    texts = {str(reference), f"{reference.repository}:{reference.tag}"}
    if reference.host == DOCKER_HUB:
        texts.add(reference.familiar)
    if not pointed:
        # No tag of this registry: all that is known is by which name an image was started.
        return here & fleet_images.c.reference.in_(sorted(texts))
    return here & _known_by(pointed, connection)


def _pointed(connection: Connection, repository: str, tag: str, *, ever: bool) -> list[str]:
    """Return the digests that a tag points to, or with ``ever`` all that it pointed to."""
    row = select(repositories.c.id).where(repositories.c.name == repository).scalar_subquery()
    now = select(tags.c.digest).where(tags.c.repository_id == row, tags.c.name == tag)
    found = list(connection.execute(now).scalars())
    if ever:
        before = select(journal.c.to_digest).where(
            journal.c.repository == repository, journal.c.tag == tag, journal.c.to_digest.is_not(None)
        )
        found += [digest for digest in connection.execute(before.distinct()).scalars() if digest]
    return found
