"""The list of repositories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.catalog.repository_pages import RepositoryRow
from digestry.web.page import Page
from digestry.web.visit import SignInNeeded, Visit

_PAGE: Final = 100


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
    """Return the first ``limit`` repositories after ``after`` that the visitor may see."""

    def read(beginning: str, last: RepositoryRow | None, some: int) -> list[RepositoryRow]:
        return visit.catalog.browsing.repositories(
            after=after if last is None else last.name,
            beginning=beginning,
            containing=containing,
            limit=some,
        )

    return visit.first_visible(read, lambda row: row.name, limit)
