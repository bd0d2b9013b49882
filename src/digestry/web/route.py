"""The routes of the pages: a path with variable parts, a method, and the function that answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from starlette.responses import Response

from digestry.errors import NotFound
from digestry.web.page import Page
from digestry.web.visit import Visit

Show: TypeAlias = Callable[[Visit], Page | Response]
"""Reads what a page shows, or leads to another one. Called in a thread, so that it may block. Raises
:class:`NotFound`, :class:`CallerError` and :class:`SignInNeeded`."""
Handle: TypeAlias = Callable[[Visit], Awaitable[Page | Response]]
"""Answers on the event loop. Raises as :data:`Show` does."""
Act: TypeAlias = Callable[[Visit, Mapping[str, str]], Awaitable[Page | Response]]
"""Carries out a form, whose fields it is given. Called on the event loop. Raises as :data:`Show` does."""

NO_PAGE: Final = "there is no page at this address"

_PARTS: Final = {
    "name": r"[a-z0-9][a-z0-9._/-]{0,254}",
    "tag": r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}",
    "digest": r"sha(?:256|512):[0-9a-f]{64,128}",
    "file": r"[a-z0-9._-]{1,100}",
}
"""What each variable part of a path may be."""


@dataclass(frozen=True, slots=True)
class Route:
    """A page, or what a form does. ``handle`` answers a GET on the event loop, where ``show`` would in a
    thread.

    ``token``: the form must send back the token that the visitor was given.
    """

    path: str
    show: Show | None = None
    act: Act | None = None
    handle: Handle | None = None
    token: bool = True

    @property
    def pattern(self) -> re.Pattern[str]:
        """The regular expression of the whole path."""
        parts = re.split(r"\{([a-z]+)\}", self.path)
        text = "".join(
            f"(?P<{part}>{_PARTS[part]})" if place % 2 else re.escape(part)
            for place, part in enumerate(parts)
        )
        return re.compile(text, re.ASCII)


class RouteTable:
    """Finds the route of a path and method."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._patterns = [(route.pattern, route) for route in routes]

    def find(self, path: str, *, acts: bool) -> tuple[Route, Mapping[str, str]]:
        """Return the route that shows a path, or ``acts`` on its form, and the path's variable parts.

        Raises :class:`NotFound`.
        """
        for pattern, route in self._patterns:
            if (route.act if acts else route.show or route.handle) is not None:
                found = pattern.fullmatch(path)
                if found is not None:
                    return route, found.groupdict()
        raise NotFound(NO_PAGE)
