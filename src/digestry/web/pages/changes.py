"""What changed between two images of a repository, and where the old one still runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from digestry.catalog.running_images import RunningPlace
from digestry.errors import CallerError, InvalidConfiguration, InvalidDigest, NotFound, StorageError
from digestry.model.config_comparison import ConfigChanges
from digestry.model.digest import Digest
from digestry.model.image_comparison import ComparedContent, Comparison, ImageChanges, compare
from digestry.model.reference import check_tag
from digestry.web.page import Page
from digestry.web.repository_content import RepositoryContent
from digestry.web.visit import Visit

_MOST_ROWS: Final = 200
_MOST_PLACES: Final = 100
_LONGEST: Final = 4000


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """A value that changed; None if it is not there. ``secret``: by its name it may be a secret."""

    name: str
    old: str | None
    new: str | None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class ChangeTable:
    """The values of one kind that changed, and how many ``more`` than are shown."""

    heading: str
    rows: tuple[ChangeRow, ...]
    more: int


@dataclass(frozen=True, slots=True)
class ChangesView:
    """What the page shows. ``comparison`` is None, with the ``problem``, if the images cannot be read; the
    ``most`` rows of each list are shown.

    ``places`` are those where the old image runs or ran; None for visitors who may not know. ``tag`` is the
    tag whose move it is, or empty.
    """

    name: str
    tag: str
    old: Digest
    new: Digest
    comparison: Comparison | None
    problem: str
    tables: tuple[ChangeTable, ...]
    places: tuple[RunningPlace, ...] | None
    most: int = _MOST_ROWS


def show(visit: Visit) -> Page:
    """Show what changed between the digests ``old`` and ``new``.

    Raises :class:`InvalidDigest`, :class:`NotFound`.
    """
    name = visit.repository()
    old, new = _digest(visit, "old"), _digest(visit, "new")
    tag = _tag(visit)
    places = None
    if visit.visitor.audits(name):
        now = visit.host.now()
        places = tuple(visit.catalog.browsing.places(name, str(old), now=now, limit=_MOST_PLACES))
    comparison, problem = None, ""
    content = RepositoryContent(visit, name)
    try:
        comparison = compare(
            *(ComparedContent(content.named(digest), content) for digest in (old, new)),
            platform=visit.parameter("platform") or None,
        )
    except InvalidConfiguration:
        raise
    except (CallerError, StorageError) as error:
        if isinstance(error, NotFound) and not _known(visit, name, old, new):
            raise
        problem = error.message
    image = None if comparison is None else comparison.image
    tables = () if comparison is None else tuple(_tables(comparison, image))
    view = ChangesView(name, tag, old, new, comparison, problem, tables, places)
    title = f"What changed in {name}{':' if tag else ''}{tag}"
    return Page("changes.html", title, view, section="/")


def _digest(visit: Visit, name: str) -> Digest:
    try:
        return Digest.parse(visit.parameter(name))
    except InvalidDigest as error:
        raise InvalidDigest(f"the parameter {name} is not a digest", hint=error.hint) from error


def _tag(visit: Visit) -> str:
    """Return the parameter ``tag`` if it can be the name of a tag, else nothing."""
    tag = visit.parameter("tag")
    try:
        check_tag(tag)
    except CallerError:
        return ""
    return tag


def _known(visit: Visit, name: str, *digests: Digest) -> bool:
    """Return whether the repository has or had each of ``digests``."""
    return all(visit.catalog.holders(name, digest).holders for digest in digests)


def _tables(comparison: Comparison, image: ImageChanges | None) -> list[ChangeTable]:
    """Return the tables of what changed, without those of nothing."""
    found = []
    if image is not None and image.config is not None:
        found += _config_tables(image.config)
    notes = [ChangeRow(one.name, one.old, one.new) for one in comparison.annotations]
    if image is not None and image.new.digest != comparison.new:
        notes += [ChangeRow(f"{one.name} (image)", one.old, one.new) for one in image.annotations]
    found.append(_table("Annotations", notes))
    return [table for table in found if table.rows]


def _config_tables(config: ConfigChanges) -> list[ChangeTable]:
    items = [("Ports", config.exposed_ports), ("Volumes", config.volumes)]
    return [
        _table("Settings", [ChangeRow(one.name, _text(one.old), _text(one.new)) for one in config.settings]),
        _table(
            "Environment", [ChangeRow(one.name, one.old, one.new, one.secret) for one in config.environment]
        ),
        *(
            _table(
                heading,
                [ChangeRow(name, "declared", None) for name in changes.removed]
                + [ChangeRow(name, None, "declared") for name in changes.added],
            )
            for heading, changes in items
        ),
        _table("Labels", [ChangeRow(one.name, one.old, one.new) for one in config.labels]),
    ]


def _table(heading: str, rows: Sequence[ChangeRow]) -> ChangeTable:
    shown = (
        ChangeRow(_cut(row.name) or "", _cut(row.old), _cut(row.new), row.secret)
        for row in islice(rows, _MOST_ROWS)
    )
    return ChangeTable(heading, tuple(shown), max(0, len(rows) - _MOST_ROWS))


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
