"""Lines that describe requests to a person, without secrets."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

_HARMLESS: Final = frozenset({
    "artifactType",
    "before",
    "digest",
    "from",
    "last",
    "mount",
    "n",
    "scope",
    "service",
    "since",
    "tag",
})  # fmt: skip
"""Parameters without secrets. Others may be signatures, states of uploads, or logins."""


def request_line(method: str, url: str, outcome: str, seconds: float) -> str:
    """Return a line on one request: its method and address, its outcome, and its milliseconds.

    Parts of the address that may be secret are left out: a user, and unknown parameters.
    """
    return f"{method} {_shown(url)}: {outcome}, {seconds * 1000:.0f} ms"


def _shown(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(
        f"{quote(key)}={quote(value, safe='/:,*') if key in _HARMLESS else '…'}"
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return f"{parts.scheme}://{host}{parts.path}{'?' if query else ''}{query}"
