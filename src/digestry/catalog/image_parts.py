"""The parts of images, their layers and configs: what refers to them, and which images have them.

Functions on a transaction. A digest is text here, as it is in the tables, and a key is a pair of the
repository's row and a text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, exists, func, select, true

from digestry.catalog import dialect, manifest_rows, tag_history
from digestry.catalog.holders import find_holders
from digestry.catalog.image_graph import MOST_ROWS, Key, TooMuch, rows_of
from digestry.catalog.manifest_rows import StoredManifest
from digestry.catalog.schema import manifest_references, manifests, repositories
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.image_parts import MOST_PART_REFERRERS, LayerImage

Visible = Callable[[str], bool]
"""Whether the reader may see the repository of a name."""

_PARTS: Final = ("layer", "config")
_MOST_IMAGES: Final = 20_000
"""Images with one layer that are compared: of more, the smallest may not be among them."""
_CANDIDATES: Final = 5
_MOST_BYTES: Final = 8 << 20
"""Of annotations of referrers."""


def parts_with_referrers(connection: Connection, images: Iterable[Key]) -> dict[Key, list[str]]:
    """Return, for each image, its layers and config that a manifest of any repository refers to.

    Raises :class:`TooMuch`.
    """
    keys = list(images)
    refers = manifests.alias("refers")
    columns = select(
        manifest_references.c.repository_id, manifest_references.c.parent, manifest_references.c.child
    ).where(
        manifest_references.c.role.in_(_PARTS),
        exists().where(
            refers.c.subject == manifest_references.c.child,
            refers.c.deleted_at.is_(None),
        ),
    )
    found: dict[Key, list[str]] = {key: [] for key in keys}
    here = (manifest_references.c.repository_id, manifest_references.c.parent)
    for row in rows_of(connection, columns, *here, keys):
        found[row.repository_id, row.parent].append(row.child)
    return {key: sorted(parts) for key, parts in found.items()}


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that refers to ``part``, in ``repository``, whose row is ``row``."""

    part: str
    repository: str
    row: Row[Any]


def referrers_of(connection: Connection, parts: Collection[str], visible: Visible) -> list[Referrer]:
    """Return the newest referrers of each part in each repository that is visible, newest first.

    Raises :class:`TooMuch`.
    """
    if not parts:
        return []
    wanted = dialect.of(connection).bulk_keys(((0, part) for part in sorted(parts)), int)
    newest_first = manifests.c.pushed_at.desc(), manifests.c.digest
    rank = func.row_number().over(
        partition_by=(manifests.c.repository_id, manifests.c.subject), order_by=newest_first
    )
    # The annotations, which may be large, are read of the chosen rows alone.
    ranked = (
        select(manifests.c.repository_id, manifests.c.digest, rank.label("rank"))
        .join_from(wanted.table, manifests, manifests.c.subject == wanted.second)
        .where(manifests.c.deleted_at.is_(None))
        .subquery("ranked")
    )
    chosen = (
        select(
            manifests.c.repository_id,
            manifests.c.digest,
            manifests.c.size,
            manifests.c.pushed_at,
            repositories.c.name,
        )
        .join_from(
            ranked,
            manifests,
            (manifests.c.repository_id == ranked.c.repository_id) & (manifests.c.digest == ranked.c.digest),
        )
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .where(ranked.c.rank <= MOST_PART_REFERRERS)
        .limit(MOST_ROWS + 1)
    )
    found = connection.execute(chosen).all()
    if len(found) > MOST_ROWS:
        raise TooMuch
    seen = [
        row for row in sorted(found, key=lambda row: (-int(row.pushed_at), row.digest)) if visible(row.name)
    ]
    names = {row.repository_id: row.name for row in seen}
    keys = (((row.repository_id, row.digest), row.size) for row in seen)
    referrers: list[Referrer] = []
    held = 0
    for row in manifest_rows.rows_in_order(connection, keys):
        held += len(row.annotations)
        if held > _MOST_BYTES:
            raise TooMuch
        referrers.append(Referrer(row.subject, names[row.repository_id], row))
    return referrers


@dataclass(frozen=True, slots=True)
class ReferrersElsewhere:
    """The newest referrers that other repositories have, each with the name of its repository; ``more``:
    there are others."""

    rows: tuple[tuple[str, StoredManifest], ...] = ()
    more: bool = False


