"""A repository: its tags, what each points to, and the images that run now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.catalog.image_summaries import Summaries
from digestry.catalog.repository_pages import RepositoryRow
from digestry.catalog.running_images import RunningImage
from digestry.catalog.tag_pages import MOST_MOVES, ListedTag, TagCursor
from digestry.web.page import Page
from digestry.web.visit import Visit

_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class TagLine:
    """A tag in the table. ``smallest`` and ``largest`` are of its images in bytes; ``running`` is None where
    none is known to run."""

    tag: ListedTag
    platforms: tuple[str, ...]
    smallest: int
    largest: int
    running: RunningImage | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A page of a repository's tags. ``next_after`` and ``next_at`` are the position that the next page
    follows; empty at the end. ``audits`` is whether the visitor may know what runs."""

    repository: RepositoryRow
    lines: tuple[TagLine, ...]
    audits: bool
    filter: str
    order: str
    after: str
    next_after: str
    next_at: int
    most_moves: int = MOST_MOVES


def show(visit: Visit) -> Page:
    """Show the tags of a repository: those that moved last first, or by name."""
    name = visit.repository()
    order = "name" if visit.parameter("order") == "name" else "time"
    wanted, after, at = visit.parameter("filter"), visit.parameter("after"), visit.parameter("at")
    audits = visit.visitor.audits(name)
    browsing = visit.catalog.browsing
    repository = browsing.repository(name)
    page = browsing.tags(
        name,
        containing=wanted,
        newest_first=order == "time",
        after=TagCursor(after, int(at) if at.isdecimal() and len(at) < 19 else 0) if after else None,
        runs_at=visit.host.now() if audits else None,
        limit=_PAGE,
    )
    platforms = visit.platforms.of_each(visit.host, page.rows)
    lines = tuple(_line(tag, page.images, platforms.get(tag.digest, ())) for tag in page.rows)
    last = page.rows[-1] if page.more else None
    view = Repository(
        repository,
        lines,
        audits,
        wanted,
        order,
        after,
        "" if last is None else last.name,
        0 if last is None or order == "name" else last.moved_at,
    )
    return Page("repository.html", name, view, section="/")


def _line(tag: ListedTag, images: Summaries, platforms: tuple[str, ...]) -> TagLine:
    children = images.children.get(tag.digest, ())
    sizes = [images.sizes.get(image, 0) for image in [child.digest for child in children] or [tag.digest]]
    # An attestation beside the images of an index is small, and not an image: it has no part in the range.
    sizes = sorted(sizes)[-len(platforms) :] if platforms else sizes
    return TagLine(tag, platforms, min(sizes), max(sizes), images.running.get(tag.digest))
