"""Lists that come in pages, each with a ``Link`` to the next (RFC 8288; distribution-spec)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Final

from digestry.client.connection import Connection
from digestry.client.endpoint import RegistryEndpoint, RepositoryEndpoint
from digestry.client.responses import Response
from digestry.client.transport import origin_of
from digestry.errors import ProtocolViolation, Unreachable
from digestry.model.digest import shown

_LINK: Final = re.compile(r'<([^>]*)>\s*((?:;\s*[a-zA-Z*]+\s*=\s*(?:"[^"]*"|[^\s";,]+)\s*)*)')
_NEXT: Final = re.compile(r';\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next\b)', re.IGNORECASE)
_TARGET: Final = re.compile(r"<[^<>]*>")
_NEXT_WORD: Final = re.compile(r"\bnext\b", re.IGNORECASE)
_LONGEST_LINK: Final = 8192
MOST_PAGES: Final = 10_000
MOST_ENTRIES: Final = 1_000_000
MOST_EMPTY: Final = 64
"""Pages in a row without an entry, as a registry sends them that looks for few among many."""
SLOWEST: Final = 50
"""Entries in a second: a list that comes slower makes somebody wait."""
_PATIENCE: Final = 30.0


def next_link(header: str | None) -> str | None:
    """Return the target of the link with ``rel=next``; None if there is none.

    Raises :class:`ProtocolViolation` for a header that names a next page in a way that is not understood: the
    list is not complete without it.
    """
    text = header or ""
    for target, parameters in _LINK.findall(text[:_LONGEST_LINK]):
        if _NEXT.search(parameters):
            return str(target)
    if len(text) > _LONGEST_LINK or _NEXT_WORD.search(_TARGET.sub("", text)):
        raise ProtocolViolation(f"the Link to the next page cannot be read: {shown(text)}")
    return None


class Progress:
    """The progress of a paged list, which ends a list that has no end or comes too slowly.

    ``patience`` is how many seconds it may take more than its entries are worth.
    """

    def __init__(self, host: str, patience: float | None = None) -> None:
        self._host = host
        self._patience = _PATIENCE if patience is None else patience
        self._pages = self._entries = self._empty = 0
        self._waited = 0.0

    def page(self, entries: int, took: float) -> None:
        """Count a page of ``entries`` that took so many seconds.

        Raises :class:`ProtocolViolation` for a list that has no end, :class:`Unreachable` for one that
        comes too slowly.
        """
        self._pages += 1
        self._entries += entries
        self._empty = 0 if entries else self._empty + 1
        self._waited = max(0.0, self._waited + took - entries / SLOWEST)
        if self._pages >= MOST_PAGES or self._entries > MOST_ENTRIES or self._empty >= MOST_EMPTY:
            raise ProtocolViolation(
                f"{self._host} never ends its list: it has sent {self._pages} pages with {self._entries} "
                "entries, and says that there are more"
            )
        if self._waited > self._patience:
            raise Unreachable(
                f"gave up on {self._host}: its list comes slower than {SLOWEST} entries in a second, after "
                f"{self._pages} pages with {self._entries} entries"
            )


def progress_of(connection: Connection, host: str) -> Progress:
    """Return the progress of a new list of ``host``."""
    return Progress(host, connection.options.patience)


def pages(
    endpoint: RepositoryEndpoint | RegistryEndpoint, path: str, pace: Callable[[], None] | None = None
) -> Iterator[Response]:
    """Yield the responses to ``path`` and to the pages after it, each closed when the next is requested.
    ``pace`` is called before each page after the first.

    The caller sets ``entries`` of each to the number of its entries.

    Raises :class:`ProtocolViolation` for a link to another host or to no page, for a circle of links, and for
    pages without an end, :class:`Unreachable` for a list that comes too slowly.
    """
    url = endpoint.url(path)
    seen = {url}
    progress = progress_of(endpoint.connection, endpoint.host)
    while True:
        began = time.monotonic()
        with endpoint.request("GET", url) as response:
            took = time.monotonic() - began
            if len(seen) > 1 and response.status in {404, 405}:
                raise ProtocolViolation(
                    f"{response.host} links to a page that it does not have: {shown(url)}"
                )
            yield response
            link = next_link(response.headers.get("Link"))
            if link is None or response.status != 200:
                return
            progress.page(response.entries, took + response.took)
            if len(seen) == 1:
                url = endpoint.url(path)  # by now its address is known for certain
            following = endpoint.connection.transport.follow(url, link)
            if origin_of(following) != origin_of(url):
                raise ProtocolViolation(
                    f"{response.host} links to another host for the next page: {shown(following)}"
                )
        if following in seen:
            raise ProtocolViolation(
                f"{response.host} never ends its list: its pages lead to {shown(following)}"
            )
        seen.add(following)
        url = following
        if pace is not None:
            pace()
