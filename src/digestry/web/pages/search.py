"""Search: repositories by a part of their names, tags and digests by their beginnings, vulnerabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from starlette.responses import RedirectResponse, Response

from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.repository_pages import RepositoryRow
from digestry.catalog.search_pages import FoundDigest, FoundStatement, FoundTag
from digestry.model.digest_prefix import DigestPrefix
from digestry.web.page import Page
from digestry.web.pages.repositories import visible
from digestry.web.templates import address
from digestry.web.visit import SignInNeeded, Visit

_MOST: Final = 50
_ALGORITHMS: Final = ("sha256:", "sha512:")


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found; ``more`` is whether one of the lists was cut."""

    wanted: str
    repositories: tuple[RepositoryRow, ...] = ()
    tags: tuple[FoundTag, ...] = ()
    digests: tuple[FoundDigest, ...] = ()
    statements: tuple[FoundStatement, ...] = ()
    more: bool = False

    @property
    def nothing(self) -> bool:
        return not (self.repositories or self.tags or self.digests or self.statements)


def show(visit: Visit) -> Page | Response:
    """Show what the visitor may see of what was searched; a whole digest that is in one place leads there."""
    if visit.visitor.identity.anonymous and not visit.visitor.sees_anything():
        raise SignInNeeded
    wanted = visit.parameter("q")
    found = _search(visit, wanted) if wanted else Found("")
    prefix = DigestPrefix.read(found.wanted.lower())
    if prefix is not None and prefix.whole is not None and len(found.digests) == 1:
        (only,) = found.digests
        return RedirectResponse(address(f"/r/{only.repository}@{only.digest}"), 303)
    return Page("search.html", f"Search: {wanted}" if wanted else "Search", found)


def _search(visit: Visit, wanted: str) -> Found:
    """Return what a text finds: a name, ``name:tag``, ``name@digest``, a tag, the beginning of a digest, or
    a vulnerability, with or without the registry before it."""
    text = wanted.removeprefix("docker pull ").removeprefix(f"{visit.registry}/")
    name, at, digest = text.rpartition("@")
    if at or text.startswith(_ALGORITHMS):
        return _digests(visit, digest, name.partition(":")[0])
    name, colon, tag = text.partition(":")
    if colon:
        found, stated = _tags_of(visit, name, tag), _statements(visit, text)
        return replace(found, statements=stated.statements, more=found.more or stated.more)
    by_digest, by_tag = _digests(visit, text), _tags(visit, text)
    names = visible(visit, containing=text.lower(), limit=_MOST + 1)
    stated = _statements(visit, text)
    more = by_digest.more or by_tag.more or stated.more or len(names) > _MOST
    return Found(text, tuple(names[:_MOST]), by_tag.tags, by_digest.digests, stated.statements, more)


def _statements(visit: Visit, text: str) -> Found:
    """Return what advisories state about the vulnerability of that name."""

    def read(beginning: str, last: FoundStatement | None, some: int) -> list[FoundStatement]:
        return visit.catalog.browsing.statements_about(text, beginning=beginning, after=last, limit=some)

    rows = visit.first_visible(read, lambda one: one.repository, _MOST + 1)
    return Found(text, statements=tuple(rows[:_MOST]), more=len(rows) > _MOST)


def _tags_of(visit: Visit, name: str, text: str) -> Found:
    """Return the tags of one repository that have ``text`` in their names."""
    if not visit.visitor.may_see(name):
        return Found(text)
    try:
        page = visit.catalog.browsing.tags(name, containing=text, runs_at=None, limit=_MOST)
    except UnknownRepository:
        return Found(text)
    tags = (FoundTag(name, tag.name, tag.digest, tag.moved_at) for tag in page.rows)
    return Found(text, tags=tuple(tags), more=page.more)


def _tags(visit: Visit, text: str) -> Found:
    def read(beginning: str, last: FoundTag | None, some: int) -> list[FoundTag]:
        after = ("", "") if last is None else (last.repository, last.name)
        return visit.catalog.browsing.tags_beginning(text, beginning=beginning, after=after, limit=some)

    rows = visit.first_visible(read, lambda tag: tag.repository, _MOST + 1)
    return Found(text, tags=tuple(rows[:_MOST]), more=len(rows) > _MOST)


def _digests(visit: Visit, text: str, name: str = "") -> Found:
    """Return the digests that begin with ``text``, of one repository or of all."""
    prefix = DigestPrefix.read(text.lower())
    if prefix is None:
        return Found(text)

    def read(beginning: str, last: FoundDigest | None, some: int) -> list[FoundDigest]:
        after = ("", "") if last is None else (last.digest, last.repository)
        start = name if name.startswith(beginning) else beginning
        return visit.catalog.browsing.digests_beginning(prefix, beginning=start, after=after, limit=some)

    rows = visit.first_visible(read, lambda one: one.repository, _MOST + 1)
    found = tuple(one for one in rows[:_MOST] if name in {"", one.repository})
    return Found(text, digests=found, more=len(rows) > _MOST)
