"""The list of repositories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.catalog.repository_pages import RepositoryRow
from digestry.web.page import Page
from digestry.web.visit import SignInNeeded, Visit

_PAGE: Final = 100
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Repositories:
    """A page of the list. ``filter`` is the part of the names that was asked for, and ``next_after`` the
    name that the next page follows; empty at the end."""

    rows: tuple[RepositoryRow, ...]
    filter: str
    after: str
    next_after: str


def show(visit: Visit) -> Page:
    """Show the repositories that the visitor may see, in the order of their names."""
    if visit.visitor.identity.anonymous and not visit.visitor.sees_anything():
        raise SignInNeeded
    wanted, after = visit.parameter("filter").lower(), visit.parameter("after")
    found = visible(visit, after=after, containing=wanted, limit=_PAGE + 1)
    rows = tuple(found[:_PAGE])
    next_after = rows[-1].name if len(found) > _PAGE else ""
    view = Repositories(rows, wanted, after, next_after)
    return Page("repositories.html", "Repositories", view, section="/")


def visible(visit: Visit, *, after: str = "", containing: str = "", limit: int) -> list[RepositoryRow]:
    """Return the first ``limit`` repositories after ``after`` that the visitor may see.

    It reads only names with the prefixes of the rules, so that the time does not show how many others there
    are.
    """
    browsing, visitor = visit.catalog.browsing, visit.visitor
    batch = limit if visitor.pulls_everything() else max(limit, _BATCH)
    found: list[RepositoryRow] = []
    for beginning in visitor.seen_beginnings():
        last = after
        while True:
            rows = browsing.repositories(after=last, beginning=beginning, containing=containing, limit=batch)
            found += [row for row in rows if visitor.may_see(row.name)]
            if len(found) >= limit:
                return found[:limit]
            if len(rows) < batch:
                break
            last = rows[-1].name
    return found