def referrers_elsewhere(
    connection: Connection, name: str, parts: Collection[str], *, visible: Visible, limit: int
) -> ReferrersElsewhere:
    """Return the manifests of other repositories than ``name``, which are ``visible``, that refer to one of
    ``parts``; none if there are too many to look at."""
    try:
        found = referrers_of(connection, parts, lambda other: other != name and visible(other))
    except TooMuch:
        return ReferrersElsewhere(more=True)
    rows = tuple((one.repository, manifest_rows.to_stored(one.row)) for one in found[:limit])
    return ReferrersElsewhere(rows, len(found) > limit)


def repositories_with(connection: Connection, layer: str) -> dict[int, str]:
    """Return the names of the repositories that have, or had, an image with ``layer``, by their rows."""
    # One look into an index for each repository: the index begins with the repository.
    has = exists().where(
        manifest_references.c.repository_id == repositories.c.id,
        manifest_references.c.child == layer,
        manifest_references.c.role == "layer",
    )
    rows = connection.execute(select(repositories.c.id, repositories.c.name).where(has))
    return {row.id: row.name for row in rows}


def images_with(connection: Connection, layer: str, names: dict[int, str], *, limit: int) -> list[LayerImage]:
    """Return the images of the repositories ``names`` that have ``layer``, deleted ones included: those with
    the fewest layers first, and of these the oldest."""
    return [_image(connection, row, names) for row in _smallest(connection, layer, names, limit)]


def base_with(connection: Connection, layer: str, visible: Visible) -> LayerImage | None:
    """Return the image that ``layer`` came with: the one with the fewest layers of those that are visible.

    Of several, it is one that a tag pointed to, if there is any, and the oldest.
    """
    names = {row: name for row, name in repositories_with(connection, layer).items() if visible(name)}
    found = images_with(connection, layer, names, limit=_CANDIDATES)
    smallest = [image for image in found if image.layers == found[0].layers]
    return next((image for image in smallest if image.tag), smallest[0] if smallest else None)


def _smallest(connection: Connection, layer: str, names: Collection[int], limit: int) -> Sequence[Row[Any]]:
    if not names:
        return ()
    wanted = dialect.of(connection).bulk_keys(((row, layer) for row in sorted(names)), int)
    holding = (
        select(manifest_references.c.repository_id, manifest_references.c.parent)
        .join_from(
            wanted.table,
            manifest_references,
            (manifest_references.c.repository_id == wanted.first)
            & (manifest_references.c.child == wanted.second)
            & (manifest_references.c.role == "layer"),
        )
        .limit(_MOST_IMAGES)
        .subquery("holding")
    )
    inside = manifest_references.alias("inside")
    count = func.count().label("layers")
    counted = (
        select(holding.c.repository_id, holding.c.parent, count)
        .join_from(
            holding,
            inside,
            (inside.c.repository_id == holding.c.repository_id)
            & (inside.c.parent == holding.c.parent)
            & (inside.c.role == "layer"),
        )
        .group_by(holding.c.repository_id, holding.c.parent)
        .subquery("counted")
    )
    query: Select[Any] = (
        select(
            manifests.c.repository_id,
            manifests.c.digest,
            manifests.c.media_type,
            manifests.c.size,
            manifests.c.deleted_at,
            counted.c.layers,
        )
        .join_from(
            counted,
            manifests,
            (manifests.c.repository_id == counted.c.repository_id) & (manifests.c.digest == counted.c.parent),
        )
        # What refers to something, such as a signature, is no image that others are built on.
        .where(
            manifests.c.subject.is_(None),
            manifests.c.artifact_type.is_(None) | manifests.c.artifact_type.in_(media_types.IMAGE_CONFIGS),
        )
        .order_by(counted.c.layers, manifests.c.pushed_at, manifests.c.digest)
        .limit(limit)
    )
    return connection.execute(query).all()


def _image(connection: Connection, row: Row[Any], names: dict[int, str]) -> LayerImage:
    name = names[row.repository_id]
    digests = [row.digest]
    digests += [str(holder.digest) for holder in find_holders(connection, row.repository_id, row.digest)]
    newest = None
    for digest in dict.fromkeys(digests):
        came = connection.execute(tag_history.pointing(name, digest, true(), 1)).first()
        if came is not None and (newest is None or came.at > newest.at):
            newest = came
    return LayerImage(
        repository=name,
        digest=Digest.parse(row.digest),
        media_type=row.media_type,
        size=row.size,
        layers=row.layers,
        present=row.deleted_at is None,
        tag="" if newest is None else newest.tag,
        tag_digest=None if newest is None else Digest.parse(newest.to_digest),
        still=newest is not None and newest.until is None,
    )
