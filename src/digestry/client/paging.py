"""Lists that come in pages, each with a ``Link`` to the next (RFC 8288; distribution-spec)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from digestry.client.answers import Answer
from digestry.client.transport import origin_of
from digestry.errors import ProtocolViolation
from digestry.model.digest import shown

if TYPE_CHECKING:
    from digestry.client.repository import Repository

_LINK: Final = re.compile(r'<([^>]*)>\s*((?:;\s*[a-zA-Z*]+\s*=\s*(?:"[^"]*"|[^\s";,]+)\s*)*)')
_NEXT: Final = re.compile(r';\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next\b)', re.IGNORECASE)
_MOST_PAGES: Final = 10_000


def next_link(header: str | None) -> str | None:
    """The target of the link with ``rel=next``; None if there is none."""
    for target, parameters in _LINK.findall((header or "")[:8192]):
        if _NEXT.search(parameters):
            return str(target)
    return None


def pages(repository: Repository, path: str) -> Iterator[Answer]:
    """The answers to ``path`` and to the pages after it, each closed when the next is asked for.

    Raises :class:`ProtocolViolation` for a link to another host, to no page, or one that goes in a circle.
    """
    url = repository.url(path)
    seen = {url}
    while True:
        with repository.ask("GET", url) as answer:
            if len(seen) > 1 and answer.status in {404, 405}:
                raise ProtocolViolation(f"{answer.host} links to a page that it does not have: {shown(url)}")
            yield answer
            link = next_link(answer.headers.get("Link"))
            if link is None or answer.status != 200:
                return
            following = repository.session.transport.follow(url, link)
            if origin_of(following) != origin_of(url):
                raise ProtocolViolation(
                    f"{answer.host} links to another host for the next page: {shown(following)}"
                )
        if following in seen or len(seen) >= _MOST_PAGES:
            raise ProtocolViolation(
                f"{answer.host} never ends its list: its pages lead to {shown(following)}"
            )
        seen.add(following)
        url = following
