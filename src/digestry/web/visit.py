"""A visit: one request for a page, who makes it, and what the page may show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from starlette.types import Scope

from digestry.catalog.catalog import Catalog
from digestry.errors import NotFound
from digestry.web.documents import Platforms
from digestry.web.host import Host, Visitor
from digestry.web.sessions import Session, Sessions

T = TypeVar("T")

_LONGEST: Final = 300
_BATCH: Final = 500


class SignInNeeded(Exception):
    """An anonymous visitor asks for what they may not see, or what does not exist."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request for a page.

    ``path`` has the variable parts of its path, by name, and ``query`` its parameters, the first of each
    name. ``registry`` is the registry's host and port as the visitor reaches it; ``address`` is the page's
    own path with its query. ``platforms`` are those of
    images that were read before.
    """

    host: Host
    sessions: Sessions
    visitor: Visitor
    platforms: Platforms
    registry: str
    address: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    theme: str = ""
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    https: bool = False
    scope: Scope = field(default_factory=dict, repr=False)
    csrf: str = ""
    """The token that this visitor's forms must send back."""
    session: Session | None = None

    @property
    def catalog(self) -> Catalog:
        """The registry's catalog. Its methods block, as pages may."""
        return self.host.catalog

    @property
    def user(self) -> str:
        """The name of the user who is signed in; empty for an anonymous visitor."""
        return "" if self.session is None else self.session.user

    def parameter(self, name: str) -> str:
        """Return a query parameter, without the spaces around it; empty if it is missing or too long."""
        value = self.query.get(name, "").strip()
        return value if len(value) <= _LONGEST and value.isprintable() else ""

    def first_visible(
        self, read: Callable[[str, T | None, int], list[T]], repository: Callable[[T], str], limit: int
    ) -> list[T]:
        """Return the first ``limit`` rows whose repositories the visitor may see.

        ``read`` is called with the beginning of the repositories' names, the row that the wanted ones follow,
        and their number. It is called only with the prefixes of the rules, so that the time does not show how
        many others there are.
        """
        batch = limit if self.visitor.pulls_everything() else max(limit, _BATCH)
        found: list[T] = []
        for beginning in self.visitor.seen_beginnings():
            last: T | None = None
            while True:
                rows = read(beginning, last, batch)
                found += [row for row in rows if self.visitor.may_see(repository(row))]
                if len(found) >= limit:
                    return found[:limit]
                if len(rows) < batch:
                    break
                last = rows[-1]
        return found

    def repository(self) -> str:
        """Return the repository in the page's path, which the visitor may see.

        Raises :class:`SignInNeeded` and :class:`NotFound` without looking whether it exists.
        """
        name = self.path["name"]
        if self.visitor.may_see(name):
            return name
        if self.visitor.identity.anonymous:
            raise SignInNeeded
        raise NotFound(f"there is no repository {name}")
