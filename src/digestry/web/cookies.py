"""The cookies of the pages: their names, and how they are set.

Over HTTPS the names begin with ``__Host-``: browsers take such a cookie only from this host, over HTTPS, for
all of its paths, so that no other host of the domain can put one in its place.
"""

from __future__ import annotations

from typing import Final, Literal

from starlette.responses import Response

THEME: Final = "digestry-theme"
"""The theme that a visitor chose. The script sets it as well."""
THEMES: Final = frozenset(("light", "dark"))
SESSION: Final = "digestry-session"
"""The secret of a session."""
FORM: Final = "digestry-form"
"""The token that the forms of a visitor without a session send back."""
ARRIVAL: Final = "digestry-arrival"
"""The mark of a visitor who has just come from a page elsewhere."""
FLOW: Final = "digestry-sign-in"
"""What a sign-in at an issuer must come back with."""


def full_name(name: str, *, https: bool) -> str:
    """Return a cookie's name as the browser has it."""
    return f"__Host-{name}" if https else name


def put(
    response: Response,
    name: str,
    value: str,
    *,
    https: bool,
    seconds: float | None = None,
    same_site: Literal["strict", "lax"] = "strict",
) -> None:
    """Set a cookie that no script reads, for so many seconds, or until the browser ends."""
    response.set_cookie(
        full_name(name, https=https),
        value,
        max_age=None if seconds is None else int(seconds),
        secure=https,
        httponly=True,
        samesite=same_site,
    )


def drop(response: Response, name: str, *, https: bool) -> None:
    """Remove a cookie."""
    response.delete_cookie(full_name(name, https=https), secure=https, httponly=True, samesite="strict")
